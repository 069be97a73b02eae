"""What a page or a command shows of the fleet: plain values, ready to print, no decisions.

`fleet.overview` fills these; templates, the API and the CLI only read them.
"""

from typing import Any, Literal

import msgspec

AlertState = Literal["open", "acknowledged", "muted", "re-baselined", "closed"]
OVER: tuple[AlertState, ...] = ("closed", "re-baselined")
Health = Literal["live", "late", "offline", "new", "revoked"]


class DeviceRow(msgspec.Struct, frozen=True, kw_only=True):
    """One device: what it should run, what it says it runs, and how it is.

    Attributes:
        wanted, running: versions, empty where there is none.
        phase, reason: of its last order, as the device reported it.
        confidence: mean over its recent windows; None without any.
        drifting: channels whose input moved, as the last look found them.
        resumed_at: byte at which its last download went on after an interruption; 0 if it did not.
    """

    id: str
    profile: str
    site: str
    health: Health
    seen_seconds_ago: float | None
    model: str
    wanted: str
    running: str
    phase: str
    reason: str
    runtime: str
    rows: int
    confidence: float | None
    drifting: tuple[str, ...] = ()
    resumed_at: int = 0


class VersionRow(msgspec.Struct, frozen=True, kw_only=True):
    """One bundle in the registry, and how many devices really run it."""

    model: str
    version: str
    profile: str
    digest: str
    length: int
    recipe: str
    accuracy: float
    drop: float
    signed_by: str
    published_at: float
    devices: int


class GateRow(msgspec.Struct, frozen=True, kw_only=True):
    """One gate as last judged: `difference` is treated minus control, each against its own past.

    `scope` names the hardware profile that it is about; `against` is control, past or primary.
    """

    metric: str
    scope: str = ""
    against: str = "control"
    treated: float | None
    control: float | None
    difference: float | None
    low: float | None
    high: float | None
    limit: float
    verdict: Literal["pass", "fail", "inconclusive", "no data"]
    words: str


class PhaseRow(msgspec.Struct, frozen=True):
    """A phase of a rollout: its name, the devices it reaches, and where it stands."""

    name: str
    devices: int
    state: Literal["done", "now", "next", "stopped", "skipped"]
    role: str = "serve"


class RolloutRow(msgspec.Struct, frozen=True, kw_only=True):
    """One rollout with the evidence of its last decision.

    Attributes:
        confirmed: devices that report to run the version now.
        standings: devices that were reached, by where they stand.
    """

    id: str
    model: str
    version: str
    strategy: str
    status: str
    reason: str
    started_at: float
    ended_at: float | None
    phases: tuple[PhaseRow, ...]
    gates: tuple[GateRow, ...]
    confirmed: int
    failed: int
    total: int
    by: str = ""
    standings: dict[str, int] = {}


class RolloutDevice(msgspec.Struct, frozen=True, kw_only=True):
    """One device of a rollout: the phase that first reaches it, where it stands, and why."""

    device: str
    site: str
    profile: str
    phase: str
    previous: str
    standing: str
    reason: str
    since: float | None


class PlannedDevice(msgspec.Struct, frozen=True):
    """A device and the first phase that reaches it; `why_not` if none ever does."""

    device: str
    site: str
    profile: str
    runs: str
    phase: str
    why_not: str = ""


class Detectable(msgspec.Struct, frozen=True, kw_only=True):
    """The smallest harm that a phase's gate finds 4 times of 5, with the devices there are.

    Attributes:
        smallest: in the metric's own unit; of a ratio the ratio, of crashes the share of
            the devices; None if it can't be told.
    """

    metric: str
    phase: str
    limit: float
    smallest: float | None
    words: str


class RolloutPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What a rollout would do.

    Attributes:
        phases: name, role and number of devices of each, cumulative.
        bytes: of all bundles that would be fetched, as whole bundles.
        seconds: how long it takes at least, by its windows, soaks and limits.
    """

    model: str
    version: str
    strategy: str
    phases: tuple[tuple[str, str, int], ...]
    devices: tuple[PlannedDevice, ...]
    bytes: int
    seconds: float
    detectable: tuple[Detectable, ...]


class AliasRow(msgspec.Struct, frozen=True, kw_only=True):
    """From `at` on an alias of a model meant this version; "" is none any more."""

    model: str
    alias: str
    version: str
    by: str
    reason: str
    at: float


class RunRow(msgspec.Struct, frozen=True, kw_only=True):
    """From `at` on a device ran this, and had `beside` loaded; an empty digest is nothing."""

    device: str
    slot: str
    model: str
    version: str
    digest: str
    beside: str
    at: float


class Artefact(msgspec.Struct, frozen=True, kw_only=True):
    """A version's bundle for one hardware profile; `lineage` is what its manifest says."""

    profile: str
    digest: str
    length: int
    recipe: str
    accuracy: float
    drop: float
    published_at: float
    lineage: dict[str, Any]


class VersionStory(msgspec.Struct, frozen=True, kw_only=True):
    """One version, as it is known here.

    Attributes:
        aliases: what it is called now.
        history: every change of an alias that gave it to this version or took it away.
        running: devices that report to run one of its bundles.
    """

    model: str
    version: str
    aliases: tuple[str, ...]
    history: tuple[AliasRow, ...]
    artefacts: tuple[Artefact, ...]
    running: int


class AlertRow(msgspec.Struct, frozen=True, kw_only=True):
    """One cause, told once.

    Attributes:
        devices, of: how many devices show it, of how many in its scope.
        cause, action: what kind of thing is to blame, and what to do about it.
        loss: estimated loss of accuracy on these devices, 0..1; None if it can't be told.
        since: when the first of them began to move, Unix seconds.
        versions: what runs on them.
        channels: what moved, most first.
        muted_until: Unix seconds, while it is muted.
    """

    id: str
    state: AlertState
    severity: Literal["info", "warning", "critical"]
    kind: str
    scope: str
    title: str
    detail: str
    opened_at: float
    devices: int
    of: int = 0
    cause: str = ""
    action: str = ""
    loss: float | None = None
    since: float | None = None
    versions: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()
    device_ids: tuple[str, ...] = ()
    muted_until: float | None = None


class EventRow(msgspec.Struct, frozen=True, kw_only=True):
    """A line of the fleet's history."""

    at: float
    source: str
    name: str
    detail: str


class Overview(msgspec.Struct, frozen=True, kw_only=True):
    """Everything the first page shows.

    Attributes:
        headline: "is anything wrong?" in one sentence.
        calm: whether nothing needs a person.
        running: devices by (model, version) they report, most first.
        total: devices in the fleet.
        devices: all of them, or of a large fleet those that first need a look.
    """

    at: float
    headline: str
    calm: bool
    health: dict[Health, int]
    running: tuple[tuple[str, str, int], ...]
    total: int
    devices: tuple[DeviceRow, ...]
    versions: tuple[VersionRow, ...]
    rollouts: tuple[RolloutRow, ...]
    alerts: tuple[AlertRow, ...]
    events: tuple[EventRow, ...]


class SampleRow(msgspec.Struct, frozen=True, kw_only=True):
    """One row that waits for a label.

    Attributes:
        policy, score: why it was sent, and how much it is wanted.
        numbers: the row itself if it is no picture, at most 32 of them, with their names.
        picture: whether there is one at `/samples/DEVICE/ROW.png`.
    """

    device: str
    row: str
    model: str
    version: str
    policy: str
    score: float
    predicted: str
    confidence: float
    received_at: float
    picture: bool
    numbers: tuple[tuple[str, float], ...]
