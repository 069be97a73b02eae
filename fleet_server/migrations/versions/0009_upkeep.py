"""Webhooks, and answers to requests that may be repeated."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"

Whole = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
Kind = type[sa.types.TypeEngine[Any]] | sa.types.TypeEngine[Any]


def _all(kind: Kind, *names: str) -> list[sa.Column[Any]]:
    return [sa.Column(name, kind, nullable=False) for name in names]


def upgrade() -> None:
    op.create_table(
        "hooks",
        sa.Column("id", sa.Text, primary_key=True),
        *_all(sa.Text, "url", "secret", "events"),
        *_all(sa.Integer, "private"),
        *_all(sa.Float, "created_at"),
        *_all(Whole, "position", "delivered", "failures"),
        *_all(sa.Float, "next_try"),
        *_all(sa.Text, "last_error"),
    )
    op.create_table(
        "repeated",
        sa.Column("key", sa.Text, primary_key=True),
        *_all(sa.Text, "question"),
        *_all(sa.Integer, "status"),
        *_all(sa.LargeBinary, "body"),
        *_all(sa.Float, "at"),
    )
