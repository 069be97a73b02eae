"""What travels over the operator API besides the views; light, since the command line loads it."""

from typing import Annotated, Any, Generic, TypeVar

import msgspec
from msgspec import Meta

from edge_sdk.messages import Policy
from fleet_server.views import AlertRow, RolloutRow

T = TypeVar("T")


class NewRollout(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Bring a version to the fleet.

    Attributes:
        strategy: {"name": ...} of a shipped one, with changes to its fields, or a whole document.
        start_at: Unix seconds; 0 is now.
        supersede: end a rollout of the same model that is under way, and take its devices over.
    """

    model: str
    version: str
    strategy: dict[str, Any]
    start_at: float = 0.0
    supersede: bool = False


class RolloutOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Why a person pauses, resumes, approves, retries, aborts or rolls back."""

    reason: str = ""


class AliasWish(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which version an alias shall mean; an empty one takes it away."""

    version: str
    reason: str = ""


class Created(msgspec.Struct, frozen=True):
    """What was made."""

    id: str


class DecisionRow(msgspec.Struct, frozen=True):
    """One decision and its evidence, as the controller wrote it down."""

    at: float
    decision: msgspec.Raw
    id: int = 0


class RolloutStory(msgspec.Struct, frozen=True):
    """A rollout and its decisions, newest first."""

    rollout: RolloutRow
    decisions: tuple[DecisionRow, ...]


class NewEnrolmentKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """By one key, `uses` devices may join within `hours`; with `device` that one, with any key."""

    uses: int = 1
    hours: float = 24.0
    note: str = ""
    device: str = ""


class AskSamples(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which rows are wanted of the devices that run a model.

    Attributes:
        policy, version, raw, classes, between: as in `messages.SampleRequest`.
        quota: samples of each device.
        site, devices: only there, only these; empty for all.
    """

    policy: Policy
    quota: int = 20
    days: float = 7.0
    site: str = ""
    devices: tuple[str, ...] = ()
    version: str = ""
    raw: bool = True
    classes: tuple[str, ...] = ()
    between: dict[str, tuple[float, float]] = {}


class Asked(msgspec.Struct, frozen=True):
    """How many devices were asked."""

    devices: int


class Measure(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How many answers of its model a device shall time, apart from its work."""

    runs: Annotated[int, Meta(ge=1, le=10_000)] = 200


class Measured(msgspec.Struct, frozen=True):
    """What a device found, in its words; they are empty as long as it has not answered.

    Attributes:
        command: the number of the command that asked it.
    """

    device: str
    command: int
    words: str = ""


class Erased(msgspec.Struct, frozen=True):
    """Rows that were erased, by kind."""

    rows: dict[str, int]


class LabelsTaken(msgspec.Struct, frozen=True):
    """How many rows were labelled for the first time, and how many anew."""

    new: int
    replaced: int


class Mute(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """For how long nothing is said of an alert."""

    hours: float


class EnrolmentToken(msgspec.Struct, frozen=True):
    """The token's text; the server can't show it again."""

    token: str
    expires: float


class Problem(msgspec.Struct, frozen=True):
    """RFC 9457: `detail` is the sentence for people."""

    title: str
    status: int
    detail: str
    type: str = "about:blank"


class Me(msgspec.Struct, frozen=True):
    """Who asks, and their scopes."""

    name: str
    scopes: tuple[str, ...]


class NewUser(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A user to add; without a password they can log in elsewhere only (OIDC)."""

    name: str
    role: str = "viewer"
    password: str = ""


class NewPassword(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Another password."""

    password: str


class NewRole(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Another role."""

    role: str


class UserRow(msgspec.Struct, frozen=True, kw_only=True):
    """A user, without secrets."""

    name: str
    role: str
    created_at: float
    disabled: bool


class NewToken(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A token for a program: some of one's own scopes (None: all of them), for so many hours."""

    name: str
    scopes: tuple[str, ...] | None = None
    hours: float = 24.0 * 30


class TokenText(msgspec.Struct, frozen=True):
    """The token; the server can't show it again."""

    token: str


class TokenRow(msgspec.Struct, frozen=True, kw_only=True):
    """A token, without its text."""

    id: str
    name: str
    user: str
    scopes: tuple[str, ...]
    created_at: float
    expires_at: float


class AuditRow(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of the audit log, as `audit.AuditEntry` says."""

    id: int
    at: float
    actor: str
    action: str
    target: str
    detail: str
    previous: str
    digest: str


class Page(msgspec.Struct, Generic[T], frozen=True):
    """Some rows of a list; ask again with `after=next` for those that follow."""

    items: tuple[T, ...]
    next: str | None = None


class AuditPage(msgspec.Struct, frozen=True):
    """Entries, newest first; ask again with `before=next` for older ones."""

    items: tuple[AuditRow, ...]
    next: int | None = None


class HistoryRow(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the fleet's history; also what webhooks are told.

    Attributes:
        alert: for a webhook, as it is now, if the line is about one.
    """

    id: int
    at: float
    source: str
    name: str
    detail: str
    device: str | None
    alert: AlertRow | None = None


class NewHook(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A webhook; `events` are words with which the names of its events begin, none for all.

    With `private` it may go to an address that is not public.
    """

    url: str
    events: tuple[str, ...] = ()
    private: bool = False


class HookSecret(msgspec.Struct, frozen=True):
    """What signs the deliveries; the server can't show it again."""

    id: str
    secret: str


class DeliveryRow(msgspec.Struct, frozen=True, kw_only=True):
    """One try to tell a webhook of an event, as `records.Delivery` says."""

    id: int
    event: int
    name: str
    at: float
    status: int
    error: str
    seconds: float


class HookRow(msgspec.Struct, frozen=True, kw_only=True):
    """A webhook, without its secret."""

    id: str
    url: str
    events: str
    private: bool
    created_at: float
    delivered: int
    failures: int
    next_try: float
    last_error: str
