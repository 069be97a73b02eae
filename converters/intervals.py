"""Differences of two models on the same rows, with 95 % intervals. Pure."""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_Z = 1.959964  # two-sided 95 %
_RESAMPLES, _SEED = 400, 1


def paired_drop(before: int, after: int, rows: int) -> tuple[float, float, float]:
    """The drop of accuracy with its 95 % interval, from the rows on which two models differ.

    The interval is Bonett and Price's adjusted Wald interval for a difference of paired proportions
    (Journal of Educational and Behavioral Statistics 37, 2012): one row is added to each kind
    of difference, so that no difference in few rows does not pass for certainty.

    Args:
        before: rows that only the first model has right.
        after: rows that only the second model has right.
        rows: all rows, those on which both agree included.

    >>> drop, low, high = paired_drop(12, 8, 1000)
    >>> f"{drop:.4f} [{low:+.4f}, {high:+.4f}]"
    '0.0040 [-0.0052, +0.0132]'
    """
    lost, won = (before + 1) / (rows + 2), (after + 1) / (rows + 2)
    half = _Z * math.sqrt((lost + won - (lost - won) ** 2) / (rows + 2))
    return (before - after) / rows, lost - won - half, lost - won + half


def paired_mean(differences: Floats) -> tuple[float, float, float]:
    """The mean of one difference a row (n,), with its normal 95 % interval."""
    mean = float(differences.mean())
    spread = float(differences.std(ddof=1)) if len(differences) > 1 else 0.0
    half = _Z * spread / math.sqrt(len(differences))
    return mean, mean - half, mean + half


def bootstrapped(change: Callable[[Floats], float], rows: int) -> tuple[float, float, float]:
    """A change with its 95 % percentile interval over resampled rows (the same on every run).

    Args:
        change: of rows that count as often as their weights (rows,) say.
        rows: how many there are.
    """
    rng = np.random.default_rng(_SEED)
    even = np.full(rows, 1 / rows)
    found = [change(rng.multinomial(rows, even).astype(np.float64)) for _ in range(_RESAMPLES)]
    low, high = np.quantile([value for value in found if math.isfinite(value)] or [0.0, 0.0],
                            [0.025, 0.975])  # fmt: skip
    return change(np.ones(rows)), float(low), float(high)


def auc(scores: Floats, positive: NDArray[np.bool_]) -> Callable[[Floats], float]:
    """The area under the ROC curve of weighted rows, ties counted half; NaN of one class alone.

    >>> auc(np.array([0.1, 0.4, 0.35, 0.8]), np.array([False, False, True, True]))(np.ones(4))
    0.75
    """
    _, place = np.unique(scores, return_inverse=True)

    def area(weights: Floats) -> float:
        above = np.bincount(place, weights * positive)
        below = np.bincount(place, weights * ~positive)
        pairs = float(above.sum() * below.sum())
        if not pairs:
            return math.nan
        return float((above * (np.cumsum(below) - below / 2)).sum()) / pairs

    return area


def macro_f1(truth: NDArray[np.intp], found: NDArray[np.intp]) -> Callable[[Floats], float]:
    """The mean over the classes of F1 = 2 TP / (2 TP + FP + FN), of weighted rows.

    >>> macro_f1(np.array([0, 0, 1]), np.array([0, 1, 1]))(np.ones(3)) == 2 / 3
    True
    """
    classes = int(max(truth.max(), found.max())) + 1

    def score(weights: Floats) -> float:
        table = np.bincount(truth * classes + found, weights, classes**2).reshape(classes, classes)
        seen = table.sum(axis=0) + table.sum(axis=1)
        there = table.sum(axis=1) > 0
        return float((2 * np.diag(table)[there] / seen[there]).mean())

    return score
