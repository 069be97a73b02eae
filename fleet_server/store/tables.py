"""The tables as the newest migration leaves them; a test compares the two."""

from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.types import TypeEngine

metadata = MetaData()
Whole = BigInteger().with_variant(Integer(), "sqlite")  # 64 bits, which SQLite calls INTEGER


def _all(kind: type[TypeEngine[Any]] | TypeEngine[Any], *names: str) -> list[Column[Any]]:
    return [Column(name, kind, nullable=False) for name in names]


def _id() -> Column[int]:
    return Column("id", Whole, primary_key=True)


def _name() -> Column[str]:
    return Column("id", Text, primary_key=True)


enrolment_keys = Table(
    "enrolment_keys",
    metadata,
    _name(),
    *_all(LargeBinary, "key_hash"),
    *_all(Float, "created", "expires"),
    *_all(Whole, "uses_left"),
    *_all(Text, "note"),
    Column("device", Text, nullable=False, server_default=""),
)

devices = Table(
    "devices",
    metadata,
    _name(),
    *_all(Text, "public", "profile", "labels"),
    *_all(Float, "enrolled_at"),
    Column("last_seen", Float),
    *_all(Text, "boot"),
    *_all(Whole, "boot_order", "report_seq"),
    *_all(Text, "running_model", "running_version", "running_digest", "phase", "reason"),
    *_all(Whole, "generation"),
    *_all(Text, "runtime", "agent"),
    *_all(Whole, "resumed_at", "rows"),
    Column("revoked_at", Float),
    Column("tls_key", Text, nullable=False, server_default=""),
    Column("beside_digest", Text, nullable=False, server_default=""),
    Column("link_boot", Text, nullable=False, server_default=""),
    Column("link_number", Whole, nullable=False, server_default="0"),
    Column("left_at", Float),
    Column("period", Float, nullable=False, server_default="0"),
    Index("devices_by_running", "running_digest"),
    Index("devices_by_silence", "last_seen", "period", "left_at", "revoked_at", "id"),
    Index("devices_by_phase", "phase", "id"),
    Index("devices_by_version", "running_model", "running_version", "phase", "id"),
)

bundles = Table(
    "bundles",
    metadata,
    Column("digest", Text, primary_key=True),
    *_all(Text, "model", "version", "profile"),
    *_all(Whole, "length"),
    *_all(Text, "manifest", "baseline", "signed_by"),
    *_all(Float, "published_at"),
    UniqueConstraint("model", "version", "profile"),
)

assignments = Table(
    "assignments",
    metadata,
    *_all(Text, "device", "slot"),
    *_all(Whole, "generation"),
    *_all(Text, "model", "version", "profile", "digest"),
    *_all(Whole, "length"),
    *_all(Text, "rollout"),
    *_all(LargeBinary, "envelope"),
    *_all(Float, "issued_at"),
    Column("role", Text, nullable=False, server_default="serve"),
    PrimaryKeyConstraint("device", "slot"),
)

orders = Table(
    "orders",
    metadata,
    _id(),
    *_all(Text, "device", "slot"),
    *_all(Whole, "generation"),
    *_all(Text, "model", "version", "profile", "digest"),
    *_all(Whole, "length"),
    *_all(Text, "rollout"),
    *_all(LargeBinary, "envelope"),
    *_all(Float, "issued_at"),
    Column("role", Text, nullable=False, server_default="serve"),
    UniqueConstraint("device", "slot", "generation"),
)

streams = Table(
    "streams",
    metadata,
    _id(),
    *_all(Text, "device", "boot"),
    *_all(Whole, "contiguous"),
    *_all(LargeBinary, "ahead"),
    UniqueConstraint("device", "boot"),
)

windows = Table(
    "windows",
    metadata,
    _id(),
    *_all(Text, "device", "boot"),
    *_all(Whole, "seq"),
    *_all(Float, "received_at", "wall"),
    *_all(Text, "model", "version", "digest", "edges_id"),
    *_all(Float, "seconds"),
    *_all(Whole, "rows", "errors", "skew"),
    Column("confidence_mean", Float),
    *_all(Whole, "confidence_rows"),
    Column("latency_mean", Float),
    *_all(LargeBinary, "body"),
    Column("measures", LargeBinary, nullable=False, server_default=text("x''")),
    UniqueConstraint("device", "boot", "seq"),
    Index("windows_by_model", "model", "received_at"),
    Index("windows_by_device", "device", "received_at"),
)

events = Table(
    "events",
    metadata,
    _id(),
    *_all(Float, "at"),
    *_all(Text, "source", "name", "detail"),
    Column("device", Text),
    Column("boot", Text),
    Column("seq", Whole),
    UniqueConstraint("device", "boot", "seq"),
    Index("events_by_device", "device", "id"),
)

poison = Table(
    "poison",
    metadata,
    _id(),
    *_all(Float, "at"),
    *_all(Text, "device", "kind", "reason"),
    *_all(LargeBinary, "payload"),
)

rollouts = Table(
    "rollouts",
    metadata,
    _name(),
    *_all(Text, "model", "version", "status"),
    *_all(LargeBinary, "document"),
    *_all(Float, "created_at", "updated_at"),
)

decisions = Table(
    "decisions",
    metadata,
    _id(),
    *_all(Text, "rollout"),
    *_all(Float, "at"),
    *_all(LargeBinary, "document"),
    Index("decisions_by_rollout", "rollout"),
)

alerts = Table(
    "alerts",
    metadata,
    _name(),
    *_all(Text, "state", "scope", "kind"),
    *_all(LargeBinary, "document"),
    *_all(Float, "opened_at", "updated_at"),
    Column("closed_at", Float),
    Index("alerts_by_end", "closed_at", "id"),
    Index("alerts_by_kind", "kind", "closed_at", "id"),
    Index("alerts_by_state", "state", "closed_at", "id"),
)

rollups = Table(
    "rollups",
    metadata,
    _id(),
    *_all(Text, "span"),
    *_all(Float, "start"),
    *_all(Text, "digest", "site", "labels", "model", "version", "profile"),
    *_all(LargeBinary, "body"),
    UniqueConstraint("span", "start", "digest", "site", "labels"),
    Index("rollups_by_model", "model", "span", "start"),
)

pasts = Table(
    "pasts",
    metadata,
    *_all(Text, "model", "device"),
    *_all(LargeBinary, "body"),
    *_all(Float, "updated_at"),
    PrimaryKeyConstraint("model", "device"),
)

labels = Table(
    "labels",
    metadata,
    _id(),
    *_all(Text, "device", "row", "model", "version", "predicted", "label"),
    Column("confidence", Float),
    *_all(Float, "taken_at", "received_at"),
    *_all(Integer, "audit"),
    *_all(Text, "source"),
    *_all(Float, "certainty"),
    UniqueConstraint("device", "row"),
    Index("labels_by_model", "model", "taken_at"),
)

users = Table(
    "users",
    metadata,
    Column("name", Text, primary_key=True),
    *_all(Text, "role", "password"),
    *_all(Float, "created_at"),
    Column("disabled_at", Float),
    Column("subject", Text, nullable=False, server_default=""),
)

sessions = Table(
    "sessions",
    metadata,
    Column("digest", Text, primary_key=True),
    *_all(Text, "user"),
    *_all(Float, "created_at", "expires_at"),
)

tokens = Table(
    "tokens",
    metadata,
    _name(),
    *_all(Text, "name"),
    Column("digest", Text, nullable=False, unique=True),
    *_all(Text, "user", "scopes"),
    *_all(Float, "created_at", "expires_at"),
)

audit = Table(
    "audit",
    metadata,
    Column("id", Whole, primary_key=True, autoincrement=False),
    *_all(Float, "at"),
    *_all(Text, "actor", "action", "target", "detail", "previous", "digest"),
    Index("audit_by_target", "target", "id"),
    Index("audit_by_actor", "actor", "id"),
)

commands = Table(
    "commands",
    metadata,
    Column("device", Text, primary_key=True),
    *_all(Whole, "number"),
    *_all(LargeBinary, "envelope"),
    *_all(Float, "issued_at"),
)

samples = Table(
    "samples",
    metadata,
    _id(),
    *_all(Text, "device", "row", "subject", "model", "version", "digest", "policy", "predicted"),
    *_all(Float, "score", "confidence"),
    *_all(LargeBinary, "body"),
    *_all(Float, "received_at"),
    Column("skipped", Integer, nullable=False, server_default="0"),
    UniqueConstraint("device", "row"),
    Index("samples_by_model", "model", "score"),
)

members = Table(
    "members",
    metadata,
    *_all(Text, "rollout"),
    *_all(Whole, "place"),
    *_all(Text, "device", "stratum", "previous"),
    *_all(Whole, "possible"),
    *_all(Text, "profile"),
    PrimaryKeyConstraint("rollout", "place"),
    Index("members_by_device", "rollout", "device", "possible"),
)

claims = Table(
    "claims",
    metadata,
    *_all(Text, "device", "slot", "rollout"),
    PrimaryKeyConstraint("device", "slot"),
    Index("claims_by_rollout", "rollout"),
)

standings = Table(
    "standings",
    metadata,
    *_all(Text, "rollout", "device", "standing", "reason"),
    *_all(Whole, "generation"),
    *_all(Float, "at"),
    PrimaryKeyConstraint("rollout", "device"),
    Index("standings_by_standing", "rollout", "standing"),
)

transitions = Table(
    "transitions",
    metadata,
    _id(),
    *_all(Text, "rollout", "device", "standing", "reason"),
    *_all(Whole, "generation"),
    *_all(Float, "at"),
    Index("transitions_by_time", "at"),
    Index("transitions_by_rollout", "rollout", "device"),
)

leases = Table(
    "leases",
    metadata,
    Column("name", Text, primary_key=True),
    *_all(Text, "holder"),
    *_all(Float, "until"),
)

runs = Table(
    "runs",
    metadata,
    _id(),
    *_all(Text, "device", "slot", "model", "version", "digest", "beside"),
    *_all(Float, "at"),
    Index("runs_by_device", "device", "slot", "at"),
)

aliases = Table(
    "aliases",
    metadata,
    _id(),
    *_all(Text, "model", "alias", "version", "by", "reason"),
    *_all(Float, "at"),
    Index("aliases_by_model", "model", "alias"),
)

hooks = Table(
    "hooks",
    metadata,
    _name(),
    *_all(Text, "url", "secret", "events"),
    *_all(Integer, "private"),
    *_all(Float, "created_at"),
    *_all(Whole, "position", "delivered", "failures"),
    *_all(Float, "next_try"),
    *_all(Text, "last_error"),
)

deliveries = Table(
    "deliveries",
    metadata,
    _id(),
    *_all(Text, "hook"),
    *_all(Whole, "event"),
    *_all(Text, "name"),
    *_all(Float, "at"),
    *_all(Integer, "status"),
    *_all(Text, "error"),
    *_all(Float, "seconds"),
    Index("deliveries_by_hook", "hook", "id"),
)

repeated = Table(
    "repeated",
    metadata,
    Column("key", Text, primary_key=True),
    *_all(Text, "question"),
    *_all(Integer, "status"),
    *_all(LargeBinary, "body"),
    *_all(Float, "at"),
)
