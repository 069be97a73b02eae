"""Rows that devices were asked for, and the commands that ask."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    whole = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "commands",
        sa.Column("device", sa.Text, primary_key=True),
        sa.Column("number", whole, nullable=False),
        sa.Column("envelope", sa.LargeBinary, nullable=False),
        sa.Column("issued_at", sa.Float, nullable=False),
    )
    texts = ("device", "row", "subject", "model", "version", "digest", "policy", "predicted")
    op.create_table(
        "samples",
        sa.Column("id", whole, primary_key=True),
        *(sa.Column(name, sa.Text, nullable=False) for name in texts),
        *(sa.Column(name, sa.Float, nullable=False) for name in ("score", "confidence")),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("received_at", sa.Float, nullable=False),
        sa.Column("skipped", sa.Integer, nullable=False, server_default="0"),
        sa.UniqueConstraint("device", "row"),
    )
    op.create_index("samples_by_model", "samples", ["model", "score"])
