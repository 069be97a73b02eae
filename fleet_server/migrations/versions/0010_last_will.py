"""A device's newest connection, and when its last will came."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"

Whole = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.add_column("devices", sa.Column("link_boot", sa.Text, nullable=False, server_default=""))
    op.add_column("devices", sa.Column("link_number", Whole, nullable=False, server_default="0"))
    op.add_column("devices", sa.Column("left_at", sa.Float))
