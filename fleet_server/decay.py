"""Data drift from sketches: which input moved, where, how far, and what it costs. Pure.

A device is compared with its own first windows, never with a fixed threshold: the distance of
every run of recent windows from those first windows is held against the distances that the first
windows have among themselves (a block resample, since sensor streams are autocorrelated), as a
maximum over the channels, so that many channels do not mean many false alarms. A movement must
last, and must be large in units of the training spread. Devices that moved alike are one finding.
"""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import msgspec
import numpy as np

from edge_sdk.messages import Window
from edge_sdk.sketch import Baseline, Floats

REFERENCE = 16  # a device's first windows are its own past; never learnt again, or drift hides
BLOCK = 3  # windows pooled into one comparison
KEPT = 40  # recent windows kept for a device
STREAK = 3  # comparisons in a row that must stand out
ALONE = 12  # the same for a device whose site is quiet: one device is no cause yet
SAFETY = 1.5  # a recent block must be this much further away than any block of the past
PSI_FLOOR = 0.1  # below this, the usual reading of PSI is 'no change'
EFFECT_FLOOR = 0.3  # of the training standard deviation
MIN_ROWS = 100  # rows in a block
LOSS_WARNING, LOSS_CRITICAL = 0.02, 0.10


class Movement(msgspec.Struct, frozen=True):
    """How far one channel of one device moved.

    Attributes:
        psi: population stability index between its recent windows and its past.
        shift: change of the mean, in standard deviations of the training data.
        before, now: means.
    """

    channel: str
    psi: float
    shift: float
    before: float
    now: float


class State(msgspec.Struct, frozen=True):
    """What one device's inputs do now: the channels that moved, and for how long."""

    device: str
    site: str
    streak: int
    moved: tuple[Movement, ...]
    confidence_change: float | None


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One cause: what moved, where, on how many devices, and what it costs.

    Attributes:
        scope: `site=...`, `fleet`, or `device=...`.
        loss: estimated loss of accuracy, 0..1: the fall of mean confidence on these devices beyond
            that of the others (the mean confidence of a calibrated model estimates its accuracy);
            None if it can't be told.
    """

    scope: str
    devices: tuple[str, ...]
    of: int
    moved: tuple[Movement, ...]
    loss: float | None
    severity: Literal["info", "warning", "critical"]
    title: str
    detail: str


class _Counts(msgspec.Struct):
    """One window of one device, reduced to what is compared."""

    rows: int
    counts: dict[str, Floats]
    totals: dict[str, float]
    confidence: tuple[float, int]


class Watch:
    """Follows the input channels of the devices of one model."""

    def __init__(self) -> None:
        self._edges: dict[str, dict[str, tuple[float, ...]]] = {}
        self._past: dict[str, list[_Counts]] = {}
        self._null: dict[str, float] = {}
        self._recent: dict[str, deque[_Counts]] = {}
        self._sd: dict[str, dict[str, float]] = {}

    def add(self, device: str, window: Window, baseline: Baseline) -> None:
        """Take one window in; other edges than before start a new past for the device."""
        edges = {
            name: channel.edges
            for name, channel in baseline.channels.items()
            if name.startswith("input.") and name in window.channels
        }
        if window.rows < 1 or not edges:
            return
        if self._edges.get(device) != edges:
            self._edges[device] = edges
            self._sd[device] = {name: baseline.channels[name].sd or 1.0 for name in edges}
            self._past[device] = []
            self._recent[device] = deque(maxlen=KEPT)
            self._null.pop(device, None)
        counts = _reduce(window, edges)
        past = self._past[device]
        if len(past) < REFERENCE:
            past.append(counts)
            if len(past) == REFERENCE:
                self._null[device] = _own_variation(past)
        self._recent[device].append(counts)

    def state(self, device: str, site: str) -> State:
        """How the device's recent windows compare with its own past."""
        recent = list(self._recent.get(device, ()))
        past = self._past.get(device, [])
        if len(past) < REFERENCE or len(recent) < BLOCK:
            return State(device, site, 0, (), None)
        limit = max(PSI_FLOOR, SAFETY * self._null[device])
        streak = 0
        moved: tuple[Movement, ...] = ()
        for end in range(len(recent), BLOCK - 1, -1):
            block = recent[end - BLOCK : end]
            found = self._movements(device, past, block, limit)
            if not found:
                break
            moved = moved or found
            streak += 1
        change = _confidence(recent[-BLOCK:]) - _confidence(past) if moved or recent else None
        return State(device, site, streak, moved, change)

    def _movements(
        self, device: str, past: Sequence[_Counts], block: Sequence[_Counts], limit: float
    ) -> tuple[Movement, ...]:
        if sum(c.rows for c in block) < MIN_ROWS:
            return ()
        found = []
        for channel in self._edges[device]:
            distance = psi(_pool(past, channel), _pool(block, channel))
            before, now = _mean(past, channel), _mean(block, channel)
            shift = (now - before) / self._sd[device][channel]
            if distance > limit and abs(shift) > EFFECT_FLOOR:
                found.append(Movement(channel, distance, shift, before, now))
        return tuple(sorted(found, key=lambda m: -m.psi))


def psi(reference: Floats, recent: Floats) -> float:
    """Population stability index of two count vectors on the same bins.

    `sum (q - p) ln(q / p)` (Siddiqi, Credit Risk Scorecards, 2006), with half a row added to every
    bin so that an empty one stays finite.

    >>> psi(np.array([50.0, 50.0]), np.array([50.0, 50.0]))
    0.0
    """
    p = (reference + 0.5) / (reference.sum() + 0.5 * len(reference))
    q = (recent + 0.5) / (recent.sum() + 0.5 * len(recent))
    return float(((q - p) * np.log(q / p)).sum())


def findings(states: Iterable[State]) -> list[Finding]:
    """Devices that moved, put together by cause: fleet, else site, else the device alone.

    A site moved if at least half of its devices (and two) did; the fleet, if more than half of the
    sites (and two) did.
    """
    everyone = list(states)
    sites: dict[str, list[State]] = {}
    for state in everyone:
        sites.setdefault(state.site, []).append(state)
    moved = {site: [s for s in members if s.streak >= STREAK] for site, members in sites.items()}
    whole = [site for site, found in moved.items() if len(found) >= max(2, len(sites[site]) / 2)]
    if len(whole) >= 2 and len(whole) > len(sites) / 2:
        together = [s for site in whole for s in moved[site]]
        return [_finding("fleet", together, len(everyone), everyone)]
    found = [
        _finding(f"site={site}", moved[site], len(sites[site]), everyone) for site in sorted(whole)
    ]
    alone = [s for site, members in moved.items() if site not in whole for s in members]
    found += [_finding(f"device={s.device}", [s], 1, everyone) for s in alone if s.streak >= ALONE]
    return found


def _finding(scope: str, moved: Sequence[State], of: int, everyone: Sequence[State]) -> Finding:
    names = {s.device for s in moved}
    by_channel: dict[str, list[Movement]] = {}
    for state in moved:
        for movement in state.moved:
            by_channel.setdefault(movement.channel, []).append(movement)
    typical = sorted(
        (_typical(found) for found in by_channel.values() if len(found) * 2 >= len(moved)),
        key=lambda m: -abs(m.shift),
    )
    loss = _loss(moved, [s for s in everyone if s.device not in names])
    first = typical[0]
    name = first.channel.removeprefix("input.")
    direction = "fell" if first.shift < 0 else "rose"
    where = scope.replace("=", " ")
    title = (
        f"data drift at {where}: {name} {direction} from {first.before:.3g} to {first.now:.3g} "
        f"({first.shift:+.1f} sd) on {len(moved)} of {of} devices"
    )
    cost = (
        f"estimated loss of accuracy {100 * loss:.0f} points"
        if loss is not None
        else "no estimate of its cost yet"
    )
    others = ", ".join(
        f"{m.channel.removeprefix('input.')} {m.shift:+.1f} sd" for m in typical[1:4]
    )
    elsewhere = len(everyone) - len(moved)
    detail = (
        f"{cost}; also moved: {others or 'nothing'}; PSI {first.psi:.2f}; "
        f"{elsewhere} other devices did not move this way, whatever version they run"
    )
    return Finding(
        scope=scope,
        devices=tuple(sorted(names)),
        of=of,
        moved=tuple(typical),
        loss=loss,
        severity=_severity(loss),
        title=title,
        detail=detail,
    )


def _severity(loss: float | None) -> Literal["info", "warning", "critical"]:
    if loss is None or loss < LOSS_WARNING:
        return "info"
    return "critical" if loss >= LOSS_CRITICAL else "warning"


def _loss(moved: Sequence[State], rest: Sequence[State]) -> float | None:
    """Fall of mean confidence on the moved devices beyond the others' (median each)."""
    here = [s.confidence_change for s in moved if s.confidence_change is not None]
    there = [s.confidence_change for s in rest if s.confidence_change is not None]
    if not here:
        return None
    return max(0.0, (float(np.median(there)) if there else 0.0) - float(np.median(here)))


def _typical(found: Sequence[Movement]) -> Movement:
    middle = {
        field: float(np.median([getattr(m, field) for m in found]))
        for field in ("psi", "shift", "before", "now")
    }
    return Movement(found[0].channel, **middle)


def _reduce(window: Window, edges: Mapping[str, tuple[float, ...]]) -> _Counts:
    confidence = window.channels.get("output.confidence")
    return _Counts(
        rows=window.rows,
        counts={name: np.array(window.channels[name].counts, dtype=float) for name in edges},
        totals={name: window.channels[name].total for name in edges},
        confidence=(confidence.total, confidence.rows) if confidence else (0.0, 0),
    )


def _pool(windows: Sequence[_Counts], channel: str) -> Floats:
    pooled: Floats = np.sum([w.counts[channel] for w in windows], axis=0)
    return pooled


def _mean(windows: Sequence[_Counts], channel: str) -> float:
    rows = sum(float(w.counts[channel].sum()) for w in windows)
    return sum(w.totals[channel] for w in windows) / rows if rows else 0.0


def _confidence(windows: Sequence[_Counts]) -> float:
    rows = sum(w.confidence[1] for w in windows)
    return sum(w.confidence[0] for w in windows) / rows if rows else 0.0


def _own_variation(past: Sequence[_Counts]) -> float:
    """The largest distance, over channels, of any run of `BLOCK` past windows from the others."""
    worst = 0.0
    for start in range(len(past) - BLOCK + 1):
        block = past[start : start + BLOCK]
        rest = [*past[:start], *past[start + BLOCK :]]
        worst = max(worst, *(psi(_pool(rest, c), _pool(block, c)) for c in past[0].counts))
    return worst
