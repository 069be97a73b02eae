"""Rows of the server's database as plain values: what `Store` takes and gives."""

import msgspec

from edge_sdk.bundle import Manifest
from edge_sdk.messages import Phase, Window
from edge_sdk.messages import Role as OrderRole
from edge_sdk.sketch import Baseline
from fleet_server.access import Role, Scope
from fleet_server.rollups import Slice, Sums
from fleet_server.views import AlertState


class EnrolmentKey(msgspec.Struct, frozen=True, kw_only=True):
    """An enrolment token as the server keeps it; `key_hash` is `Token.key`, never the secret.

    With a `device` it lets that one in alone, also with a new key.
    """

    id: str
    key_hash: bytes
    created: float
    expires: float
    uses_left: int
    note: str
    device: str = ""


class DeviceRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One enrolled device and the last report of it that was applied.

    Attributes:
        public: its X25519 key (hex).
        last_seen: server's clock at its last message or connection; None if never.
        boot, boot_order, report_seq: of the last report applied; empty and 0 before the first.
            `boot_order` counts boots in the order in which the server first heard of them.
        running_model, running_version, running_digest: what it says it runs; empty if nothing.
        beside_digest: of what it says is loaded on standby or as a shadow; empty if nothing.
        phase, reason, generation: how far it got with its last order.
        rows: inferences answered, over all its windows.
        revoked_at: when it was shut out; None while it is welcome.
        tls_key: SHA-256 (hex) of the key its certificate is for; empty if it never had one.
        period: seconds of its last window, so often it reports; 0 before the first.
        link_boot, link_number: its newest MQTT connection, as it told; empty and 0 before.
        left_at: when that connection's last will came; None since it was heard of again.
    """

    id: str
    public: str
    profile: str
    labels: dict[str, str]
    enrolled_at: float
    last_seen: float | None = None
    boot: str = ""
    boot_order: int = 0
    report_seq: int = 0
    running_model: str = ""
    running_version: str = ""
    running_digest: str = ""
    phase: Phase = "empty"
    reason: str = ""
    generation: int = 0
    runtime: str = ""
    agent: str = ""
    resumed_at: int = 0
    rows: int = 0
    revoked_at: float | None = None
    tls_key: str = ""
    beside_digest: str = ""
    link_boot: str = ""
    link_number: int = 0
    left_at: float | None = None
    period: float = 0.0


class BundleRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One published bundle; bundles never change, so its documents come decoded."""

    digest: str
    model: str
    version: str
    profile: str
    length: int
    manifest: Manifest
    baseline: Baseline
    edges_id: str
    signed_by: str
    published_at: float


class AssignmentRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The current order of one device and slot; `envelope` is what goes over the wire."""

    device: str
    slot: str
    generation: int
    model: str
    version: str
    profile: str
    digest: str
    length: int
    rollout: str
    envelope: bytes
    issued_at: float
    role: OrderRole = "serve"


class WindowRecord(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The numbers of one telemetry window; the sketches stay in its body.

    `measures` is what `evidence.measures` took out of that body.
    """

    id: int
    device: str
    boot: str
    seq: int
    received_at: float
    version: str
    digest: str
    seconds: float
    rows: int
    errors: int
    skew: int
    confidence_mean: float | None
    confidence_rows: int
    latency_mean: float | None
    measures: bytes = b""


class RollupRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What one slice did during the hour or day that begins at `start`."""

    id: int
    start: float
    model: str
    version: str
    profile: str
    slice: Slice
    sums: Sums


class NewWindow(msgspec.Struct, frozen=True, kw_only=True):
    """A telemetry window on its way into the database; `body` is the encoded `messages.Window`."""

    device: str
    boot: str
    seq: int
    received_at: float
    wall: float
    model: str
    version: str
    digest: str
    edges_id: str
    seconds: float
    rows: int
    errors: int
    skew: int
    confidence_mean: float | None
    confidence_rows: int
    latency_mean: float | None
    body: bytes
    measures: bytes = b""


class SampleRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A row that a device sent to be labelled; `body` is the encoded `messages.Sample`.

    Attributes:
        row, subject: pseudonyms made on the device: of the row, and of whom it is about.
        predicted, confidence: the model's answer.
    """

    device: str
    row: str
    subject: str
    model: str
    version: str
    digest: str
    policy: str
    score: float
    predicted: str
    confidence: float
    body: bytes
    received_at: float


class StoredWindow(msgspec.Struct, frozen=True):
    """A stored window with its content; `at` is when it was taken, by whom we believe."""

    id: int
    device: str
    at: float
    window: Window


class NewEvent(msgspec.Struct, frozen=True, kw_only=True):
    """A device's own event on its way into the history."""

    at: float
    device: str
    boot: str
    seq: int
    name: str
    detail: str


class Poison(msgspec.Struct, frozen=True, kw_only=True):
    """A message that was set aside instead of applied, and why."""

    at: float
    device: str
    kind: str
    reason: str
    payload: bytes


class RolloutRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One rollout; the document is the controller's own."""

    id: str
    model: str
    version: str
    status: str
    document: bytes
    created_at: float
    updated_at: float


class MemberRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A device of a rollout by its `place` in the order in which it is reached, from 0.

    `standing` and what belongs to it are None before the device is reached.
    """

    place: int
    device: str
    stratum: str
    previous: str
    possible: bool
    profile: str
    standing: str | None
    reason: str | None
    at: float | None


class StandingRecord(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Where a device came to stand in a rollout, and when; `generation` is of its order there."""

    rollout: str
    device: str
    standing: str
    reason: str
    generation: int
    at: float


class Seat(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What the controller needs to know of one device, without its labels and its envelope.

    Attributes:
        generation, phase, reason: of the order that its last report was about.
        order_*, ordered_at, role: its newest order; empty and None if it never had one.
    """

    device: str
    profile: str
    last_seen: float | None
    revoked: bool
    running_model: str
    running_version: str
    running_digest: str
    beside_digest: str
    phase: Phase
    reason: str
    generation: int
    order_generation: int = 0
    order_model: str = ""
    order_version: str = ""
    order_digest: str = ""
    order_rollout: str = ""
    ordered_at: float | None = None
    role: OrderRole = "serve"


class DecisionRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One decision about a rollout, with its evidence."""

    id: int
    rollout: str
    at: float
    document: bytes


class AlertRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One cause that needs a person's eye; the document is a `views.AlertRow` as JSON."""

    id: str
    state: AlertState
    scope: str
    kind: str
    document: bytes
    opened_at: float
    updated_at: float
    closed_at: float | None = None


class EventRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A line of the fleet's history; `device` is None for what the server itself did."""

    id: int
    at: float
    source: str
    name: str
    detail: str
    device: str | None = None


class UserRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A person; `password` is an argon2 hash, empty for one who logs in elsewhere (OIDC).

    `subject` is who that is there: issuer and `sub`, empty before the first time.
    """

    name: str
    role: Role
    password: str
    created_at: float
    disabled_at: float | None = None
    subject: str = ""


class SessionRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A browser that is logged in; `digest` is SHA-256 of what its cookie holds."""

    digest: str
    user: str
    created_at: float
    expires_at: float


class TokenRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A program's right to ask in a user's name; never more than the user's own."""

    id: str
    name: str
    digest: str
    user: str
    scopes: frozenset[Scope]
    created_at: float
    expires_at: float


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """One try to tell a webhook of an event.

    Attributes:
        status: what the receiver answered; 0 if it answered nothing.
        error: why it was not taken; empty if it was.
        seconds: how long it took.
    """

    hook: str
    event: int
    name: str
    at: float
    status: int
    error: str
    seconds: float


class Hook(msgspec.Struct, frozen=True, kw_only=True):
    """A webhook.

    Attributes:
        secret: what deliveries are signed with; the receiver has it too.
        events: words with which the names of its events begin, by spaces; empty for all.
        private: whether it may go to an address that is not public.
        position: id of the last event that is done with.
        failures: tries in a row that failed; the next is at `next_try`.
    """

    id: str
    url: str
    secret: str
    events: str
    private: bool
    created_at: float
    position: int = 0
    delivered: int = 0
    failures: int = 0
    next_try: float = 0.0
    last_error: str = ""


class Repeated(msgspec.Struct, frozen=True, kw_only=True):
    """What a request with an Idempotency-Key was answered; `question` is its digest."""

    key: str
    question: str
    status: int
    body: bytes
    at: float
