"""From windows to one change a device: its own past taken off, with how sure that is. Pure, numpy.

Everything is an array over the devices of a rollout, or over their windows with the device's index.
"""

import msgspec
import numpy as np
from numpy.typing import NDArray

from fleet_server.evidence.gates import MEASURES, OF_A_SHADOW, Kind, Metric

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
TINY = 1e-12
NOBODY = np.zeros(0, dtype=np.int64)


class Points(msgspec.Struct, frozen=True):
    """One metric's windows.

    Attributes:
        device: index of the device, by window; windows of a device in the order of time.
        now: whether it belongs to the time that is judged; else to the device's past.
        value: the window's mean or share.
        rows: inferences behind it.
    """

    device: Ints
    now: Bools
    value: Floats
    rows: Floats


class Changes(msgspec.Struct, frozen=True):
    """What changed, by device.

    Attributes:
        value: mean now minus mean of the past; of logarithms for a ratio; of a shadow the level.
        variance: of that value, as the windows' own scatter implies.
        past, windows: how many windows stand on each side.
        level: mean now.
        failed: of crashes, the devices in the order in which they had one more than in all their
            past.
    """

    value: Floats
    variance: Floats
    past: Ints
    windows: Ints
    level: Floats
    failed: Ints


def changes(metric: Metric, points: Points, devices: int) -> Changes:
    """Sum the windows of each device up."""
    kind = MEASURES[metric][1]
    now, now_variance, windows = _side(kind, points, points.now, devices)
    if metric in OF_A_SHADOW:
        return Changes(now, now_variance, windows, windows, now, NOBODY)
    past, past_variance, before = _side(kind, points, ~points.now, devices)
    failed = _failed(points, devices) if kind == "hazard" else NOBODY
    return Changes(now - past, now_variance + past_variance, before, windows, now, failed)


def _failed(points: Points, devices: int) -> Ints:
    """Devices by the moment at which more happened to them than in all their past."""
    hit = points.value > 0
    before = np.bincount(points.device[hit & ~points.now], minlength=devices)
    later = points.device[hit & points.now]
    order = np.argsort(later, kind="stable")
    counts = np.bincount(later, minlength=devices)
    nth = np.empty(len(later), dtype=np.int64)
    nth[order] = np.arange(len(later)) - (np.cumsum(counts) - counts)[later[order]]
    return np.asarray(later[nth == before[later]], dtype=np.int64)


def _side(kind: Kind, points: Points, mask: Bools, devices: int) -> tuple[Floats, Floats, Ints]:
    """Mean of each device, the variance of that mean, and its number of windows."""
    device, rows = points.device[mask], points.rows[mask]
    value = points.value[mask]
    if kind == "ratio":
        value = np.log(np.maximum(value, TINY))
    count = np.bincount(device, minlength=devices)
    weight = np.maximum(np.bincount(device, rows, devices), TINY)
    mean = np.bincount(device, rows * value, devices) / weight
    spread = np.bincount(device, rows * (value - mean[device]) ** 2, devices) / weight
    if kind == "share":  # nothing seen is not proof of none: Laplace's rule, over all devices
        share = (float((mean * weight).sum()) + 1) / (float(weight.sum()) + 2)
        spread = np.maximum(spread, share * (1 - share) * count / weight)
    return mean, spread / np.maximum(count - 1, 1), count
