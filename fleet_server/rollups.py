"""Windows added up by hour and by day, for each bundle, site and label set. Pure.

Sketches are additive, so what a month, a site or a version looked like is a sum over a few rows,
however many devices there are. A roll-up is kept in the commit that stores its windows.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import msgspec
from msgspec.structs import astuple

from edge_sdk.messages import Window
from edge_sdk.sketch import Sketch

Span = Literal["hour", "day"]
SECONDS: dict[Span, float] = {"hour": 3600.0, "day": 86400.0}
OLDEST = 60 * 86400.0  # a device may be away for weeks; a clock that is further off is wrong
AHEAD = 300.0  # what a clock may be fast


class Slice(msgspec.Struct, frozen=True):
    """Whose windows are added up.

    Attributes:
        site: the device's label `site`; "" without one.
        labels: its other labels, as sorted `name=value` separated by commas.
    """

    digest: str
    site: str
    labels: str


class Whereabouts(msgspec.Struct, frozen=True):
    """Where a device belongs: what splits of its model it counts in."""

    profile: str
    slice: Slice


class Key(msgspec.Struct, frozen=True):
    """One roll-up: a slice during the span that begins at `start`, Unix seconds (UTC)."""

    span: Span
    start: float
    slice: Slice


class Sums(msgspec.Struct):
    """Several windows of one bundle as one.

    Attributes:
        skew: rows that did not fit the input schema, by reason.
        channels: added sketches by channel name.
    """

    windows: int = 0
    seconds: float = 0.0
    rows: int = 0
    errors: int = 0
    dropped: int = 0
    skew: dict[str, int] = {}
    channels: dict[str, Sketch] = {}
    format: int = 1


def slice_of(digest: str, labels: Mapping[str, str]) -> Slice:
    """The slice of a device with these labels.

    >>> slice_of("d", {"site": "north", "lens": "wide", "floor": "2"})
    Slice(digest='d', site='north', labels='floor=2,lens=wide')
    """
    others = sorted(f"{k}={v}" for k, v in labels.items() if k != "site")
    return Slice(digest, labels.get("site", ""), ",".join(others))


def each_label(labels: str) -> list[str]:
    """The single labels of a slice; one that is empty if it has none.

    >>> each_label("floor=2,lens=wide"), each_label("")
    (['floor=2', 'lens=wide'], [''])
    """
    return re.split(r",(?=[^,=]+=)", labels)


def taken_at(received_at: float, wall: float) -> float:
    """When a window was taken: by the device's clock if that is believable, else by ours.

    >>> taken_at(1_000_000_000.0, 999_990_000.0), taken_at(1_000_000_000.0, 0.0)
    (999990000.0, 1000000000.0)
    """
    return wall if received_at - OLDEST <= wall <= received_at + AHEAD else received_at


def keys_of(at: float, whose: Slice) -> list[Key]:
    """The roll-ups that a window taken at `at` belongs to: of its hour, and of its day."""
    return [Key(span, at - at % seconds, whose) for span, seconds in SECONDS.items()]


def hour_of(at: float) -> float:
    """When the hour began, Unix seconds."""
    return at - at % SECONDS["hour"]


def by_hour_and_day(hours: Mapping[tuple[Slice, float], Sequence[Window]]) -> dict[Key, Sums]:
    """The roll-ups of windows that are sorted by slice and hour; a day's are those of its hours."""
    found: dict[Key, Sums] = {}
    days: dict[Key, list[Sums]] = {}
    for (whose, start), windows in hours.items():
        hour, day = keys_of(start, whose)
        found[hour] = sums(windows)
        days.setdefault(day, []).append(found[hour])
    return found | {key: together(parts) for key, parts in days.items()}


def sums(windows: Sequence[Window]) -> Sums:
    """Windows of one bundle added up."""
    names = dict.fromkeys(name for window in windows for name in window.channels)
    return Sums(
        windows=len(windows),
        seconds=sum(w.seconds for w in windows),
        rows=sum(w.rows for w in windows),
        errors=sum(w.errors for w in windows),
        dropped=sum(w.dropped for w in windows),
        skew=_counted(w.skew for w in windows),
        channels={
            name: added([w.channels[name] for w in windows if name in w.channels]) for name in names
        },
    )


def together(parts: Sequence[Sums]) -> Sums:
    """Several sums as one."""
    names = dict.fromkeys(name for part in parts for name in part.channels)
    return Sums(
        windows=sum(p.windows for p in parts),
        seconds=sum(p.seconds for p in parts),
        rows=sum(p.rows for p in parts),
        errors=sum(p.errors for p in parts),
        dropped=sum(p.dropped for p in parts),
        skew=_counted(p.skew for p in parts),
        channels={
            name: added([p.channels[name] for p in parts if name in p.channels]) for name in names
        },
    )


def less(whole: Sums, part: Sums) -> Sums:
    """What is left of a sum without a part of it.

    The smallest and largest values of channels stay: whose they were is not known.
    """
    return Sums(
        windows=whole.windows - part.windows,
        seconds=whole.seconds - part.seconds,
        rows=whole.rows - part.rows,
        errors=whole.errors - part.errors,
        dropped=whole.dropped - part.dropped,
        skew={k: n for k, v in whole.skew.items() if (n := v - part.skew.get(k, 0)) > 0},
        channels={
            name: _less(channel, part.channels[name]) if name in part.channels else channel
            for name, channel in whole.channels.items()
        },
    )


def _less(whole: Sketch, part: Sketch) -> Sketch:
    return Sketch(
        [max(a - b, 0) for a, b in zip(whole.counts, part.counts, strict=True)],
        rows=max(whole.rows - part.rows, 0),
        missing=max(whole.missing - part.missing, 0),
        total=whole.total - part.total,
        squares=max(whole.squares - part.squares, 0.0),
        low=whole.low,
        high=whole.high,
    )


def added(sketches: Sequence[Sketch]) -> Sketch:
    """Many sketches on the same edges as one.

    >>> one = Sketch([1, 2], 3, 0, 6.0, 14.0, 1.0, 3.0)
    >>> added([one, Sketch([0, 1], 1, 1, 4.0, 16.0, 4.0, 4.0)])
    Sketch(counts=[1, 3], rows=4, missing=1, total=10.0, squares=30.0, low=1.0, high=4.0)
    """
    if len(sketches) == 1:
        return sketches[0]
    counts, rows, missing, total, squares, *_ = zip(*map(astuple, sketches), strict=True)
    filled = sketches if all(rows) else [s for s in sketches if s.rows]
    return Sketch(
        [*map(sum, zip(*counts, strict=True))],  # in lists of ints faster than by way of numpy
        rows=sum(rows),
        missing=sum(missing),
        total=sum(total),
        squares=sum(squares),
        low=min((s.low for s in filled), default=0.0),
        high=max((s.high for s in filled), default=0.0),
    )


def _counted(parts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for part in parts:
        for name, count in part.items():
            total[name] = total.get(name, 0) + count
    return total
