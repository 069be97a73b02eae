"""Revoked devices, the keys of their certificates, and tokens for one device."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("devices", sa.Column("revoked_at", sa.Float))
    op.add_column("devices", sa.Column("tls_key", sa.Text, nullable=False, server_default=""))
    op.add_column("enrolment_keys", sa.Column("device", sa.Text, nullable=False, server_default=""))
