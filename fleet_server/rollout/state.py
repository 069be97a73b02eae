"""What a rollout is: its state, what it sees of the fleet, and what it decided. Values only."""

from typing import Literal

import msgspec

from edge_sdk.messages import Phase as DevicePhase
from edge_sdk.messages import Role
from fleet_server.evidence.gates import Judgement
from fleet_server.rollout.cohort import reached_by
from fleet_server.rollout.grammar import Phase, Strategy

Status = Literal[
    "scheduled",  # begins by itself at its time
    "to approve",  # waits for a second person before its next phase
    "running",
    "paused",  # by a person
    "held",  # by itself, with a reason: it goes on by itself once that is gone
    "promoted",
    "reopened",  # was promoted, then the watch found something: a person decides
    "rolled back",
    "aborted",  # nobody else gets it; who confirmed it keeps it
    "superseded",  # another rollout took over
]
Action = Literal[
    "start", "ask", "approve", "widen", "hold", "pause", "resume", "promote", "reopen",
    "roll back", "abort", "supersede", "retry",
]  # fmt: skip
Command = Literal["pause", "resume", "approve", "abort", "roll back", "supersede", "retry"]
Standing = Literal[
    "waiting",  # its order is not given yet
    "ordered",  # given, and nothing heard of it yet
    "updating",  # it fetches, tests or tries
    "deferred",  # it took the order and waits for its window, a cheaper link or room
    "confirmed",  # by the digest that its interpreter reports
    "reverted",  # tried it and went back
    "refused",  # did not take it
    "failed",  # could not fetch it
    "lost",  # was heard with its order, and is silent since
    "offline",  # silent since before its order, but still waited for
    "unreached",  # silent for too long to be waited for
    "quarantined",  # failed too often of late; left alone
    "no bundle",  # none is published for its hardware profile
    "gone",  # revoked or removed
    "superseded",  # another rollout's order came after
]
LIVE: tuple[Status, ...] = ("scheduled", "to approve", "running", "paused", "held")
OPEN: tuple[Status, ...] = (*LIVE, "reopened")
UNDONE: tuple[Status, ...] = ("rolled back", "aborted", "superseded")
NOT_REACHED, NO_BUNDLE = "not reached yet", "no bundle"  # of a member that stands nowhere yet
BAD: tuple[Standing, ...] = ("reverted", "refused", "failed", "lost")
UNDER_WAY: tuple[Standing, ...] = ("ordered", "updating", "deferred")
AWAITED: tuple[Standing, ...] = ("waiting", "offline", *UNDER_WAY)


class Member(msgspec.Struct, frozen=True, gc=False):
    """A device of a rollout, fixed before its start.

    Attributes:
        stratum: the site it is compared in.
        previous: the version to go back to; "" if nothing ran.
        possible: whether a bundle for its profile is published.
    """

    device: str
    stratum: str
    previous: str
    possible: bool = True
    profile: str = ""


class Device(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What the fleet knows of one member.

    Attributes:
        running: the version its interpreter reports to run, once it is confirmed.
        beside: the version it reports to be loaded beside, and as what.
        phase, reason: how far it got with this rollout's order; "empty" if that is not told yet.
        ordered_at, ordered, role: this rollout's order, if it is the device's newest.
        generation: of that order.
        superseded: its newest order is another rollout's, later than this one's.
        failures: orders that ended badly on it within the quarantine's time.
        gone: it was revoked.
    """

    id: str
    running: str = ""
    beside: str = ""
    beside_as: Role = "standby"
    phase: DevicePhase = "empty"
    reason: str = ""
    ordered_at: float | None = None
    ordered: str = ""
    role: Role = "serve"
    generation: int = 0
    superseded: bool = False
    last_seen: float | None = None
    failures: int = 0
    gone: bool = False


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """All that a decision may depend on, so that it can be made again from the log.

    Attributes:
        standings: devices that the phase reaches, by where they stand.
        reasons: why devices failed, the most frequent first, with how many.
        judged: the gates' verdicts.
        past: (ready, heard): devices with enough windows before, of those that are heard.
        evidence: (heard, comparable): confirmed devices with enough windows since, of those that
            can be compared.
    """

    at: float
    standings: dict[Standing, int] = {}
    reasons: tuple[tuple[str, int], ...] = ()
    judged: tuple[Judgement, ...] = ()
    past: tuple[int, int] = (0, 0)
    evidence: tuple[int, int] = (0, 0)

    def count(self, *wanted: Standing) -> int:
        return sum(self.standings.get(one, 0) for one in wanted)


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What a person asks of a rollout; `devices` (with their generations) are those to retry."""

    command: Command
    by: str
    at: float
    reason: str = ""
    devices: dict[str, int] = {}


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """What was decided when, why, and on what evidence; never changed afterwards.

    Attributes:
        look, order: what it followed from: one of them.
    """

    at: float
    action: Action
    phase: str
    reason: str
    evidence: tuple[Judgement, ...] = ()
    look: Look | None = None
    order: Order | None = None
    format: int = 1


class Rollout(msgspec.Struct, frozen=True, kw_only=True):
    """A rollout's whole state.

    Attributes:
        members: in the order in which they are reached; they never change, so the database keeps
            them apart from the rest.
        start_at: when a scheduled one begins.
        entered_at: when the present phase began.
        reached_at: when enough devices had the version in this phase; None before.
        past_since: from here on lies each device's own past.
        window_seconds: how often its devices send; looking more often shows nothing new.
        bundle_bytes: length of the largest bundle of the version.
        treated_since: when the first device was to get the new version; None while nobody is.
        approved: phases that a second person agreed to, with who.
        retried: devices whose order of this generation, or one before, shall be given once more.
        judged: the gates as last looked at.
        resumes: the status to go back to after a pause.
        paused_at, paused_seconds: since when it is paused, and how long it was in this phase.
        watched: the watch after the promotion is over by a person's word.
    """

    id: str
    model: str
    version: str
    strategy: Strategy
    members: tuple[Member, ...] = ()
    status: Status = "running"
    phase: int = 0
    reason: str = ""
    by: str = ""
    started_at: float
    start_at: float = 0.0
    entered_at: float
    reached_at: float | None = None
    past_since: float
    window_seconds: float = 60.0
    bundle_bytes: int = 0
    treated_since: float | None = None
    ended_at: float | None = None
    approved: dict[str, str] = {}
    retried: dict[str, int] = {}
    judged: tuple[Judgement, ...] = ()
    resumes: Status = "running"
    paused_at: float = 0.0
    paused_seconds: float = 0.0
    watched: bool = False
    format: int = 1

    @property
    def current(self) -> Phase:
        return self.strategy.phases[self.phase]

    @property
    def able(self) -> tuple[Member, ...]:
        """The devices that can take the version at all."""
        if all(m.possible for m in self.members):  # nearly always, and asked for often
            return self.members
        return tuple(m for m in self.members if m.possible)

    @property
    def treated(self) -> tuple[Member, ...]:
        """The devices that shall have the new version now, in the phase's role."""
        if self.status in UNDONE or self.treated_since is None:
            return ()
        able = self.able
        return able[: reached_by(self.current, len(able))]

    @property
    def unreached_after(self) -> float:
        """Seconds of silence after which nobody waits; a device is silent between its windows."""
        return max(self.strategy.unreached_after_seconds, 3 * self.window_seconds)

    @property
    def lost_after(self) -> float:
        return max(self.strategy.lost_after_seconds, 5 * self.window_seconds)

    @property
    def watching_until(self) -> float | None:
        """Until when a promotion may be called in question; None if it is not promoted."""
        if self.status != "promoted" or self.ended_at is None or self.watched:
            return None
        return self.ended_at + self.strategy.watch_seconds
