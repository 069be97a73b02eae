"""How accurate the answers are, without labels. Pure.

Of rows like the held-out ones, the mean of calibrated confidences is the expected accuracy
(confidence-based performance estimation, CBPE; Kivimäki et al., "Confidence-based estimators for
predictive performance in model monitoring", JAIR 82, 2025). Of others models stay sure and are
wrong. So where the bundle tells how the model fared on rows that were disturbed on purpose, the
accuracy is learnt from those (Deng & Zheng, CVPR 2021): by a Gaussian process over how a set of
rows looks, which also says how unlike all of them the field is. What no look at inputs and answers
can tell stays: another meaning of the same rows (concept drift).
"""

import math
from collections.abc import Mapping

import msgspec
import numpy as np

from edge_sdk.calibration import CLASSES, CONFIDENCE, Disturbed, Reference, looks
from edge_sdk.sketch import Baseline, Floats, Sketch

NORMAL = 1.96
UNEXPLAINED = 0.03  # share of answers
CHANCE = 0.4  # of sqrt(classes / rows): about the total variation of two samples of one mix
DOUBTFUL = 0.05  # half of the interval from which an estimate is not to be believed
UNMOVED = 0.25  # standard deviations by which inputs move without being disturbed
LENGTHS = (0.7, 1.0, 1.4, 2.0, 2.8, 4.0)  # of the kernel, in deviations of the looks
SIZES = (0.1, 0.2, 0.4)  # standard deviation of accuracy over all looks
ROUGH = (0.005, 0.01, 0.02, 0.04)  # what looks leave open


class Seen(msgspec.Struct, frozen=True, eq=False):
    """Some rows in the field: counts by bin of confidence and by class, means of the inputs."""

    confidence: Floats
    classes: Floats
    means: Mapping[str, float]


class Estimate(msgspec.Struct, frozen=True):
    """Expected accuracy, 0..1, with its 95 % interval.

    Attributes:
        note: why it should not be believed; "" if nothing speaks against it.
    """

    accuracy: float
    low: float
    high: float
    rows: int
    note: str = ""


class Process(msgspec.Struct, frozen=True, eq=False):
    """A Gaussian process (Rasmussen & Williams, 2006, ch. 2) from looks to accuracy.

    Attributes:
        middle, spread: of the looks it was fitted to (k,).
        points: those looks, standardised (n, k).
        mean: accuracy far from all of them.
        length, size, rough: of the kernel.
        inverse, weights: of the kernel between the points (n, n), and times the accuracies (n,).
    """

    middle: Floats
    spread: Floats
    points: Floats
    mean: float
    length: float
    size: float
    rough: float
    inverse: Floats
    weights: Floats

    def __call__(self, look: tuple[float, ...]) -> tuple[float, float]:
        """Accuracy, and its standard deviation."""
        at = (np.array(look) - self.middle) / self.spread
        near = _kernel(np.square(self.points - at).sum(axis=1), self.length, self.size)
        variance = self.size**2 - near @ self.inverse @ near + self.rough**2
        return float(self.mean + near @ self.weights), math.sqrt(max(float(variance), 0.0))


class Estimator:
    """Estimates for one bundle; `usual` is its accuracy on the held-out rows.

    Raises:
        ValueError: it brings no calibration.
    """

    def __init__(self, baseline: Baseline) -> None:
        if baseline.reference is None:
            raise ValueError("this baseline has no calibration")
        self._reference: Reference = baseline.reference
        self.usual = sum(baseline.correct) / max(int(self._reference.classes.sum()), 1)
        self._process = fit(baseline.disturbed) if baseline.disturbed else None

    def __call__(self, seen: Seen) -> Estimate | None:
        """What to expect of rows that look so; None without rows."""
        rows = float(seen.confidence.sum())
        if not rows:
            return None
        if not seen.classes.sum():  # a window whose classes were dropped or are not known
            return self._from_confidence(seen, rows, moved=0.0)
        look = looks(self._reference, seen.confidence, seen.classes, seen.means)
        if self._process is None:
            return self._from_confidence(seen, rows, moved=look[1])
        accuracy, spread = self._process(look)
        accuracy = min(max(accuracy, 0.0), 1.0)
        half = NORMAL * math.sqrt(spread**2 + accuracy * (1 - accuracy) / rows)
        low, high = max(0.0, accuracy - half), min(1.0, accuracy + half)
        return Estimate(accuracy, low, high, int(rows), self._unlike(look, NORMAL * spread, rows))

    def _unlike(self, look: tuple[float, ...], half: float, rows: float) -> str:
        """Why disturbed rows tell nothing about ones that look so."""
        _, moved, _, away = look
        if away < UNMOVED and moved > UNEXPLAINED + self._by_chance(rows):
            return (
                f"{100 * moved:.0f} % of the answers went to other classes while the inputs did "
                "not move: another mix of classes, of which confidences tell less"
            )
        if half > DOUBTFUL:
            return (
                "inputs and answers look like nothing that the model was tried on: it may be off "
                f"by {100 * half:.0f} points (covariate shift)"
            )
        return ""

    def _from_confidence(self, seen: Seen, rows: float, *, moved: float) -> Estimate:
        """CBPE. Its interval holds what few held-out rows and few rows in the field leave open.

        The variance of `sum(w a)` is `sum(w^2 a(1-a)/held-out rows) + sum(w a(1-a))/rows`.
        """
        known, weight = self._reference.calibration, seen.confidence / rows
        accuracy = known.accuracy(seen.confidence)
        doubt = known.share * (1 - known.share)
        spread = math.sqrt(float(weight**2 @ (doubt / known.rows)) + float(weight @ doubt) / rows)
        low, high = accuracy - NORMAL * spread, accuracy + NORMAL * spread
        note = self._unexplained(moved, accuracy, rows)
        return Estimate(accuracy, max(0.0, low), min(1.0, high), int(rows), note)

    def _unexplained(self, moved: float, accuracy: float, rows: float) -> str:
        """Why confidence is not what it was calibrated for.

        If the mix of classes is what it was, answers only change shares by becoming wrong. So a
        change of the answered classes that is larger than the estimated loss says that the loss is
        larger, or the mix another.
        """
        loss = max(0.0, self.usual - accuracy)
        if moved - loss <= UNEXPLAINED + self._by_chance(rows):
            return ""
        return (
            f"{100 * moved:.0f} % of the answers went to other classes, which a loss of "
            f"{100 * loss:.0f} points does not explain: covariate shift, or another mix of classes"
        )

    def _by_chance(self, rows: float) -> float:
        return CHANCE * math.sqrt(len(self._reference.classes) / rows)


def estimator(baseline: Baseline) -> Estimator | None:
    """Estimates for a bundle; None if it brings no calibration."""
    return Estimator(baseline) if baseline.reference is not None else None


def seen_of(channels: Mapping[str, Sketch]) -> Seen | None:
    """What sketches tell; None without confidences."""
    if CONFIDENCE not in channels:
        return None
    classes = channels[CLASSES].counts if CLASSES in channels else [0]
    return Seen(
        np.array(channels[CONFIDENCE].counts, float),
        np.array(classes, float),
        {n: one.mean for n, one in channels.items() if n.startswith("input.")},
    )


def fit(known: tuple[Disturbed, ...]) -> Process:
    """The process through what is known, its kernel by the likelihood of each set left out.

    The leave-one-out likelihood in closed form is Rasmussen & Williams' (2006), eq. 5.10 to 5.12.
    """
    look = np.array([one.looks for one in known])
    rows = np.array([one.rows for one in known], float)
    accuracy = np.array([one.right for one in known]) / rows
    middle, spread = look.mean(axis=0), np.maximum(look.std(axis=0), 1e-6)
    points, mean = (look - middle) / spread, float(accuracy.mean())
    apart = np.square(points[:, None] - points[None]).sum(axis=2)
    noise = (accuracy * (1 - accuracy) + 1 / rows) / rows
    best: float = -math.inf
    found: Process | None = None
    for length in LENGTHS:
        for size in SIZES:
            kernel = _kernel(apart, length, size)
            for rough in ROUGH:
                inverse: Floats = np.linalg.inv(kernel + np.diag(noise + rough**2)).astype(float)
                weights = inverse @ (accuracy - mean)
                precision = np.diag(inverse)
                likelihood = float((np.log(precision) - weights**2 / precision).sum())
                if likelihood > best:
                    best = likelihood
                    found = Process(
                        middle, spread, points, mean, length, size, rough,
                        inverse, weights,
                    )  # fmt: skip
    if found is None:
        raise ValueError("what is known of disturbed rows is not finite")
    return found


def _kernel(apart: Floats, length: float, size: float) -> Floats:
    return np.asarray(size**2 * np.exp(-apart / (2 * length**2)))
