"""Where the ends of an activation's range are put, from how its values are spread. Pure.

Min-max keeps every value and so lets one outlier coarsen all others; these two cut outliers off.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.float64]
BINS = 2048
CUT = 1e-3  # of the values, left out at each end by `percentile`
_LEVELS = 255  # steps of int8
_TRIES = np.linspace(0.3, 1.0, 36)  # shares of the whole range


def narrowed(
    counts: Counts, low: float, high: float, how: Literal["percentile", "mse"]
) -> tuple[float, float]:
    """A range within `low` to `high`, which `counts` (bins,) of values divide evenly.

    >>> counts = np.array([0.0, 98.0, 0.0, 0.0, 0.0, 0.0, 0.0, 2.0])
    >>> narrowed(counts, 0.0, 8.0, "mse")[1] < 8.0
    True
    """
    if high <= low or not counts.sum():
        return low, high
    return _percentile(counts, low, high) if how == "percentile" else _mse(counts, low, high)


def _percentile(counts: Counts, low: float, high: float) -> tuple[float, float]:
    edges = np.linspace(low, high, len(counts) + 1)
    share = np.cumsum(counts) / counts.sum()
    first = int(np.searchsorted(share, CUT, side="right"))
    last = int(np.searchsorted(share, 1 - CUT, side="left"))
    return float(edges[first]), float(edges[max(last, first) + 1])


def _mse(counts: Counts, low: float, high: float) -> tuple[float, float]:
    """The shrunken range with the least squared error of rounding and of cutting off."""
    edges = np.linspace(low, high, len(counts) + 1)
    values = (edges[1:] + edges[:-1]) / 2
    errors = []
    for share in _TRIES:
        bottom, top = min(low, 0.0) * share, max(high, 0.0) * share
        step = (top - bottom) / _LEVELS
        stored = np.clip(np.round((values - bottom) / step), 0, _LEVELS) * step + bottom
        errors.append(float((counts * (stored - values) ** 2).sum()))
    best = float(_TRIES[int(np.argmin(errors))])
    return low * best if low < 0 else low, high * best if high > 0 else high
