"""Windows added up by hour and day, and the truth about some rows."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def _all(kind: type[sa.types.TypeEngine[Any]], *names: str) -> list[sa.Column[Any]]:
    return [sa.Column(name, kind, nullable=False) for name in names]


def _id() -> sa.Column[Any]:
    return sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True)


def upgrade() -> None:
    op.create_table(
        "rollups",
        _id(),
        *_all(sa.Text, "span"),
        *_all(sa.Float, "start"),
        *_all(sa.Text, "digest", "site", "labels", "model", "version", "profile"),
        *_all(sa.LargeBinary, "body"),
        sa.UniqueConstraint("span", "start", "digest", "site", "labels"),
    )
    op.create_index("rollups_by_model", "rollups", ["model", "span", "start"])
    op.create_table(
        "labels",
        _id(),
        *_all(sa.Text, "device", "row", "model", "version", "predicted", "label"),
        sa.Column("confidence", sa.Float),
        *_all(sa.Float, "taken_at", "received_at"),
        *_all(sa.Integer, "audit"),
        *_all(sa.Text, "source"),
        *_all(sa.Float, "certainty"),
        sa.UniqueConstraint("device", "row"),
    )
    op.create_index("labels_by_model", "labels", ["model", "taken_at"])
