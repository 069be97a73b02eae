"""Who a user is at an OpenID provider."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    op.add_column("users", sa.Column("subject", sa.Text, nullable=False, server_default=""))
