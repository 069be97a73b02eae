"""From devices that stand out to causes: what moved, where, why, what it costs, what to do. Pure.

One cause is one finding, however many devices it hits. Its severity is its consequence, not the
size of the movement: most movements of inputs are harmless.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Literal, get_args

import msgspec
import numpy as np

from edge_sdk.subspace import NOVELTY
from fleet_server.decay.layout import (
    DROPPED,
    ERRORS,
    LATENCY,
    LOST,
    MEMORY,
    SCHEMA,
    TEMPERATURE,
    THROTTLED,
)
from fleet_server.decay.past import Season
from fleet_server.decay.stream import NOTABLE, Movement
from fleet_server.decay.watch import State

Kind = Literal[
    "schema skew",
    "data drift",
    "novelty",
    "prediction drift",
    "confidence drift",
    "hardware drift",
    "season",
    "distribution skew",
    "concept drift",
    "calibration drift",
]
Cause = Literal[
    "pipeline", "version", "sensor", "environment", "answers", "hardware", "season", "training",
    "labels",
]  # fmt: skip
Severity = Literal["info", "warning", "critical"]
KINDS: tuple[Kind, ...] = get_args(Kind)
FROM_LABELS: tuple[Kind, ...] = ("concept drift", "calibration drift")
LOSS_WARNING, LOSS_CRITICAL = 0.02, 0.10
HARDWARE = (LATENCY, MEMORY, TEMPERATURE, THROTTLED, ERRORS, DROPPED, LOST)
ALONE = 1  # units that a device alone must last, for its site to show whether it is alone
SOON = 12  # units after a new version within which what begins is blamed on it
MISSING = 0.02  # share of missing values that is a broken schema rather than another distribution
ROUNDED = 0.01  # of a movement: a mean within it of zero is told as zero, since windows round means

ACTIONS: dict[Cause, str] = {
    "pipeline": "compare preprocessing, firmware and units there with the bundle's input schema; "
    "the model is not to blame",
    "version": "hold the rollout of this version or roll it back; devices without it are well",
    "sensor": "look at the sensor itself (dirt, mounting, exposure) before retraining anything",
    "environment": "ask for samples there and label some; retrain if accuracy fell, "
    "re-baseline if the change is meant to stay",
    "answers": "inputs look as before while answers changed: label an audit sample, since the mix "
    "of classes or their meaning may have changed",
    "hardware": "look at load, temperature and power of these devices",
    "season": "it was the same before at this hour or weekday and went by itself: it is being "
    "learnt, nothing has to be done unless nobody can explain it",
    "labels": "the right answers changed, not the inputs: label more rows there, then retrain on "
    "the newer ones",
    "training": "the field never looked like the training data: collect samples and retrain, or "
    "check units and preprocessing",
}


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One cause.

    Attributes:
        scope: `site=...`, `fleet`, or `device=...`.
        devices, of: who shows it, and how many there are in that scope.
        moved: typical movement of each channel, largest first.
        loss: estimated loss of accuracy, 0..1: how much further the estimated accuracy fell on
            these devices than on the others; for schema skew and errors the share of rows without
            an answer; None if it can't be told.
        since: when the first of them began to move, Unix seconds.
        versions: what runs on them.
    """

    kind: Kind
    cause: Cause
    scope: str
    devices: tuple[str, ...]
    of: int
    moved: tuple[Movement, ...]
    loss: float | None
    severity: Severity
    since: float
    versions: tuple[str, ...]
    title: str
    detail: str
    action: str


def findings(states: Iterable[State]) -> list[Finding]:
    """Devices that moved, put together by cause; the costliest first.

    A site moved if at least half of its devices (and two) did; the fleet, if more than half of the
    sites (and two) did.
    """
    everyone = list(states)
    found: list[Finding] = []
    for kind in KINDS[: -len(FROM_LABELS)]:
        for scope, moved, of in _places(kind, everyone):
            found.append(_finding(kind, scope, moved, of, everyone))
    return sorted(found, key=lambda f: -consequence(f, len(everyone)))


def consequence(found: Finding, fleet: int) -> float:
    """By what findings are sorted: estimated loss times the share of the fleet, then the size."""
    share = len(found.devices) / max(fleet, 1)
    return (found.loss or 0.0) * share + 1e-6 * share


def kind_of(moved: Sequence[Movement]) -> Kind | None:
    """What kind of change these movements of one device are; the earliest in the pipeline wins."""
    names = {m.channel for m in moved}
    if SCHEMA in names or any(m.missing >= MISSING for m in moved if _is_input(m)):
        return "schema skew"
    if {m.channel for m in moved if _is_input(m)} == {NOVELTY}:
        return "novelty"
    if any(_is_input(m) for m in moved):
        return "data drift"
    if "output.class" in names:
        return "prediction drift"
    if any(name.startswith("output.") for name in names):
        return "confidence drift"
    return "hardware drift" if names & set(HARDWARE) else None


def _places(kind: Kind, everyone: Sequence[State]) -> list[tuple[str, list[State], int]]:
    """Where this kind of change is: scope, devices that show it, devices there are."""
    relevant = [_of_kind(kind, state) for state in everyone]
    here = [state for state in relevant if state is not None]
    if kind == "distribution skew":
        here = _shared(here, everyone)
    sounded = [state for state in here if state.alarmed]
    alike = {s.device: s for s in here if s.alarmed or any(_same(s, other) for other in sounded)}
    sites: dict[str, list[State]] = {}
    for state in everyone:
        sites.setdefault(state.site, []).append(state)
    moved = {
        site: [alike[s.device] for s in members if s.device in alike]
        for site, members in sites.items()
    }
    whole = [site for site, found in moved.items() if len(found) >= max(2, len(sites[site]) / 2)]
    if len(whole) >= 2 and len(whole) > len(sites) / 2:
        return [("fleet", list(alike.values()), len(everyone))]
    places = [(f"site={site}", moved[site], len(sites[site])) for site in sorted(whole)]
    if kind == "distribution skew":
        return places  # one device that differs from the training data is a device, not a cause
    alone = [s for s in sounded if s.site not in whole and s.lasted >= ALONE]
    return places + [(f"device={s.device}", [s], 1) for s in alone]


def _of_kind(kind: Kind, state: State) -> State | None:
    """The state as far as it shows this kind of change; None if it does not."""
    if kind == "distribution skew":
        if not state.skewed:
            return None
        return msgspec.structs.replace(state, moved=state.skewed, alarmed=True)
    if (kind == "season") != bool(state.season):
        return None
    if state.season:
        return state if state.moved else None
    hardware = tuple(m for m in state.moved if m.channel in HARDWARE)
    others = tuple(m for m in state.moved if m.channel not in HARDWARE)
    moved = hardware if kind == "hardware drift" else others
    return msgspec.structs.replace(state, moved=moved) if kind_of(moved) == kind else None


def _shared(skewed: Sequence[State], everyone: Sequence[State]) -> list[State]:
    """Only what half of a site's devices share: each device differs from training in something."""
    members = Counter(s.site for s in everyone)
    common = Counter((s.site, m.channel, m.shift > 0) for s in skewed for m in s.moved)
    kept = [
        msgspec.structs.replace(
            s,
            moved=tuple(
                m
                for m in s.moved
                if common[s.site, m.channel, m.shift > 0] >= max(2, members[s.site] / 2)
            ),
        )
        for s in skewed
    ]
    return [s for s in kept if s.moved]


def _same(state: State, other: State) -> bool:
    """Whether the other's strongest movement is there too, on the same side."""
    first = other.moved[0]
    return any(
        m.channel == first.channel and m.score >= NOTABLE and m.shift * first.shift >= 0
        for m in state.moved
    )


def _finding(
    kind: Kind, scope: str, moved: list[State], of: int, everyone: Sequence[State]
) -> Finding:
    names = {s.device for s in moved}
    rest = [s for s in everyone if s.device not in names]
    typical = _typical(moved)
    loss = _loss(kind, moved, typical, rest)
    cause = _cause(kind, scope, moved, rest)
    severity = severity_of(kind, loss)
    return Finding(
        kind=kind,
        cause=cause,
        scope=scope,
        devices=tuple(sorted(names)),
        of=of,
        moved=typical,
        loss=loss,
        severity=severity,
        since=min((s.since for s in moved if s.since is not None), default=0.0),
        versions=tuple(sorted({s.version for s in moved if s.version})),
        title=f"{kind} {_where(scope, moved, everyone)}: {words(typical[0])} on {len(moved)} of "
        f"{of} devices",
        detail=_detail(cause, loss, typical, len(rest)) + _again(moved[0].season),
        action=ACTIONS[cause],
    )


def _cause(kind: Kind, scope: str, moved: Sequence[State], rest: Sequence[State]) -> Cause:
    if kind == "distribution skew":
        return "training"
    if _came_with_version(moved, rest):
        return "version"
    match kind:
        case "season":
            return "season"
        case "schema skew":
            return "pipeline"
        case "hardware drift":
            return "hardware"
        case "prediction drift" | "confidence drift":
            return "answers"
        case _:
            return "sensor" if scope.startswith("device=") else "environment"


def _came_with_version(moved: Sequence[State], rest: Sequence[State]) -> bool:
    """All of them got one version shortly before, and those without it stand still."""
    versions = {s.version for s in moved}
    if len(versions) != 1 or not any(s.version not in versions for s in rest):
        return False
    return all(
        s.since is not None
        and s.version_since is not None
        and 0 <= s.since - s.version_since <= SOON * s.unit_seconds
        for s in moved
    )


def _typical(moved: Sequence[State]) -> tuple[Movement, ...]:
    """The median movement of each channel that moved on half of the devices; largest first."""
    by_channel: dict[str, list[Movement]] = {}
    for state in moved:
        for movement in state.moved:
            by_channel.setdefault(movement.channel, []).append(movement)
    common = [_middle(found) for found in by_channel.values() if 2 * len(found) >= len(moved)]
    found = common or [_middle(max(by_channel.values(), key=len))]
    return tuple(sorted(found, key=_explains))


def _explains(movement: Movement) -> tuple[int, float]:
    """Causes before consequences: schema, inputs, answers; then the larger first."""
    rank = 0 if movement.channel == SCHEMA else 1 if _is_input(movement) else 3
    if movement.channel == NOVELTY:
        rank = 2  # it moves with any input
    return rank, -max(abs(movement.shift), 3 * movement.distance, 3 * movement.missing)


def _middle(found: Sequence[Movement]) -> Movement:
    numbers = [f for f in Movement.__struct_fields__ if f != "channel"]
    return Movement(
        found[0].channel,
        **{name: float(np.median([getattr(m, name) for m in found])) for name in numbers},
    )


def _loss(
    kind: Kind, moved: Sequence[State], typical: Sequence[Movement], rest: Sequence[State]
) -> float | None:
    if kind == "schema skew":
        return max(m.missing for m in typical)
    if kind == "hardware drift":
        return max((m.missing for m in typical if m.channel == ERRORS), default=None)
    here = [s.accuracy_change for s in moved if s.accuracy_change is not None]
    there = [s.accuracy_change for s in rest if s.accuracy_change is not None]
    if not here:
        return None
    return max(0.0, (float(np.median(there)) if there else 0.0) - float(np.median(here)))


def severity_of(kind: Kind, loss: float | None) -> Severity:
    """How much a person should care: by consequence, never by the size of the movement."""
    if loss is not None and loss >= LOSS_CRITICAL:
        return "critical"
    if (loss is not None and loss >= LOSS_WARNING) or kind in ("schema skew", "hardware drift"):
        return "warning"
    return "info"


def _where(scope: str, moved: Sequence[State], everyone: Sequence[State]) -> str:
    if scope != "fleet":
        return f"at {scope.replace('=', ' ')}"
    sites, here = {s.site for s in everyone}, {s.site for s in moved}
    return f"in the whole fleet, {len(here)} of {len(sites)} sites"


def words(m: Movement) -> str:
    name = m.channel.removeprefix("input.").replace("output.", "the model's ")
    if m.channel == SCHEMA:
        return f"{100 * m.missing:.0f} % of rows do not fit the input schema"
    if m.channel in (ERRORS, DROPPED, LOST):
        return f"{100 * m.missing:.0f} % of rows: {m.channel.replace('_', ' ')}"
    if m.channel == THROTTLED:
        return f"throttled or under-voltage in {100 * m.missing:.0f} % of windows"
    if m.channel == NOVELTY:
        return f"inputs taken together: novelty {_verb(m)} from {m.before:.2f} to {m.now:.2f}"
    if m.missing >= MISSING:
        return f"{100 * m.missing:.0f} % of {name} are missing"
    if m.channel == TEMPERATURE:
        return f"temperature {_verb(m)} from {m.before:.0f} to {m.now:.0f} °C"
    if m.channel in (LATENCY, MEMORY):
        return f"{name} {_verb(m)} from {m.before:.3g} to {m.now:.3g} ({100 * m.shift:+.0f} %)"
    if m.shift and abs(m.shift) >= m.distance:
        before, now = (0.0 if abs(x) < ROUNDED * abs(m.now - m.before) else x
                       for x in (m.before, m.now))  # fmt: skip
        return f"{name} {_verb(m)} from {before:.3g} to {now:.3g} ({m.shift:+.1f} sd)"
    return f"{name} is distributed differently (distance {m.distance:.2f})"


def _verb(movement: Movement) -> str:
    return "fell" if movement.shift < 0 else "rose"


def _detail(cause: Cause, loss: float | None, typical: Sequence[Movement], elsewhere: int) -> str:
    cost = (
        f"estimated loss of accuracy {100 * loss:.0f} points"
        if loss is not None
        else "no estimate of its cost yet"
    )
    others = ", ".join(words(m) for m in typical[1:4])
    still = (
        f"{elsewhere} devices without this version did not move"
        if cause == "version"
        else f"{elsewhere} other devices did not move this way, whatever version they run"
    )
    return f"{cost}; also moved: {others or 'nothing'}; PSI {typical[0].psi:.2f}; {still}"


def _again(season: Season) -> str:
    return f"; the same began at this hour, whole {season}s before, and went" if season else ""


def _is_input(movement: Movement) -> bool:
    return movement.channel.startswith("input.")
