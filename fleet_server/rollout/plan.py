"""Before the start: who gets what when, who can't and why, the cost, what can be seen. Pure."""

import math
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from fleet_server.evidence.changes import Changes, changes
from fleet_server.evidence.gates import MEASURES, OF_LABELS, Gate
from fleet_server.evidence.hazard import needed
from fleet_server.evidence.interval import detectable
from fleet_server.evidence.windows import Columns
from fleet_server.rollout.cohort import reached_by
from fleet_server.rollout.evidence import arms, gates_in, level_of
from fleet_server.rollout.grammar import Phase
from fleet_server.rollout.state import Rollout
from fleet_server.views import Detectable, PlannedDevice, RolloutPlan


def plan(
    rollout: Rollout,
    lengths: Mapping[str, int],
    windows: Columns,
    left_out: Mapping[str, str],
) -> RolloutPlan:
    """The plan of a rollout that is not started.

    Args:
        rollout: as it would begin.
        lengths: bytes of the bundle by hardware profile.
        windows: of its devices lately.
        left_out: devices that are no members, with the reason.
    """
    able, phases = rollout.able, rollout.strategy.phases
    counts = [reached_by(phase, len(able)) for phase in phases]
    first = {
        member.device: next(p.name for p, n in zip(phases, counts, strict=True) if n > place)
        for place, member in enumerate(able)
    }
    devices = [
        PlannedDevice(
            m.device,
            m.stratum,
            m.profile,
            m.previous,
            first.get(m.device, ""),
            "" if m.possible else f"no bundle for its profile {m.profile} is published",
        )
        for m in rollout.members
    ]
    devices += [PlannedDevice(d, "", "", "", "", why) for d, why in sorted(left_out.items())]
    return RolloutPlan(
        model=rollout.model,
        version=rollout.version,
        strategy=rollout.strategy.name,
        phases=tuple((p.name, p.role, n) for p, n in zip(phases, counts, strict=True)),
        devices=tuple(devices),
        bytes=sum(lengths.get(m.profile, 0) for m in able if m.previous != rollout.version),
        seconds=_seconds(rollout, counts),
        detectable=_detectable(rollout, windows),
    )


def _seconds(rollout: Rollout, counts: Sequence[int]) -> float:
    limits, total, reached = rollout.strategy.limits, 0.0, 0
    for phase, count in zip(rollout.strategy.phases, counts, strict=True):
        waits = phase.judged or phase.reaches_nobody
        total += max(phase.soak_seconds, phase.min_windows * rollout.window_seconds * waits)
        fresh, reached = max(0, count - reached), max(count, reached)
        if limits.per_minute:
            total += 60 * math.ceil(fresh / limits.per_minute - 1)
        if limits.bytes_per_second:
            total += fresh * rollout.bundle_bytes / limits.bytes_per_second
    return total


def _detectable(rollout: Rollout, windows: Columns) -> tuple[Detectable, ...]:
    return tuple(
        _smallest(rollout, phase, gate, windows)
        for phase in rollout.strategy.phases
        for gate in gates_in(rollout, phase)
        if gate.compares != "primary"  # nobody shadows yet: there is nothing to go by
    )


def _smallest(rollout: Rollout, phase: Phase, gate: Gate, windows: Columns) -> Detectable:
    size = len(rollout.able)
    treated = reached_by(phase, size)
    control = size - treated if gate.compares == "control" else 0
    if MEASURES[gate.metric][1] == "hazard":
        return _fewest(rollout, phase, gate, (treated, control))
    spread = _spread(rollout, gate, windows)
    enough = treated >= 2 and (control >= 2 or gate.compares == "past")
    who = f"{treated} devices against {control}" if control else f"{treated} devices"
    if spread is None or not enough:
        why = "the devices have too little of a past" if enough else f"{who} are too few"
        return Detectable(
            metric=gate.metric,
            phase=phase.name,
            limit=gate.margin,
            smallest=None,
            words=f"{gate.metric} in {phase.name}: can't be told, {why}",
        )
    harm = detectable(spread, treated, control, _blames(rollout, gate))
    ratio = MEASURES[gate.metric][1] == "ratio"
    smallest = gate.margin * math.exp(harm) if ratio else gate.margin + harm
    size_words = f"x{smallest:.2f} (limit x{gate.margin:g})" if ratio else f"{smallest:.3g}"
    limit = "" if ratio else f" (limit {gate.margin:g})"
    return Detectable(
        metric=gate.metric,
        phase=phase.name,
        limit=gate.margin,
        smallest=smallest,
        words=f"{gate.metric} in {phase.name}: {who} show a harm of {size_words}{limit} within "
        f"{phase.min_windows} windows, 4 times of 5",
    )


def _blames(rollout: Rollout, gate: Gate) -> float:
    """The two-sided error of the gate's blame."""
    return level_of(rollout) / (2 if gate.either_way else 1)


def _fewest(rollout: Rollout, phase: Phase, gate: Gate, arms: tuple[int, int]) -> Detectable:
    """How many devices must fail more often than before, while none of the others does."""
    treated, control = arms
    count = needed(treated, control, _blames(rollout, gate) / 2, gate.margin)
    seen = f"{count} of {treated} devices" if count else f"{treated} devices are too few"
    ending = f", and none of {control}: that is shown" if count else ""
    return Detectable(
        metric=gate.metric,
        phase=phase.name,
        limit=gate.margin,
        smallest=count / treated if count else None,
        words=f"{gate.metric} in {phase.name}: {seen}{ending}",
    )


def _spread(rollout: Rollout, gate: Gate, windows: Columns) -> float | None:
    """Standard deviation over devices of the change between two halves of their past."""
    if gate.metric in OF_LABELS:
        return None
    split = arms(rollout, windows)
    if not split.past.any():
        return None
    middle = float(np.median(split.windows.at[split.past]))
    halves = msgspec.structs.replace(
        split,
        past=split.past & (split.windows.at < middle),
        now=split.past & (split.windows.at >= middle),
    )
    found: Changes = changes(gate.metric, halves.points(gate.metric), len(rollout.able))
    usable = (found.past >= 2) & (found.windows >= 2)
    if usable.sum() < 3:
        return None
    between = float(found.value[usable].std(ddof=1))
    return max(between, math.sqrt(float(found.variance[usable].mean())))
