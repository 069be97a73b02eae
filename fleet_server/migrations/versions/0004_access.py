"""Users, sessions, tokens, and the audit log."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

Whole = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _texts(*names: str) -> list[sa.Column[str]]:
    return [sa.Column(name, sa.Text, nullable=False) for name in names]


def _floats(*names: str) -> list[sa.Column[float]]:
    return [sa.Column(name, sa.Float, nullable=False) for name in names]


def upgrade() -> None:
    op.create_table(
        "users",
        sa.Column("name", sa.Text, primary_key=True),
        *_texts("role", "password"),
        *_floats("created_at"),
        sa.Column("disabled_at", sa.Float),
    )
    op.create_table(
        "sessions",
        sa.Column("digest", sa.Text, primary_key=True),
        *_texts("user"),
        *_floats("created_at", "expires_at"),
    )
    op.create_table(
        "tokens",
        sa.Column("id", sa.Text, primary_key=True),
        *_texts("name"),
        sa.Column("digest", sa.Text, nullable=False, unique=True),
        *_texts("user", "scopes"),
        *_floats("created_at", "expires_at"),
    )
    op.create_table(
        "audit",
        sa.Column("id", Whole, primary_key=True, autoincrement=False),
        *_floats("at"),
        *_texts("actor", "action", "target", "detail", "previous", "digest"),
    )
    op.create_index("audit_by_target", "audit", ["target", "id"])
    op.create_index("audit_by_actor", "audit", ["actor", "id"])
