"""The first schema."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

Whole = sa.BigInteger().with_variant(sa.Integer(), "sqlite")  # 64 bits, which SQLite calls INTEGER
Kind = type[sa.types.TypeEngine[Any]] | sa.types.TypeEngine[Any]


def _all(kind: Kind, *names: str) -> list[sa.Column[Any]]:
    return [sa.Column(name, kind, nullable=False) for name in names]


def _id() -> sa.Column[int]:
    return sa.Column("id", Whole, primary_key=True)


def _name() -> sa.Column[str]:
    return sa.Column("id", sa.Text, primary_key=True)


def _order() -> list[sa.Column[Any]]:
    return [
        *_all(sa.Text, "device", "slot"),
        *_all(Whole, "generation"),
        *_all(sa.Text, "model", "version", "profile", "digest"),
        *_all(Whole, "length"),
        *_all(sa.Text, "rollout"),
        *_all(sa.LargeBinary, "envelope"),
        *_all(sa.Float, "issued_at"),
    ]


def upgrade() -> None:
    _fleet()
    _registry()
    _telemetry()
    _control()


def _fleet() -> None:
    op.create_table(
        "enrolment_keys",
        _name(),
        *_all(sa.LargeBinary, "key_hash"),
        *_all(sa.Float, "created", "expires"),
        *_all(Whole, "uses_left"),
        *_all(sa.Text, "note"),
    )
    op.create_table(
        "devices",
        _name(),
        *_all(sa.Text, "public", "profile", "labels"),
        *_all(sa.Float, "enrolled_at"),
        sa.Column("last_seen", sa.Float),
        *_all(sa.Text, "boot"),
        *_all(Whole, "boot_order", "report_seq"),
        *_all(sa.Text, "running_model", "running_version", "running_digest", "phase", "reason"),
        *_all(Whole, "generation"),
        *_all(sa.Text, "runtime", "agent"),
        *_all(Whole, "resumed_at", "rows"),
    )


def _registry() -> None:
    op.create_table(
        "bundles",
        sa.Column("digest", sa.Text, primary_key=True),
        *_all(sa.Text, "model", "version", "profile"),
        *_all(Whole, "length"),
        *_all(sa.Text, "manifest", "baseline", "signed_by"),
        *_all(sa.Float, "published_at"),
        sa.UniqueConstraint("model", "version", "profile"),
    )
    op.create_table("assignments", *_order(), sa.PrimaryKeyConstraint("device", "slot"))
    op.create_table("orders", _id(), *_order(), sa.UniqueConstraint("device", "slot", "generation"))


def _telemetry() -> None:
    op.create_table(
        "streams",
        _id(),
        *_all(sa.Text, "device", "boot"),
        *_all(Whole, "contiguous"),
        *_all(sa.LargeBinary, "ahead"),
        sa.UniqueConstraint("device", "boot"),
    )
    op.create_table(
        "windows",
        _id(),
        *_all(sa.Text, "device", "boot"),
        *_all(Whole, "seq"),
        *_all(sa.Float, "received_at", "wall"),
        *_all(sa.Text, "model", "version", "digest", "edges_id"),
        *_all(sa.Float, "seconds"),
        *_all(Whole, "rows", "errors", "skew"),
        sa.Column("confidence_mean", sa.Float),
        *_all(Whole, "confidence_rows"),
        sa.Column("latency_mean", sa.Float),
        *_all(sa.LargeBinary, "body"),
        sa.UniqueConstraint("device", "boot", "seq"),
    )
    op.create_index("windows_by_model", "windows", ["model", "received_at"])
    op.create_index("windows_by_device", "windows", ["device", "received_at"])
    op.create_table(
        "events",
        _id(),
        *_all(sa.Float, "at"),
        *_all(sa.Text, "source", "name", "detail"),
        sa.Column("device", sa.Text),
        sa.Column("boot", sa.Text),
        sa.Column("seq", Whole),
        sa.UniqueConstraint("device", "boot", "seq"),
    )
    op.create_table(
        "poison",
        _id(),
        *_all(sa.Float, "at"),
        *_all(sa.Text, "device", "kind", "reason"),
        *_all(sa.LargeBinary, "payload"),
    )


def _control() -> None:
    op.create_table(
        "rollouts",
        _name(),
        *_all(sa.Text, "model", "version", "status"),
        *_all(sa.LargeBinary, "document"),
        *_all(sa.Float, "created_at", "updated_at"),
    )
    op.create_table(
        "decisions",
        _id(),
        *_all(sa.Text, "rollout"),
        *_all(sa.Float, "at"),
        *_all(sa.LargeBinary, "document"),
    )
    op.create_index("decisions_by_rollout", "decisions", ["rollout"])
    op.create_table(
        "alerts",
        _name(),
        *_all(sa.Text, "state", "scope", "kind"),
        *_all(sa.LargeBinary, "document"),
        *_all(sa.Float, "opened_at", "updated_at"),
        sa.Column("closed_at", sa.Float),
    )
