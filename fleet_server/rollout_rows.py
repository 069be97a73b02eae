"""A rollout as it is shown: its phases, its gates as last judged, its devices counted. Pure."""

from collections.abc import Mapping
from typing import Literal

from fleet_server.evidence import Judgement
from fleet_server.records import AssignmentRecord, DeviceRecord
from fleet_server.rollout import LIVE, Rollout, reach
from fleet_server.views import GateRow, PhaseRow, RolloutRow

ENDED_BADLY = ("reverted", "refused", "failed")


def rollout_row(
    rollout: Rollout,
    devices: Mapping[str, DeviceRecord],
    orders: Mapping[str, AssignmentRecord],
) -> RolloutRow:
    """The row of one rollout; a device counts as confirmed by what it reports it runs."""
    able = [m for m in rollout.members if m.possible]
    reached = [devices[m.device] for m in able if m.device in devices]
    confirmed = sum(
        d.running_model == rollout.model
        and d.running_version == rollout.version
        and d.phase == "confirmed"
        for d in reached
    )
    failed = sum(
        (order := orders.get(d.id)) is not None
        and order.rollout == rollout.id
        and order.generation == d.generation
        and d.phase in ENDED_BADLY
        for d in reached
    )
    return RolloutRow(
        id=rollout.id,
        model=rollout.model,
        version=rollout.version,
        strategy=rollout.strategy.name,
        status=rollout.status,
        reason=rollout.reason,
        started_at=rollout.started_at,
        ended_at=rollout.ended_at,
        phases=_phases(rollout, len(able)),
        gates=tuple(_gate(j) for j in rollout.judged),
        confirmed=confirmed,
        failed=failed,
        total=len(rollout.members),
    )


def _phases(rollout: Rollout, devices: int) -> tuple[PhaseRow, ...]:
    return tuple(
        PhaseRow(phase.name, reach(phase.share, devices), _state(rollout, number))
        for number, phase in enumerate(rollout.strategy.phases)
    )


def _state(rollout: Rollout, number: int) -> Literal["done", "now", "next", "stopped", "skipped"]:
    if number < rollout.phase or rollout.status == "promoted":
        return "done"
    if rollout.status not in LIVE:
        return "stopped" if number == rollout.phase else "skipped"
    return "now" if number == rollout.phase else "next"


def _gate(judgement: Judgement) -> GateRow:
    return GateRow(
        metric=judgement.metric,
        treated=judgement.treated,
        control=judgement.control,
        difference=judgement.difference,
        low=judgement.low,
        high=judgement.high,
        limit=judgement.limit,
        verdict=judgement.verdict,
        words=judgement.words,
    )
