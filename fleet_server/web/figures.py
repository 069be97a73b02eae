"""PURE: values as a person reads them, and the little drawings, as numbers for SVG attributes.

The content security policy forbids inline styles, so every width on the page is an SVG attribute.
"""

import math
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

import msgspec

from fleet_server.evidence.gates import MEASURES, RATIOS
from fleet_server.views import DeviceRow, GateRow, Overview

COLOURS = 6
MAX_DEVICES = 200
MINUS, TIMES, DASH = "\N{MINUS SIGN}", "\N{MULTIPLICATION SIGN}", "\N{EN DASH}"
_UNITS = (("s", 60.0), ("min", 60.0), ("h", 24.0), ("d", math.inf))


def span(seconds: float) -> str:
    """A length of time in its largest whole unit.

    >>> span(0.2), span(12), span(119), span(7200), span(200_000)
    ('now', '12 s', '1 min', '2 h', '2 d')
    """
    if seconds < 1:
        return "now"
    value = seconds
    for unit, size in _UNITS:
        if value < size:
            return f"{int(value)} {unit}"
        value /= size
    raise ValueError(f"{seconds} is no length of time")


def ago(seconds: float) -> str:
    """How long something is past; a moment that the two clocks dispute is now."""
    words = span(max(seconds, 0.0))
    return words if words == "now" else f"{words} ago"


def iso(at: float) -> str:
    """Unix seconds as ISO 8601 in UTC.

    >>> iso(0)
    '1970-01-01T00:00:00Z'
    """
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def size(length: int) -> str:
    """Bytes in a unit that keeps the number short.

    >>> size(999), size(123_456), size(4_000_000)
    ('999 B', '123 kB', '4.0 MB')
    """
    if length < 1000:
        return f"{length} B"
    return f"{length / 1000:.0f} kB" if length < 1_000_000 else f"{length / 1e6:.1f} MB"


def points(share: float) -> str:
    """A change of a share in percentage points.

    >>> points(0.0), points(0.01)
    ('0.00 pp', '+1.00 pp')
    """
    value = round(100 * share, 2) + 0.0
    return f"{value:{'+' if value else ''}.2f} pp".replace("-", MINUS)


def change(metric: str, value: float | None) -> str:
    """A gate's number in its metric's unit; a ratio comes as its logarithm."""
    if value is None:
        return DASH
    kind = MEASURES[metric][1] if metric in MEASURES else "level"
    if kind in RATIOS:
        return f"{TIMES}{math.exp(value):.2f}"
    return points(value) if kind == "share" else f"{value:+.3f}".replace("-", MINUS)


class Segment(msgspec.Struct, frozen=True):
    """A piece of the bar of running versions, in percent of its width; colour None is nothing."""

    label: str
    devices: int
    start: float
    width: float
    colour: int | None


def running_bar(overview: Overview) -> tuple[Segment, ...]:
    """What the fleet runs, oldest version first, so that a rollout grows from the right.

    A version keeps its colour while others come and go: it follows the order of publishing.
    """
    counts = {(model, version): devices for model, version, devices in overview.running}
    published: dict[tuple[str, str], float] = {}
    for row in overview.versions:
        key = (row.model, row.version)
        published[key] = min(row.published_at, published.get(key, row.published_at))
    order = sorted({*published, *counts}, key=lambda key: (published.get(key, math.inf), key))
    pieces = [
        (" ".join(key), counts[key], order.index(key) % COLOURS) for key in order if key in counts
    ]
    idle = overview.total - sum(counts.values())
    return _segments([*pieces, ("nothing yet", idle, None)])


def _segments(pieces: Iterable[tuple[str, int, int | None]]) -> tuple[Segment, ...]:
    present = [piece for piece in pieces if piece[1] > 0]
    total = sum(devices for _, devices, _ in present)
    segments = []
    start = 0.0
    for label, devices, colour in present:
        width = 100 * devices / total
        segments.append(Segment(label, devices, round(start, 2), round(width, 2), colour))
        start += width
    return tuple(segments)


class Plot(msgspec.Struct, frozen=True):
    """A gate's interval against its limit, all in percent of the drawing's width.

    Attributes:
        harm_start, harm_width: the side of the limit where the difference means harm.
    """

    zero: float
    limit: float
    low: float
    high: float
    difference: float
    harm_start: float
    harm_width: float


def interval_plot(gate: GateRow) -> Plot | None:
    """The drawing of one gate; None where there is no interval."""
    if gate.difference is None or gate.low is None or gate.high is None:
        return None
    values = (0.0, gate.limit, gate.low, gate.high, gate.difference)
    if not all(map(math.isfinite, values)):
        return None
    margin = 0.06 * ((max(values) - min(values)) or 1.0)
    left, width = min(values) - margin, max(values) - min(values) + 2 * margin
    zero, limit, low, high, difference = (round(100 * (v - left) / width, 2) for v in values)
    harm_left = gate.limit < 0
    return Plot(
        zero=zero,
        limit=limit,
        low=low,
        high=high,
        difference=difference,
        harm_start=0.0 if harm_left else limit,
        harm_width=limit if harm_left else round(100 - limit, 2),
    )


def shown_devices(devices: Sequence[DeviceRow]) -> Sequence[DeviceRow]:
    """As many as one page bears; if not all, those first that need a look."""
    if len(devices) <= MAX_DEVICES:
        return devices
    return sorted(devices, key=_calm)[:MAX_DEVICES]


def _calm(row: DeviceRow) -> bool:
    return (
        row.health == "live"
        and not row.drifting
        and row.phase == "confirmed"
        and row.wanted == row.running
    )


def curve(values: Sequence[tuple[float, float]]) -> str:
    """The points of an SVG polyline 100 wide and 30 high, from (time, value); empty below two.

    >>> curve([(0.0, 1.0), (10.0, 3.0)])
    '0.0,30.0 100.0,0.0'
    """
    if len(values) < 2:
        return ""
    first, last = values[0][0], values[-1][0]
    low, high = min(v for _, v in values), max(v for _, v in values)
    return " ".join(
        f"{100 * (at - first) / ((last - first) or 1):.1f},"
        f"{30 - 30 * (value - low) / ((high - low) or 1):.1f}"
        for at, value in values
    )
