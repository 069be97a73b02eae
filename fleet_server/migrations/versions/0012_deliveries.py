"""What webhooks were told, try by try."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"

Whole = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "deliveries",
        sa.Column("id", Whole, primary_key=True),
        sa.Column("hook", sa.Text, nullable=False),
        sa.Column("event", Whole, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("status", sa.Integer, nullable=False),
        sa.Column("error", sa.Text, nullable=False),
        sa.Column("seconds", sa.Float, nullable=False),
    )
    op.create_index("deliveries_by_hook", "deliveries", ["hook", "id"])
