"""How far two histograms on the same bins are apart. Pure; vectors of counts in, numbers out.

What binning hides is bounded where it matters: `ks` and `wasserstein` give the least and the most
that the rows behind the counts can have.
"""

import math
from typing import NamedTuple

import numpy as np

from edge_sdk.sketch import Floats


class Between(NamedTuple):
    """What a distance is at least and at most, given the bins; exact when both agree."""

    low: float
    high: float


def psi(reference: Floats, recent: Floats) -> float:
    """Population stability index (Siddiqi, Credit Risk Scorecards, 2006).

    `sum (q - p) ln(q / p)`, with half a row added to every bin so that an empty one stays finite.

    >>> psi(np.array([50.0, 50.0]), np.array([50.0, 50.0]))
    0.0
    """
    p = (reference + 0.5) / (reference.sum() + 0.5 * len(reference))
    q = (recent + 0.5) / (recent.sum() + 0.5 * len(recent))
    return float(((q - p) * np.log(q / p)).sum())


def jensen_shannon(reference: Floats, recent: Floats) -> Floats:
    """Jensen-Shannon distance (Endres & Schindelin, IEEE Trans. Inf. Theory 49, 2003), 0..1.

    The last axis holds the bins; any axes before it are so many pairs at once. 0 if one is empty.

    >>> float(jensen_shannon(np.array([1.0, 0.0]), np.array([0.0, 5.0])))
    1.0
    """
    p, q = _shares(reference), _shares(recent)
    middle = (p + q) / 2
    divergence = (_entropy_terms(p, middle) + _entropy_terms(q, middle)).sum(axis=-1) / 2
    known = (p.sum(axis=-1) > 0) & (q.sum(axis=-1) > 0)
    return np.asarray(np.where(known, np.sqrt(np.clip(divergence, 0.0, 1.0)), 0.0))


def hellinger(reference: Floats, recent: Floats) -> float:
    """Hellinger distance, 0..1.

    >>> hellinger(np.array([1.0, 0.0]), np.array([0.0, 5.0]))
    1.0
    """
    p, q = _shares(reference), _shares(recent)
    return float(np.sqrt(np.square(np.sqrt(p) - np.sqrt(q)).sum() / 2))


def ks(reference: Floats, recent: Floats) -> Between:
    """Kolmogorov-Smirnov distance of the rows behind two histograms.

    At the edges the distribution functions are known; inside a bin either may rise first.

    >>> ks(np.array([2.0, 2.0]), np.array([0.0, 4.0]))
    Between(low=0.5, high=1.0)
    """
    p, q = _shares(reference), _shares(recent)
    after = np.cumsum(p) - np.cumsum(q)
    before = after - (p - q)
    highest = max(float((before + p).max()), float((q - before).max()))
    return Between(float(np.abs(after).max()), min(1.0, highest))


def wasserstein(reference: Floats, recent: Floats, points: Floats) -> Between:
    """Wasserstein-1 distance in the channel's own unit.

    `points` are the ends of the bins, one more than there are counts: the outer two are the
    smallest and largest values seen. Rows spread evenly in each bin would have the middle of the
    two bounds; moving them within their bins costs at most half its width each.
    """
    p, q = _shares(reference), _shares(recent)
    after = np.cumsum(p) - np.cumsum(q)
    left, right, widths = np.concatenate([[0.0], after[:-1]]), after, np.diff(points)
    same_side = left * right >= 0
    total = np.abs(left) + np.abs(right)
    crossing = np.divide(left**2 + right**2, total, out=np.zeros_like(total), where=total > 0)
    even = float((widths * np.where(same_side, total, crossing) / 2).sum())
    hidden = float((widths * (p + q)).sum()) / 2
    return Between(max(0.0, even - hidden), even + hidden)


def chi_squared(reference: Floats, recent: Floats) -> tuple[float, int]:
    """Pearson's statistic of two samples of categories, and its degrees of freedom.

    >>> chi_squared(np.array([30.0, 20.0]), np.array([20.0, 30.0]))
    (4.0, 1)
    """
    table = np.array([reference, recent])[:, (reference + recent) > 0]
    if table.shape[1] < 2 or not table.sum(axis=1).all():
        return 0.0, 0
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / table.sum()
    return float((np.square(table - expected) / expected).sum()), table.shape[1] - 1


def cramers_v(reference: Floats, recent: Floats) -> float:
    """The size of a chi-squared, 0..1, free of the number of rows (Cramér, 1946)."""
    statistic, freedom = chi_squared(reference, recent)
    rows = float(reference.sum() + recent.sum())
    return math.sqrt(statistic / rows) if freedom else 0.0


def _shares(counts: Floats) -> Floats:
    total = counts.sum(axis=-1, keepdims=True)
    return np.asarray(np.divide(counts, total, out=np.zeros(counts.shape), where=total > 0))


def _entropy_terms(p: Floats, middle: Floats) -> Floats:
    ratio = np.divide(p, middle, out=np.ones_like(middle), where=p > 0)
    return np.asarray(p * np.log2(ratio))
