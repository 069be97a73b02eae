"""Stored windows and labels as the points of a metric. Pure, numpy."""

import sys
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from fleet_server.evidence.changes import Bools, Floats, Ints, Points
from fleet_server.evidence.gates import Metric
from fleet_server.evidence.measures import Measures, read_measures
from fleet_server.records import WindowRecord

Names = NDArray[np.object_]


class Columns(msgspec.Struct, frozen=True):
    """Windows in the order in which they were stored, as arrays; NaN is what one does not tell.

    Attributes:
        version, shadow: of the model that answered, and of the one beside it; "" if none was.
        boot: a number for the process start that sent it.
        values: by metric, the value and the rows behind it.
        classes: answers, windows x classes.
    """

    device: Ints
    at: Floats
    version: Names
    shadow: Names
    boot: Ints
    values: dict[Metric, tuple[Floats, Floats]]
    classes: Floats

    def __len__(self) -> int:
        return len(self.at)


def columns(windows: Sequence[WindowRecord], index: Mapping[str, int]) -> Columns:
    """The windows of the devices in `index`, by their place in it."""
    kept = [w for w in windows if w.device in index]
    told = [read_measures(w.measures) for w in kept]
    return Columns(
        device=np.array([index[w.device] for w in kept], dtype=np.int64),
        at=_floats([w.received_at for w in kept]),
        version=np.array([sys.intern(w.version) for w in kept], dtype=np.object_),
        shadow=np.array([sys.intern(m.shadow) for m in told], dtype=np.object_),
        boot=np.array([hash(w.boot) for w in kept], dtype=np.int64),
        values=_values(kept, told),
        classes=_matrix([m.classes for m in told]),
    )


def joined(before: Columns, after: Columns) -> Columns:
    """All windows of both, those of `after` last."""
    wide = max(before.classes.shape[1], after.classes.shape[1])
    classes = [np.pad(c.classes, ((0, 0), (0, wide - c.classes.shape[1]))) for c in (before, after)]
    return Columns(
        device=np.concatenate([before.device, after.device]),
        at=np.concatenate([before.at, after.at]),
        version=np.concatenate([before.version, after.version]),
        shadow=np.concatenate([before.shadow, after.shadow]),
        boot=np.concatenate([before.boot, after.boot]),
        values={
            metric: (
                np.concatenate([value, after.values[metric][0]]),
                np.concatenate([rows, after.values[metric][1]]),
            )
            for metric, (value, rows) in before.values.items()
        },
        classes=np.concatenate(classes),
    )


def _values(
    windows: Sequence[WindowRecord], told: Sequence[Measures]
) -> dict[Metric, tuple[Floats, Floats]]:
    rows = _floats([w.rows for w in windows])
    errors = _floats([w.errors for w in windows])
    compared = _floats([m.compared for m in told])
    disagreed = _floats([m.disagreed for m in told])
    lead = _floats([m.lead if m.compared else np.nan for m in told])
    ones = np.ones(len(windows))
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "errors": (errors / (rows + errors), rows + errors),
            "confidence": (
                _told([w.confidence_mean for w in windows]),
                _floats([w.confidence_rows for w in windows]),
            ),
            "estimated accuracy": (
                _told([m.estimated for m in told]),
                _floats([w.confidence_rows for w in windows]),
            ),
            "latency": (_told([w.latency_mean for w in windows]), rows),
            "memory": (_floats([m.memory or np.nan for m in told]), ones),
            "temperature": (_told([m.temperature for m in told]), ones),
            "disagreement": (disagreed / compared, compared),
            "shadow confidence": (lead, compared),
            "shadow latency": (_floats([m.slower or np.nan for m in told]), compared),
        }


def points(metric: Metric, found: Columns, used: Bools, now: Bools) -> Points:
    """One metric of the windows that are `used`; `now` tells those that are judged."""
    if metric == "predictions":
        value, rows = _class_distance(found, used & ~now)
    elif metric == "crashes":
        value, rows = _restarted(found), np.ones(len(found))
    elif metric in found.values:
        value, rows = found.values[metric]
    else:
        value = rows = np.full(len(found), np.nan)
    kept = used & np.isfinite(value) & (rows > 0)
    return Points(found.device[kept], now[kept], value[kept], rows[kept])


def _class_distance(found: Columns, past: Bools) -> tuple[Floats, Floats]:
    """Total variation distance of each window's answers from its device's own past mix.

    A past window is held against the other past windows, so that both sides are equally strange.
    """
    rows = found.classes.sum(axis=1)
    if not len(found) or not rows.any():
        return np.full(len(found), np.nan), rows
    mix = np.zeros((int(found.device.max()) + 1, found.classes.shape[1]))
    np.add.at(mix, found.device[past], found.classes[past])
    others = mix[found.device] - found.classes * past[:, None]
    sums = others.sum(axis=1)
    known = (sums > 0) & (rows > 0)
    distance = np.full(len(found), np.nan)
    shares = found.classes[known] / rows[known, None] - others[known] / sums[known, None]
    distance[known] = np.abs(shares).sum(axis=1) / 2
    return distance, rows


def _restarted(found: Columns) -> Floats:
    """1 for a window whose boot is not that of the device's window before, else 0."""
    order = np.argsort(found.device, kind="stable")
    changed = (np.diff(found.boot[order]) != 0) & (np.diff(found.device[order]) == 0)
    restarts = np.zeros(len(found))
    restarts[order[1:]] = changed
    return restarts


def _told(values: Sequence[float | None]) -> Floats:
    return _floats([np.nan if value is None else value for value in values])


def _matrix(rows: Sequence[tuple[int, ...]]) -> Floats:
    wide = max((len(row) for row in rows), default=0)
    found = np.zeros((len(rows), wide))
    for number, row in enumerate(rows):
        found[number, : len(row)] = row
    return found


def _floats(values: Sequence[float]) -> Floats:
    return np.array(values, dtype=np.float64)
