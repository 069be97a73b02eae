"""Small SVG charts for the report: lines, stacked steps, marks. Strings in, a string out."""

from collections.abc import Mapping, Sequence
from html import escape

import msgspec

WIDTH, HEIGHT = 760, 260
LEFT, RIGHT, TOP, BOTTOM = 52, 150, 14, 34
COLOURS = ("#2f6fb5", "#d9822b", "#3a9a5b", "#b5476f", "#7a5fc0", "#8a8a8a")

Points = Sequence[tuple[float, float]]


class Mark(msgspec.Struct, frozen=True):
    """A moment worth a vertical line."""

    at: float
    label: str


class Frame(msgspec.Struct, frozen=True):
    """The value ranges of a chart, and where a value lies on it."""

    x: tuple[float, float]
    y: tuple[float, float]

    def at(self, x: float, y: float) -> tuple[float, float]:
        width, height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
        across = (x - self.x[0]) / ((self.x[1] - self.x[0]) or 1)
        up = (y - self.y[0]) / ((self.y[1] - self.y[0]) or 1)
        return LEFT + across * width, TOP + (1 - up) * height


def lines(series: Mapping[str, Points], marks: Sequence[Mark], unit: str) -> str:
    """Lines over seconds; the y axis covers the data with some air."""
    values = [y for points in series.values() for _, y in points]
    if not values:
        return "<p>no data</p>"
    air = 0.08 * ((max(values) - min(values)) or 1)
    frame = _frame(series, (min(values) - air, max(values) + air))
    body = []
    for (name, points), colour in zip(series.items(), COLOURS, strict=False):
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (frame.at(*p) for p in points))
        body.append(
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2">'
            f"<title>{escape(name)}</title></polyline>"
        )
    return _chart(frame, body, list(series), marks, unit)


def stacked_steps(series: Mapping[str, Points], marks: Sequence[Mark], unit: str) -> str:
    """Counts over seconds, one on top of the other; each point holds until the next."""
    times = sorted({x for points in series.values() for x, _ in points})
    if not times:
        return "<p>no data</p>"
    floor = dict.fromkeys(times, 0.0)
    body = []
    layers = []
    for name, points in series.items():
        at = dict(points)
        top = {t: floor[t] + at.get(t, 0.0) for t in times}
        layers.append((name, dict(floor), top))
        floor = top
    frame = _frame(series, (0.0, max(floor.values()) or 1.0))
    for (name, low, high), colour in zip(layers, COLOURS, strict=False):
        upper = _steps(frame, times, high)
        lower = _steps(frame, times, low)[::-1]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in upper + lower)
        body.append(
            f'<polygon points="{path}" fill="{colour}"><title>{escape(name)}</title></polygon>'
        )
    return _chart(frame, body, list(series), marks, unit)


def _frame(series: Mapping[str, Points], y: tuple[float, float]) -> Frame:
    times = [x for points in series.values() for x, _ in points]
    return Frame((min(times), max(times)), y)


def _steps(
    frame: Frame, times: Sequence[float], level: Mapping[float, float]
) -> list[tuple[float, float]]:
    found = []
    for now, following in zip(times, [*times[1:], times[-1]], strict=True):
        found += [frame.at(now, level[now]), frame.at(following, level[now])]
    return found


def _chart(
    frame: Frame, body: Sequence[str], names: Sequence[str], marks: Sequence[Mark], unit: str
) -> str:
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(unit)} over time">'
    ]
    for step in range(5):
        value = frame.y[0] + step / 4 * (frame.y[1] - frame.y[0])
        _, y = frame.at(frame.x[0], value)
        parts.append(
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" class="g"/>'
        )
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:.3g}</text>')
    for step in range(6):
        value = frame.x[0] + step / 5 * (frame.x[1] - frame.x[0])
        x, _ = frame.at(value, frame.y[0])
        parts.append(
            f'<text x="{x:.1f}" y="{HEIGHT - 14}" text-anchor="middle">{value:.0f} s</text>'
        )
    parts += body
    for mark in marks:
        x, _ = frame.at(mark.at, frame.y[0])
        parts.append(
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}" class="m"/>'
        )
        parts.append(
            f'<text transform="translate({x + 4:.1f},{TOP + 4}) rotate(90)">'
            f"{escape(mark.label)}</text>"
        )
    for row, (name, colour) in enumerate(zip(names, COLOURS, strict=False)):
        y = TOP + 6 + row * 18
        parts.append(
            f'<rect x="{WIDTH - RIGHT + 12}" y="{y}" width="11" height="11" fill="{colour}"/>'
            f'<text x="{WIDTH - RIGHT + 28}" y="{y + 10}">{escape(name)}</text>'
        )
    parts.append(f'<text x="{LEFT}" y="{TOP - 3}">{escape(unit)}</text></svg>')
    return "".join(parts)
