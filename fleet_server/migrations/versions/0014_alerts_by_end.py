"""What is over of the alerts is read by index, however much it is."""

from alembic import op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    op.create_index("alerts_by_end", "alerts", ["closed_at", "id"])
    op.create_index("alerts_by_kind", "alerts", ["kind", "closed_at", "id"])
    op.create_index("alerts_by_state", "alerts", ["state", "closed_at", "id"])
