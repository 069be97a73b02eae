"""A rollout as it is shown: its phases, its gates as last judged, its devices. Pure."""

from collections.abc import Mapping
from typing import Literal

from fleet_server.evidence.gates import Judgement
from fleet_server.records import StandingRecord
from fleet_server.rollout.cohort import reached_by
from fleet_server.rollout.state import BAD, LIVE, Rollout
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
    rollout: Rollout, standings: Mapping[str, StandingRecord]
) -> tuple[RolloutDevice, ...]:
    """Every member in the order in which it is reached, with where it stands and why."""
    phases, rows, place = rollout.strategy.phases, [], 0
    able = len(rollout.able)
    counts = [reached_by(phase, able) for phase in phases]
    for member in rollout.members:
        stands = standings.get(member.device)
        phase = ""
        if member.possible:
            phase = next(p.name for p, n in zip(phases, counts, strict=True) if n > place)
            place += 1
        rows.append(
            RolloutDevice(
                device=member.device,
                site=member.stratum,
                profile=member.profile,
                phase=phase,
                previous=member.previous,
                standing=stands.standing if stands else _unreached(member.possible),
                reason=stands.reason if stands else "",
                since=stands.at if stands else None,
            )
        )
    return tuple(rows)


def _unreached(possible: bool) -> str:  # noqa: FBT001 - of one thing, by its only caller
    return "not reached yet" if possible else "no bundle"


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
