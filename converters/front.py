"""The Pareto front of a conversion: what can't be had smaller without losing accuracy. Pure.

All candidates that were measured take part, also those that a board's gate refuses. Drawn as one
SVG picture that stands alone.
"""

import itertools
import math
from collections.abc import Sequence
from html import escape

import msgspec

from converters.result import Candidate, Conversion

WIDTH, HEIGHT = 760, 440
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 230, 46, 52
_LINE = 14  # of labels
_FAR = 6.0  # times the allowed drop: what loses more is drawn at the lower edge
_STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#333}.title{font-size:15px;font-weight:600}"
    ".grid{stroke:#ddd}.float{stroke:#888;stroke-dasharray:5 4}.lead{stroke:#ccc}"
    ".front{fill:none;stroke:#0b6;stroke-width:2}.on{fill:#0b6}.off{fill:#aaa}.dim{fill:#777}"
)


class Point(msgspec.Struct, frozen=True):
    """One candidate: compressed size and accuracy."""

    name: str
    bytes: int
    accuracy: float


def points(candidates: Sequence[Candidate]) -> list[Point]:
    """The candidates that were measured."""
    return [
        Point(one.recipe, one.measurement.compressed_bytes, one.measurement.metrics.accuracy)
        for one in candidates
        if one.measurement is not None
    ]


def front(candidates: Sequence[Point]) -> list[Point]:
    """Those than which no other is both no larger and no worse; the smallest first.

    >>> [p.name for p in front([Point("a", 10, 0.9), Point("b", 20, 0.8), Point("c", 30, 0.95)])]
    ['a', 'c']
    """
    best: list[Point] = []
    for point in sorted(candidates, key=lambda p: (p.bytes, -p.accuracy, p.name)):
        if not best or point.accuracy > best[-1].accuracy:
            best.append(point)
    return best


def picture(conversion: Conversion) -> str:
    """Accuracy over compressed size as SVG, the front as a line, the float model dashed."""
    found = points(conversion.candidates)
    title = escape(f"{conversion.name} {conversion.version}: quality over compressed size")
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{title}"><style>{_STYLE}</style>'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>'
        f'<text class="title" x="{_LEFT}" y="24">{title}</text>'
    )
    if not found:
        return f'{head}<text x="{_LEFT}" y="80">no candidate was measured</text></svg>\n'
    metrics = next(one.measurement.metrics for one in conversion.candidates if one.measurement)
    reference, quality = metrics.float_accuracy, metrics.quality
    heights = [reference, *(p.accuracy for p in found)]
    floor = max(min(heights), reference - _FAR * conversion.max_drop)
    scale = _Scale(_ticks(0, max(p.bytes for p in found)), _ticks(floor, max(heights)))
    parts = [head, *_grid(scale, quality), *_front(scale, found), *_marks(scale, found, reference)]
    return "".join([*parts, "</svg>\n"])


class _Scale(msgspec.Struct, frozen=True):
    """Where values are on the picture."""

    x_ticks: tuple[float, ...]
    y_ticks: tuple[float, ...]

    def x(self, value: float) -> float:
        low, high = self.x_ticks[0], self.x_ticks[-1]
        return _LEFT + (value - low) / (high - low) * (WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        low, high = self.y_ticks[0], self.y_ticks[-1]
        value = max(value, low)
        return HEIGHT - _BOTTOM - (value - low) / (high - low) * (HEIGHT - _TOP - _BOTTOM)


def _ticks(low: float, high: float) -> tuple[float, ...]:
    """Four to nine round values that enclose a range.

    >>> _ticks(0, 78_000)
    (0.0, 20000.0, 40000.0, 60000.0, 80000.0)
    >>> _ticks(0.75, 0.77)
    (0.75, 0.755, 0.76, 0.765, 0.77)
    """
    span = max(high - low, abs(high) * 1e-3, 1e-6)
    size = 10.0 ** math.floor(math.log10(span))
    step = next(size * part for part in (0.1, 0.2, 0.25, 0.5, 1, 2) if span / (size * part) <= 6)
    first = math.floor(low / step + 1e-6)
    last = max(math.ceil(high / step - 1e-6), first + 1)
    return tuple(round(i * step, 10) for i in range(first, last + 1))


def _grid(scale: _Scale, quality: str) -> list[str]:
    right, bottom = WIDTH - _RIGHT, HEIGHT - _BOTTOM
    parts = []
    for value in scale.y_ticks:
        y = scale.y(value)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{value:.4g}</text>')
    for value in scale.x_ticks:
        x = scale.x(value)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{bottom}"/>')
        parts.append(
            f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{value / 1000:g}</text>'
        )
    middle = (_LEFT + right) / 2
    return [
        *parts,
        f'<text class="dim" x="{middle:.0f}" y="{bottom + 38}" text-anchor="middle">'
        "compressed size, thousand bytes</text>",
        f'<text class="dim" x="{_LEFT - 8}" y="{_TOP - 8}" text-anchor="end">{quality}</text>',
    ]


def _front(scale: _Scale, found: list[Point]) -> list[str]:
    """What is to be had up to a size, as steps."""
    best = front(found)
    steps = [f"{scale.x(best[0].bytes):.1f},{scale.y(best[0].accuracy):.1f}"]
    for before, after in itertools.pairwise(best):
        steps.append(f"{scale.x(after.bytes):.1f},{scale.y(before.accuracy):.1f}")
        steps.append(f"{scale.x(after.bytes):.1f},{scale.y(after.accuracy):.1f}")
    return [f'<polyline class="front" points="{" ".join(steps)}"/>']


def _marks(scale: _Scale, found: list[Point], reference: float) -> list[str]:
    """Each candidate with its name at the right margin, where no two overlap; the float's line."""
    right, line = WIDTH - _RIGHT, scale.y(reference)
    parts = [f'<line class="float" x1="{_LEFT}" x2="{right}" y1="{line:.1f}" y2="{line:.1f}"/>']
    best = {(point.bytes, point.accuracy) for point in front(found)}
    labels = [(line, float(right), f"float model {reference:.4f}", "dim")]
    for point in found:
        x, y = scale.x(point.bytes), scale.y(point.accuracy)
        kind = "on" if (point.bytes, point.accuracy) in best else "off"
        parts.append(f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="5"/>')
        far = f" ({point.accuracy:.4f})" if point.accuracy < scale.y_ticks[0] else ""
        labels.append((y, x + 5, f"{point.name}{far}", "word"))
    labels.sort(key=lambda one: (one[0], -one[1]))
    places = _apart([y for y, *_ in labels])
    leads = [
        f'<line class="lead" x1="{x:.1f}" y1="{y:.1f}" x2="{right + 10}" y2="{place:.1f}"/>'
        for (y, x, *_), place in zip(labels, places, strict=True)
    ]
    words = [
        f'<text class="{kind}" x="{right + 14}" y="{place + 4:.1f}">{escape(text)}</text>'
        for (*_, text, kind), place in zip(labels, places, strict=True)
    ]
    return [*leads, *parts, *words]


def _apart(wanted: list[float]) -> list[float]:
    """Heights in the same order, a line or more apart where there is room, near those wanted.

    >>> _apart([100.0, 100.0, 300.0])
    [100.0, 114.0, 300.0]
    """
    gap = min(_LINE, (HEIGHT - _TOP) / len(wanted))
    found: list[float] = []
    for height in wanted:
        found.append(max(height, found[-1] + gap) if found else height)
    limit = float(HEIGHT - gap / 2)
    for i in reversed(range(len(found))):  # what went over the edge goes back up
        found[i] = limit = min(found[i], limit)
        limit -= gap
    return found
