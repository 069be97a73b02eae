"""A rollout: phases that widen, gates that judge. Pure: state, fleet and time in, decision out.

One grammar gives every strategy: a phase reaches the first `share` of the devices in a stratified
order fixed before the start, and goes on once enough of them confirmed the new version and no gate
objects. Where gates are asked, a phase that reaches nobody comes first: it waits until the devices
have a past to be compared with. Nothing counts as success but a digest reported by the running
interpreter; a device that is offline or silent is waited for no longer than the strategy says, and
is never counted as success.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from edge_sdk.errors import InvalidInputError
from fleet_server.evidence import Arm, Gate, Judgement, judge

Status = Literal["running", "held", "promoted", "rolled back", "aborted"]
Action = Literal["start", "widen", "hold", "promote", "roll back", "abort"]
Standing = Literal["waiting", "confirmed", "failed", "lost", "unreached", "no bundle"]
LIVE: tuple[Status, ...] = ("running", "held")


class Phase(msgspec.Struct, frozen=True, kw_only=True):
    """One step of a rollout.

    Attributes:
        share: of the devices, 0..1; cumulative. 0 only gathers their past.
        min_windows: windows a device needs after the phase began (for share 0: before it ends).
        min_reach: share of the devices that must have confirmed and, if judged, sent their
            windows; those that failed, are lost or can't be reached do not count.
        max_wait_seconds: after this the rollout is held for a person, with the reason.
        judged: whether the gates are asked (an all-at-once phase has no control to compare with).
    """

    name: str
    share: float
    min_windows: int = 5
    min_reach: float = 0.9
    max_wait_seconds: float = 86_400
    judged: bool = True


class Strategy(msgspec.Struct, frozen=True, kw_only=True):
    """Phases and gates, and how many failed devices are too many.

    Attributes:
        max_failed_share: of the devices of a phase that answered.
        lost_after_seconds: a device silent for so long after it was heard with its order is
            lost, and counts as failed.
        unreached_after_seconds: a device not heard since its order, and silent for so long, is
            not waited for.
    """

    name: str
    phases: tuple[Phase, ...]
    gates: tuple[Gate, ...] = ()
    max_failed_share: float = 0.1
    lost_after_seconds: float = 900
    unreached_after_seconds: float = 60


class Member(msgspec.Struct, frozen=True):
    """A device of a rollout: the stratum it is compared in, and what to go back to."""

    device: str
    stratum: str
    previous: str
    possible: bool = True


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """What was decided when, why, and on what evidence; never changed afterwards."""

    at: float
    action: Action
    phase: str
    reason: str
    evidence: tuple[Judgement, ...] = ()
    format: int = 1


class Rollout(msgspec.Struct, frozen=True, kw_only=True):
    """A rollout's whole state; one JSON document in the database.

    Attributes:
        members: in the order in which they are reached.
        entered_at: when the present phase began.
        past_since: from here on lies each device's own past.
        window_seconds: how often its devices send; looking more often shows nothing new.
        treated_since: when the first device was to get the new version; None while nobody is.
        judged: the gates as last looked at.
    """

    id: str
    model: str
    version: str
    strategy: Strategy
    members: tuple[Member, ...]
    status: Status = "running"
    phase: int = 0
    reason: str = ""
    started_at: float
    entered_at: float
    past_since: float
    window_seconds: float = 60.0
    treated_since: float | None = None
    ended_at: float | None = None
    judged: tuple[Judgement, ...] = ()
    format: int = 1

    @property
    def current(self) -> Phase:
        return self.strategy.phases[self.phase]

    @property
    def treated(self) -> tuple[Member, ...]:
        """The devices that shall run the new version now."""
        if self.status in ("rolled back", "aborted"):
            return ()
        able = [m for m in self.members if m.possible]
        return tuple(able[: reach(self.current.share, len(able))])


class Device(msgspec.Struct, frozen=True, kw_only=True):
    """What the fleet knows of one device.

    Attributes:
        running: the version its interpreter reports.
        failed: its last order from this rollout ended reverted, refused or failed; the reason.
        ordered_at: when this rollout's order was given; None if it was not.
    """

    id: str
    running: str
    failed: str = ""
    ordered_at: float | None = None
    last_seen: float | None = None


def strategy(name: str) -> Strategy:
    """A shipped strategy by name; raises InvalidInputError."""
    gates = (
        Gate("errors", 0.02),
        Gate("confidence", 0.05),
        Gate("latency", 3.0, must="hold"),
    )
    past = Phase(name="past", share=0.0, min_windows=10, min_reach=1.0, judged=False)
    whole = Phase(name="everyone", share=1.0, min_reach=1.0, judged=False)
    known = {
        "all-at-once": Strategy(name="all-at-once", phases=(whole,)),
        "canary": Strategy(
            name="canary",
            gates=gates,
            phases=(past, Phase(name="canary", share=0.25, min_windows=10), whole),
        ),
        "staged": Strategy(
            name="staged",
            gates=gates,
            phases=(
                past,
                Phase(name="canary", share=0.25, min_windows=10),
                Phase(name="most", share=0.75, min_windows=10),
                whole,
            ),
        ),
    }
    if name not in known:
        raise InvalidInputError(f"unknown strategy {name!r}: known are {', '.join(known)}")
    return known[name]


def reach(share: float, devices: int) -> int:
    """How many devices a share is; at least one for any share above zero."""
    return min(devices, max(1, math.ceil(share * devices - 1e-9))) if devices and share else 0


def cohort_order(devices: Sequence[tuple[str, str, str]], seed: str) -> list[str]:
    """Device ids in the order in which a rollout reaches them, from (id, site, profile).

    A stratified hash: every prefix holds about the same share of each site, and within a site of
    each profile; inside a stratum the order is a hash of seed and id, so neither the first to
    answer nor the healthiest come first.

    >>> fleet = [(f"d{i}", "ns"[i % 2], "pi") for i in range(8)]
    >>> sorted(id[1:] in "0246" for id in cohort_order(fleet, "r1")[:4])
    [False, False, True, True]
    """

    def draw(device: str) -> str:
        return hashlib.sha256(f"{seed}/{device}".encode()).hexdigest()

    def spread(groups: Mapping[str, list[str]]) -> list[str]:
        placed = [
            ((rank + 0.5) / len(ids), draw(device), device)
            for ids in groups.values()
            for rank, device in enumerate(ids)
        ]
        return [device for _, _, device in sorted(placed)]

    sites: dict[str, dict[str, list[str]]] = {}
    for device, site, profile in sorted(devices, key=lambda d: draw(d[0])):
        sites.setdefault(site, {}).setdefault(profile, []).append(device)
    return spread({site: spread(profiles) for site, profiles in sites.items()})


def standing(rollout: Rollout, member: Member, device: Device | None, now: float) -> Standing:
    """Where one device of the current phase stands; only a reported digest makes it confirmed."""
    if not member.possible:
        return "no bundle"
    if device is None:
        return "unreached"
    if device.running == rollout.version and not device.failed:
        return "confirmed"
    if device.failed:
        return "failed"
    if device.ordered_at is None:
        return "waiting"
    last = device.last_seen or 0.0
    silent = now - max(last, device.ordered_at)
    if last > device.ordered_at:
        return "lost" if silent > rollout.strategy.lost_after_seconds else "waiting"
    return "unreached" if silent > rollout.strategy.unreached_after_seconds else "waiting"


def step(
    rollout: Rollout, fleet: Mapping[str, Device], arms: Mapping[str, Sequence[Arm]], now: float
) -> tuple[Rollout, Decision | None]:
    """Look at the fleet once and decide; None means: wait, nothing new.

    `arms` holds the windows by metric: each device's past, and what came in this phase.
    """
    if rollout.status not in LIVE:
        return rollout, None
    phase = rollout.current
    standings = [standing(rollout, m, fleet.get(m.device), now) for m in rollout.treated]
    failure = _failure(rollout, standings, fleet)
    if failure:
        return _end(rollout, "rolled back", "roll back", failure, now)
    if phase.judged:
        rollout = msgspec.structs.replace(rollout, judged=_judge(rollout, arms))
        objections = [j.words for j in rollout.judged if j.verdict == "fail"]
        if objections:
            return _end(rollout, "rolled back", "roll back", "; ".join(objections), now)
    lacking = (
        _lacking(rollout, standings, arms)
        if phase.share
        else _past_lacking(rollout, fleet, arms, now)
    )
    if lacking:
        if rollout.status == "running" and now - rollout.entered_at > phase.max_wait_seconds:
            return _decide(rollout, "held", "hold", f"waited too long for {lacking}", now)
        return rollout, None
    if rollout.phase + 1 == len(rollout.strategy.phases):
        confirmed = standings.count("confirmed")
        left = len(standings) - confirmed
        reason = f"{confirmed} devices run {rollout.version}"
        reason += f", {left} not yet" if left else ""
        return _end(rollout, "promoted", "promote", reason, now)
    return _widen(rollout, now)


def abort(rollout: Rollout, reason: str, now: float) -> tuple[Rollout, Decision | None]:
    """A person ends it; devices go back to what they ran. Ended rollouts stay as they are."""
    if rollout.status not in LIVE:
        return rollout, None
    return _end(rollout, "aborted", "abort", reason, now)


def _failure(rollout: Rollout, standings: Sequence[Standing], fleet: Mapping[str, Device]) -> str:
    """Why too many devices failed, in words; empty if they did not."""
    bad = standings.count("failed") + standings.count("lost")
    answered = standings.count("confirmed") + bad
    if not bad or bad / answered <= rollout.strategy.max_failed_share:
        return ""
    told = Counter(f.failed for m in rollout.treated if (f := fleet.get(m.device)) and f.failed)
    reason, _ = told.most_common(1)[0] if told else ("silent since they took it", 0)
    others = f" (and {len(told) - 1} other reasons)" if len(told) > 1 else ""
    return f"{bad} of {answered} devices that answered failed: {reason}{others}"


def _judge(rollout: Rollout, arms: Mapping[str, Sequence[Arm]]) -> tuple[Judgement, ...]:
    windows = rollout.current.min_windows
    return tuple(judge(g, arms.get(g.metric, ()), windows) for g in rollout.strategy.gates)


def _lacking(
    rollout: Rollout, standings: Sequence[Standing], arms: Mapping[str, Sequence[Arm]]
) -> str:
    """What the phase still lacks, in words; empty if nothing.

    Every device that confirmed and has a past must be heard before the phase is over: going on with
    the quickest would be choosing them.
    """
    confirmed = standings.count("confirmed")
    answering = confirmed + standings.count("waiting")
    needed = max(1, math.ceil(rollout.current.min_reach * answering - 1e-9))
    if confirmed < needed:
        return f"devices: {confirmed} of {needed} needed have confirmed"
    if not rollout.current.judged:
        return ""
    windows = rollout.current.min_windows
    ran = {m.device for m, s in zip(rollout.treated, standings, strict=True) if s == "confirmed"}
    comparable = {
        a.device for found in arms.values() for a in found if len(a.past) >= windows
    } & ran
    heard = min((j.treated_devices for j in rollout.judged), default=len(comparable))
    if heard < math.ceil(rollout.current.min_reach * len(comparable) - 1e-9):
        return f"evidence: {heard} of {len(comparable)} devices have sent {windows} windows"
    proofs = {gate.metric for gate in rollout.strategy.gates if gate.must == "prove"}
    return "; ".join(
        j.words
        for j in rollout.judged
        if j.verdict == "no data" or (j.verdict == "inconclusive" and j.metric in proofs)
    )


def _past_lacking(
    rollout: Rollout, fleet: Mapping[str, Device], arms: Mapping[str, Sequence[Arm]], now: float
) -> str:
    """What the past of the devices that are heard still lacks, in words; empty if nothing."""
    quiet = rollout.strategy.unreached_after_seconds
    heard = [
        m.device
        for m in rollout.members
        if m.previous and m.possible and m.device in fleet
        if now - (fleet[m.device].last_seen or 0.0) <= quiet
    ]
    counts: dict[str, int] = {}
    for arm in (arm for found in arms.values() for arm in found):
        counts[arm.device] = max(counts.get(arm.device, 0), len(arm.past))
    windows = rollout.current.min_windows
    ready = sum(counts.get(device, 0) >= windows for device in heard)
    if heard and ready >= rollout.current.min_reach * len(heard):
        return ""
    return f"a past: {ready} of {len(heard)} devices have {windows} windows with what they run now"


def _widen(rollout: Rollout, now: float) -> tuple[Rollout, Decision]:
    following = rollout.strategy.phases[rollout.phase + 1]
    reason = "; ".join(j.words for j in rollout.judged) or f"{rollout.current.name} is complete"
    decision = Decision(
        at=now, action="widen", phase=following.name, reason=reason, evidence=rollout.judged
    )
    since = rollout.treated_since if rollout.treated_since is not None else now
    return msgspec.structs.replace(
        rollout,
        phase=rollout.phase + 1,
        entered_at=now,
        treated_since=since,
        reason="",
        status="running",
    ), decision


def _end(
    rollout: Rollout, status: Status, action: Action, reason: str, now: float
) -> tuple[Rollout, Decision]:
    changed, decision = _decide(rollout, status, action, reason, now)
    return msgspec.structs.replace(changed, ended_at=now), decision


def _decide(
    rollout: Rollout, status: Status, action: Action, reason: str, now: float
) -> tuple[Rollout, Decision]:
    decision = Decision(
        at=now, action=action, phase=rollout.current.name, reason=reason, evidence=rollout.judged
    )
    return msgspec.structs.replace(rollout, status=status, reason=reason), decision
