"""What the bundle knows about its confidences, and how a set of answers looks beside that.

A calibrated model that says 0.8 is right in 80 % of such rows. The calibration is histogram binning
(Zadrozny & Elkan, ICML 2001) on the bundle's own held-out rows, for which the additive histogram of
confidences is enough. It holds for rows like those; what the same rows look like when they are
disturbed, and how right the answers then are, stands beside it (`Disturbed`). Pure.
"""

import msgspec
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
CONFIDENCE, CLASSES = "output.confidence", "output.class"
PRIOR = 2.0  # rows of the overall accuracy that every bin is given
FARTHEST = 10.0  # standard deviations: a channel that is farther off counts as that far
ROUGHNESS = ("input.sharpness", "input.spread")  # of pictures, of other tensors
LOOKS = 5


class Disturbed(msgspec.Struct, frozen=True):
    """How the model fared on some held-out rows that were disturbed on purpose.

    Attributes:
        kind: the disturbance; "" for none.
        rows, right: how many there were, and how many of them were answered right.
        looks: how they looked, see the function; what a later format adds stands last.
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
        inputs: names of the input channels.
        middle, spread: mean and standard deviation of each.
    """

    calibration: Calibration
    classes: Floats
    inputs: tuple[str, ...]
    middle: Floats
    spread: Floats


def calibration(rows: Floats, right: Floats) -> Calibration:
    """From the rows in each bin of confidence, and those of them that were answered right."""
    overall = right.sum() / max(rows.sum(), 1.0)
    return Calibration((right + PRIOR * overall) / (rows + PRIOR), rows + PRIOR)


def looks(reference: Reference, confidence: Floats, classes: Floats, means: Floats) -> Floats:
    """How sets of rows look: five numbers each (..., 5).

    The accuracy that its confidences let expect; how far its shares of answered classes are from
    the reference's (Euclidean) and how mixed they are (entropy), both without what the number of
    rows adds by chance; how far its inputs' means are (root mean square over the channels, in
    standard deviations; log(1 + that)); how much rougher or, below 0, smoother its inputs are
    (likewise): noise and blur both cost accuracy, and are far apart.

    Args:
        reference: what they are held against.
        confidence: counts by bin of confidence (..., bins), at least one a set.
        classes: counts by answered class (..., classes), at least one a set.
        means: of the reference's input channels (..., channels); NaN if not known.
    """
    size, known = len(reference.classes), reference.classes.sum()
    classes = classes[..., :size]
    rows = np.maximum(classes.sum(axis=-1), 2.0)
    now, usual = classes / rows[..., None], reference.classes / known
    by_chance = 1 - np.square(now).sum(axis=-1), 1 - np.square(usual).sum()
    square = np.square(now - usual).sum(axis=-1) - by_chance[0] / rows - by_chance[1] / known
    logs = np.log(np.where(now > 0, now, 1.0))
    steps = _steps(reference, means)
    told = np.maximum(np.isfinite(steps).sum(axis=-1), 1)
    rough = [i for i, name in enumerate(reference.inputs) if name in ROUGHNESS]
    return np.stack(
        [
            confidence @ reference.calibration.share / confidence.sum(axis=-1),
            np.sqrt(np.maximum(square, 0.0)),
            ((now > 0).sum(axis=-1) - 1) / (2 * rows) - (now * logs).sum(axis=-1),  # Miller (1955)
            np.log1p(np.sqrt(np.nansum(np.square(steps), axis=-1) / told)),
            np.nansum(np.copysign(np.log1p(np.abs(steps)), steps)[..., rough], axis=-1),
        ],
        axis=-1,
    )


def _steps(reference: Reference, means: Floats) -> Floats:
    """How far each mean is from the reference's, in standard deviations (..., channels)."""
    unknown = ~np.isfinite(means) | (reference.spread <= 0)
    far = (means - reference.middle) / np.where(reference.spread > 0, reference.spread, 1.0)
    return np.where(unknown, np.nan, np.clip(far, -FARTHEST, FARTHEST))
