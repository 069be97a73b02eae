"""A device's own history is read by index."""

from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.create_index("events_by_device", "events", ["device", "id"])
    op.create_index("devices_by_running", "devices", ["running_digest"])
