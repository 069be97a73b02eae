"""A rollout as it is shown: its phases, its gates as last judged, its devices. Pure."""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Literal

from fleet_server.evidence.gates import Judgement
from fleet_server.records import MemberRecord
from fleet_server.rollout.cohort import reached_by
from fleet_server.rollout.state import BAD, LIVE, NO_BUNDLE, NOT_REACHED, Rollout
from fleet_server.views import GateRow, PhaseRow, RolloutDevice, RolloutRow


def rollout_row(
    rollout: Rollout, size: tuple[int, int], confirmed: int, standings: Mapping[str, int]
) -> RolloutRow:
    """The row of one rollout.

    Args:
        rollout: its members are not looked at.
        size: of how many members, and how many of them there is a bundle for.
        confirmed: members that report to run it.
        standings: how many stand where.
    """
    members, able = size
    return RolloutRow(
        id=rollout.id,
        model=rollout.model,
        version=rollout.version,
        strategy=rollout.strategy.name,
        status=rollout.status,
        reason=rollout.reason,
        started_at=rollout.started_at,
        ended_at=rollout.ended_at,
        phases=_phases(rollout, able),
        gates=tuple(_gate(j) for j in rollout.judged if not j.scope or j.verdict != "no data"),
        confirmed=confirmed,
        failed=sum(standings.get(one, 0) for one in BAD),
        total=members,
        by=rollout.by,
        standings=dict(standings),
    )


def device_rows(
    rollout: Rollout, able: int, gaps: Sequence[int], members: Sequence[MemberRecord]
) -> list[RolloutDevice]:
    """Some members, with the phase that first reaches each, where it stands and why.

    Args:
        rollout: its members are not looked at.
        able: how many members there is a bundle for.
        gaps: the places of the others, rising.
        members: those to show.
    """
    ends = [(phase.name, reached_by(phase, able)) for phase in rollout.strategy.phases]

    def phase(member: MemberRecord) -> str:
        turn = member.place - bisect_left(gaps, member.place)
        return next(name for name, end in ends if end > turn) if member.possible else ""

    return [
        RolloutDevice(
            device=member.device,
            site=member.stratum,
            profile=member.profile,
            phase=phase(member),
            previous=member.previous,
            standing=member.standing or (NOT_REACHED if member.possible else NO_BUNDLE),
            reason=member.reason or "",
            since=member.at,
        )
        for member in members
    ]


def _phases(rollout: Rollout, devices: int) -> tuple[PhaseRow, ...]:
    return tuple(
        PhaseRow(phase.name, reached_by(phase, devices), _state(rollout, number), phase.role)
        for number, phase in enumerate(rollout.strategy.phases)
    )


def _state(rollout: Rollout, number: int) -> Literal["done", "now", "next", "stopped", "skipped"]:
    if number < rollout.phase or rollout.status in ("promoted", "reopened"):
        return "done"
    if rollout.status not in LIVE:
        return "stopped" if number == rollout.phase else "skipped"
    begun = rollout.status not in ("scheduled", "to approve") or rollout.phase > 0
    return "now" if number == rollout.phase and begun else "next"


def _gate(judgement: Judgement) -> GateRow:
    return GateRow(
        metric=judgement.metric,
        scope=judgement.scope,
        against=judgement.against,
        treated=judgement.treated,
        control=judgement.control,
        difference=judgement.difference,
        low=judgement.low,
        high=judgement.high,
        limit=judgement.limit,
        verdict=judgement.verdict,
        words=judgement.words,
    )
