"""What the bundle knows about its confidences, and how a set of answers looks beside that.

A calibrated model that says 0.8 is right in 80 % of such rows. The calibration is histogram binning
(Zadrozny & Elkan, ICML 2001) on the bundle's own held-out rows, for which the additive histogram of
confidences is enough. It holds for rows like those; what the same rows look like when they are
disturbed, and how right the answers then are, stands beside it (`Disturbed`). Pure.
"""

import math
from collections.abc import Mapping

import msgspec
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
CONFIDENCE, CLASSES = "output.confidence", "output.class"
PRIOR = 2.0  # rows of the overall accuracy that every bin is given
FARTHEST = 10.0  # standard deviations: a channel that is farther off counts as that far


class Disturbed(msgspec.Struct, frozen=True):
    """How the model fared on some held-out rows that were disturbed on purpose.

    Attributes:
        kind: the disturbance; "" for none.
        rows, right: how many there were, and how many of them were answered right.
        looks: how they looked, see `looks`.
    """

    kind: str
    rows: int
    right: int
    looks: tuple[float, ...]


class Calibration(msgspec.Struct, frozen=True, eq=False):
    """How often the held-out rows of each bin of confidence were right, and how many there were."""

    share: Floats
    rows: Floats

    def accuracy(self, confidence: Floats) -> float:
        """What a histogram of confidences with rows in it lets expect."""
        return float(confidence @ self.share / confidence.sum())


class Reference(msgspec.Struct, frozen=True, eq=False):
    """The held-out rows as the converted model saw them, as far as `looks` needs it.

    Attributes:
        classes: how many of them were given each class.
        middle, spread: mean and standard deviation of each input channel.
    """

    calibration: Calibration
    classes: Floats
    middle: Mapping[str, float]
    spread: Mapping[str, float]


def calibration(rows: Floats, right: Floats) -> Calibration:
    """From the rows in each bin of confidence, and those of them that were answered right."""
    overall = right.sum() / max(rows.sum(), 1.0)
    return Calibration((right + PRIOR * overall) / (rows + PRIOR), rows + PRIOR)


def looks(
    reference: Reference, confidence: Floats, classes: Floats, means: Mapping[str, float]
) -> tuple[float, ...]:
    """How a set of rows looks: four numbers.

    The accuracy that its confidences let expect, how far its mix of answered classes is from the
    reference's (total variation), how mixed it is (entropy), and how far its inputs' means are
    (root mean square over the channels, in standard deviations).

    Args:
        reference: what it is held against.
        confidence: counts by bin of confidence, at least one.
        classes: counts by answered class, at least one.
        means: of the input channels, by name.
    """
    size = len(reference.classes)
    now, usual = classes[:size] / classes.sum(), reference.classes / reference.classes.sum()
    away = [
        min(abs(mean - reference.middle[name]) / reference.spread[name], FARTHEST)
        for name, mean in means.items()
        if reference.spread.get(name, 0.0) > 0 and math.isfinite(mean)
    ]
    return (
        reference.calibration.accuracy(confidence),
        float(np.abs(now - usual).sum()) / 2,
        float(-(now[now > 0] * np.log(now[now > 0])).sum()),
        math.sqrt(sum(a * a for a in away) / len(away)) if away else 0.0,
    )
