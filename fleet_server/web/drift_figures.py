"""PURE: the drawings of a drift report as numbers for SVG attributes, in percent of the drawing."""

from collections.abc import Sequence

import msgspec

from fleet_server.drift_views import ChannelRow, TrendRow

FLOOR = 0.02  # of accuracy, kept free above and below the band


class Trend(msgspec.Struct, frozen=True):
    """Estimated accuracy over time.

    Attributes:
        line, band: points of the polyline and of the polygon of its interval, as SVG wants them.
        dots: (x, y) of accuracy counted on labels.
        low, high: accuracy at the bottom and the top of the drawing.
    """

    line: str
    band: str
    dots: tuple[tuple[float, float], ...]
    low: float
    high: float


class Bar(msgspec.Struct, frozen=True):
    """One bin: where it is, and how high both are."""

    x: float
    width: float
    before: float
    now: float


def trend_plot(rows: Sequence[TrendRow]) -> Trend | None:
    """The drawing; None where there is no estimate to draw."""
    known = [
        (row.start, row.accuracy.estimated, row.accuracy.low, row.accuracy.high)
        for row in rows
        if row.accuracy.estimated is not None
    ]
    values = [
        (at, value, value if low is None else low, value if high is None else high)
        for at, value, low, high in known
    ]
    if len(values) < 2:
        return None
    counted = [
        (row.start, row.accuracy.right / row.accuracy.labelled)
        for row in rows
        if row.accuracy.labelled
    ]
    bottom = max(0.0, min([v[2] for v in values] + [c[1] for c in counted]) - FLOOR)
    top = min(1.0, max([v[3] for v in values] + [c[1] for c in counted]) + FLOOR)
    begin, end = values[0][0], values[-1][0]

    def place(at: float, value: float) -> tuple[float, float]:
        x = 100 * (at - begin) / ((end - begin) or 1.0)
        return round(x, 2), round(100 * (top - value) / (top - bottom), 2)

    def path(points: Sequence[tuple[float, float]]) -> str:
        return " ".join(f"{x},{y}" for x, y in points)

    upper = [place(at, high) for at, _, _, high in values]
    lower = [place(at, low) for at, _, low, _ in reversed(values)]
    return Trend(
        line=path([place(at, value) for at, value, _, _ in values]),
        band=path([*upper, *lower]),
        dots=tuple(place(at, value) for at, value in counted),
        low=bottom,
        high=top,
    )


def bars(row: ChannelRow) -> tuple[Bar, ...]:
    """Reference against now, bin by bin, each in percent of the highest."""
    highest = max((*row.before, *row.now), default=0.0) or 1.0
    width = 100 / max(len(row.now), 1)
    return tuple(
        Bar(
            round(i * width, 2),
            round(width, 2),
            round(100 * b / highest, 2),
            round(100 * n / highest, 2),
        )
        for i, (b, n) in enumerate(zip(row.before, row.now, strict=True))
    )


def percent(value: float | None) -> str:
    """A share as people read it.

    >>> percent(0.8234)
    '82.3 %'
    """
    return "\N{EN DASH}" if value is None else f"{100 * value:.1f} %"
