"""How good answers are, and how much worse than others on the same rows. Pure."""

import math

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge_sdk.bundle import Metrics

Classes = NDArray[np.intp]
_Z = 1.959964  # two-sided 95 %


class ClassDrop(msgspec.Struct, frozen=True):
    """One class's drop of accuracy, a share, with its paired 95 % interval over its `rows`."""

    label: str
    rows: int
    drop: float
    low: float
    high: float


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


def compare(
    truth: Classes, float_scores: NDArray[np.float32], scores: NDArray[np.float32],
    labels: tuple[str, ...],
) -> Metrics:  # fmt: skip
    """Metrics of converted `scores` (n, classes) against those of the float model."""
    reference, found = float_scores.argmax(axis=1), scores.argmax(axis=1)
    was_right, right = reference == truth, found == truth
    drop, low, high = paired_drop(
        int((was_right & ~right).sum()), int((right & ~was_right).sum()), len(truth)
    )
    return Metrics(
        rows=len(truth),
        float_accuracy=float(was_right.mean()),
        accuracy=float(right.mean()),
        drop=drop,
        drop_low=low,
        drop_high=high,
        agreement=float((reference == found).mean()),
        per_class={
            label: float(right[truth == i].mean())
            for i, label in enumerate(labels)
            if (truth == i).any()
        },
    )


def by_class(
    truth: Classes, float_scores: NDArray[np.float32], scores: NDArray[np.float32],
    labels: tuple[str, ...],
) -> tuple[ClassDrop, ...]:  # fmt: skip
    """The drop within each class that has rows; a mean can hide that one collapses."""
    was_right = float_scores.argmax(axis=1) == truth
    right = scores.argmax(axis=1) == truth
    found = []
    for i, label in enumerate(labels):
        mine = truth == i
        if mine.any():
            lost, won = (
                int((mine & was_right & ~right).sum()),
                int((mine & right & ~was_right).sum()),
            )
            found.append(
                ClassDrop(label, int(mine.sum()), *paired_drop(lost, won, int(mine.sum())))
            )
    return tuple(found)
