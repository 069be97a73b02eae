"""Roles beside serving, whose devices are whose, where each stands, what ran when, and aliases."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _all(
    kind: type[sa.types.TypeEngine[Any]] | sa.types.TypeEngine[Any], *names: str
) -> list[sa.Column[Any]]:
    return [sa.Column(name, kind, nullable=False) for name in names]


def _id() -> sa.Column[Any]:
    return sa.Column("id", WHOLE, primary_key=True)


def upgrade() -> None:
    op.add_column("devices", sa.Column("beside_digest", sa.Text, nullable=False, server_default=""))
    for table in ("assignments", "orders"):
        op.add_column(table, sa.Column("role", sa.Text, nullable=False, server_default="serve"))
    empty = sa.text("''::bytea" if op.get_bind().dialect.name == "postgresql" else "x''")
    op.add_column(
        "windows", sa.Column("measures", sa.LargeBinary, nullable=False, server_default=empty)
    )
    _rollouts()
    _history()


def _rollouts() -> None:
    op.create_table(
        "members",
        *_all(sa.Text, "rollout"),
        *_all(WHOLE, "place"),
        *_all(sa.Text, "device", "stratum", "previous"),
        *_all(WHOLE, "possible"),
        *_all(sa.Text, "profile"),
        sa.PrimaryKeyConstraint("rollout", "place"),
    )
    op.create_table(
        "claims",
        *_all(sa.Text, "device", "slot", "rollout"),
        sa.PrimaryKeyConstraint("device", "slot"),
    )
    op.create_index("claims_by_rollout", "claims", ["rollout"])
    op.create_table(
        "standings",
        *_all(sa.Text, "rollout", "device", "standing", "reason"),
        *_all(WHOLE, "generation"),
        *_all(sa.Float, "at"),
        sa.PrimaryKeyConstraint("rollout", "device"),
    )
    op.create_table(
        "transitions",
        _id(),
        *_all(sa.Text, "rollout", "device", "standing", "reason"),
        *_all(WHOLE, "generation"),
        *_all(sa.Float, "at"),
    )
    op.create_index("transitions_by_time", "transitions", ["at"])
    op.create_index("transitions_by_rollout", "transitions", ["rollout", "device"])
    op.create_table(
        "leases",
        sa.Column("name", sa.Text, primary_key=True),
        *_all(sa.Text, "holder"),
        *_all(sa.Float, "until"),
    )


def _history() -> None:
    op.create_table(
        "runs",
        _id(),
        *_all(sa.Text, "device", "slot", "model", "version", "digest", "beside"),
        *_all(sa.Float, "at"),
    )
    op.create_index("runs_by_device", "runs", ["device", "slot", "at"])
    op.create_table(
        "aliases",
        _id(),
        *_all(sa.Text, "model", "alias", "version", "by", "reason"),
        *_all(sa.Float, "at"),
    )
    op.create_index("aliases_by_model", "aliases", ["model", "alias"])
