"""The decisions: a rollout and one look at its fleet give the next state, and why. Pure.

Where gates are asked, a phase that reaches nobody comes first: it waits until the devices have a
past to be compared with. Nothing counts as success but a digest reported by the running
interpreter; a device that is offline or silent is waited for no longer than the strategy says, and
is never counted as success. A decision keeps the look it was made on, so a log can be replayed.
"""

import math

from msgspec.structs import replace

from fleet_server.evidence.gates import Judgement
from fleet_server.rollout.grammar import Phase
from fleet_server.rollout.state import AWAITED, BAD, Action, Decision, Look, Rollout, Status

Step = tuple[Rollout, Decision | None]


def decide(rollout: Rollout, look: Look) -> Step:
    """What one look changes; None means: wait, nothing new."""
    match rollout.status:
        case "scheduled":
            return _begin(rollout, look) if look.at >= rollout.start_at else (rollout, None)
        case "running" | "held":
            return _advance(replace(rollout, judged=look.judged or rollout.judged), look)
        case "promoted" if look.at <= (rollout.watching_until or 0.0):
            return _watch(replace(rollout, judged=look.judged or rollout.judged), look)
        case _:
            return rollout, None


def begin(rollout: Rollout, now: float) -> Rollout:
    """The first phase begins."""
    treated = None if rollout.current.reaches_nobody else now
    return replace(rollout, status="running", entered_at=now, treated_since=treated)


def advance_to_next(rollout: Rollout, now: float) -> Rollout:
    """The next phase begins."""
    since = rollout.treated_since if rollout.treated_since is not None else now
    return replace(
        rollout,
        phase=rollout.phase + 1,
        entered_at=now,
        reached_at=None,
        paused_seconds=0.0,
        treated_since=since,
        reason="",
        status="running",
    )


def _begin(rollout: Rollout, look: Look) -> Step:
    return _decided(begin(rollout, look.at), "start", "its time has come", look)


def _advance(rollout: Rollout, look: Look) -> Step:
    phase = rollout.current
    if failure := too_many_failed(rollout, look):
        return _end(rollout, "rolled back", "roll back", failure, look)
    objections = [j.words for j in look.judged if j.verdict == "fail"] if phase.judged else []
    if objections:
        return _end(rollout, "rolled back", "roll back", "; ".join(objections), look)
    lacking = _lacking_past(phase, look) if phase.reaches_nobody else _lacking(rollout, look)
    if not lacking:
        reached = look.at if rollout.reached_at is None else rollout.reached_at
        rollout = replace(rollout, reached_at=reached)
        soaked = look.at - reached >= phase.soak_seconds
        return _complete(rollout, look) if soaked else (rollout, None)
    waited = look.at - rollout.entered_at - rollout.paused_seconds
    if waited <= phase.max_wait_seconds:
        return rollout, None
    return _timed_out(rollout, f"waited too long for {lacking}", look)


def _timed_out(rollout: Rollout, reason: str, look: Look) -> Step:
    match rollout.current.on_timeout:
        case "proceed":
            return _complete(rollout, look, reason)
        case "roll back":
            return _end(rollout, "rolled back", "roll back", reason, look)
        case "hold":
            if rollout.status == "held":
                return rollout, None
            held = replace(rollout, status="held", reason=reason)
            return _decided(held, "hold", reason, look)


def _complete(rollout: Rollout, look: Look, reason: str = "") -> Step:
    """The phase is over: promote, ask a second person, or widen."""
    if rollout.phase + 1 == len(rollout.strategy.phases):
        confirmed = look.count("confirmed")
        left = sum(look.standings.values()) - confirmed
        words = f"{confirmed} devices run {rollout.version}"
        words += f", {left} not yet" if left else ""
        return _end(rollout, "promoted", "promote", words, look)
    words = reason or "; ".join(_told(look.judged)) or f"{rollout.current.name} is complete"
    following = rollout.strategy.phases[rollout.phase + 1]
    if following.approval and following.name not in rollout.approved:
        why = f"{words}; phase {following.name} needs the approval of a second person"
        return _decided(replace(rollout, status="to approve", reason=why), "ask", why, look)
    return _decided(advance_to_next(rollout, look.at), "widen", words, look)


def _watch(rollout: Rollout, look: Look) -> Step:
    """After the promotion: late returners and what came since may call it in question."""
    reason = too_many_failed(rollout, look)
    if not reason:
        reason = "; ".join(j.words for j in look.judged if j.verdict == "fail")
    if not reason:
        return rollout, None
    why = f"since it was promoted: {reason}"
    return _decided(replace(rollout, status="reopened", reason=why), "reopen", why, look)


def too_many_failed(rollout: Rollout, look: Look) -> str:
    """Why too many devices failed, in words; empty if they did not."""
    bad = look.count(*BAD)
    answered = look.count("confirmed") + bad
    if not bad or bad / answered <= rollout.strategy.max_failed_share:
        return ""
    reason = look.reasons[0][0] if look.reasons else "silent since they took it"
    others = len(look.reasons) - 1
    more = f" (and {others} other reason{'s' if others > 1 else ''})" if others > 0 else ""
    return f"{bad} of {answered} devices that answered failed: {reason}{more}"


def _lacking(rollout: Rollout, look: Look) -> str:
    """What the phase still lacks, in words; empty if nothing.

    Every device that confirmed and has a past must be heard before the phase is over: going on with
    the quickest would be choosing them.
    """
    phase = rollout.current
    confirmed = look.count("confirmed")
    answering = confirmed + look.count(*AWAITED)
    needed = max(1, _part(phase.min_reach, answering))
    if confirmed < needed:
        return f"devices: {confirmed} of {needed} needed have confirmed"
    if not phase.judged:
        return ""
    heard, comparable = look.evidence
    if heard < _part(phase.min_reach, comparable):
        return f"evidence: {heard} of {comparable} devices have sent {phase.min_windows} windows"
    proofs = {gate.metric for gate in rollout.strategy.gates if gate.must == "prove"}
    return "; ".join(
        j.words
        for j in look.judged
        if j.metric in proofs and not j.scope and j.verdict in ("no data", "inconclusive")
    )


def _lacking_past(phase: Phase, look: Look) -> str:
    """What the past of the devices that are heard still lacks, in words; empty if nothing."""
    ready, heard = look.past
    if heard and ready >= phase.min_reach * heard:
        return ""
    windows = phase.min_windows
    return f"a past: {ready} of {heard} devices have {windows} windows with what they run now"


def _told(judged: tuple[Judgement, ...]) -> list[str]:
    """The verdicts that say something: of all devices, with data."""
    return [j.words for j in judged if not j.scope and j.verdict != "no data"]


def _part(share: float, devices: int) -> int:
    return math.ceil(share * devices - 1e-9)


def _end(rollout: Rollout, status: Status, action: Action, reason: str, look: Look) -> Step:
    ended = replace(rollout, status=status, reason=reason, ended_at=look.at)
    return _decided(ended, action, reason, look)


def _decided(rollout: Rollout, action: Action, reason: str, look: Look) -> Step:
    return rollout, Decision(
        at=look.at,
        action=action,
        phase=rollout.current.name,
        reason=reason,
        evidence=look.judged,
        look=look,
    )
