"""What pages count in a large fleet is counted in indexes: who is silent, who runs what."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    op.add_column("devices", sa.Column("period", sa.Float, nullable=False, server_default="0"))
    op.create_index(
        "devices_by_silence", "devices", ["last_seen", "period", "left_at", "revoked_at", "id"]
    )
    op.create_index("devices_by_phase", "devices", ["phase", "id"])
    op.create_index(
        "devices_by_version", "devices", ["running_model", "running_version", "phase", "id"]
    )
    op.create_index("members_by_device", "members", ["rollout", "device", "possible"])
    op.create_index("standings_by_standing", "standings", ["rollout", "standing"])
