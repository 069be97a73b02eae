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
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from edge_sdk.calibration import CLASSES, CONFIDENCE, LOOKS, Disturbed, Reference, looks
from edge_sdk.sketch import Baseline, Floats, Sketch

NORMAL = 1.96
UNEXPLAINED = 0.03  # share of answers
CHANCE = 0.4  # of sqrt(classes / rows): about the total variation of two samples of one mix
# Half of what the looks leave open (95 %), from which an estimate is not to be believed: the
# closeness that is promised of the others, so an estimate that can't say it is so close says so.
DOUBTFUL = 0.03
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

    def __call__(self, look: Floats) -> tuple[Floats, Floats]:
        """Accuracies and their standard deviations (...,) of looks (..., k)."""
        at = (look[..., : len(self.middle)] - self.middle) / self.spread
        apart = np.square(at[..., None, :] - self.points).sum(axis=-1)
        near = _kernel(apart, self.length, self.size)
        known = ((near @ self.inverse) * near).sum(axis=-1)
        variance = np.maximum(self.size**2 - known + self.rough**2, 0.0)
        return np.clip(self.mean + near @ self.weights, 0.0, 1.0), np.sqrt(variance)


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
        if self._process is None or not seen.classes.sum():  # or what classes is not known
            return self._from_confidence(seen, rows)
        look = self._looks([seen])[0]
        [accuracy], [spread] = (found.tolist() for found in self._process(look[None]))
        half = NORMAL * math.sqrt(spread**2 + accuracy * (1 - accuracy) / rows)
        low, high = max(0.0, accuracy - half), min(1.0, accuracy + half)
        note = self._unlike(seen, math.expm1(look[3]), NORMAL * spread)
        return Estimate(accuracy, low, high, int(rows), note)

    def accuracies(self, many: Sequence[Seen | None]) -> list[float | None]:
        """The accuracies alone, of many at a time, which costs little more than one."""
        process = self._process
        whole = [s for s in many if process and s and s.confidence.sum() and s.classes.sum()]
        told = process(self._looks(whole))[0].tolist() if process and whole else []
        known = dict(zip(map(id, whole), told, strict=True))
        return [known[id(s)] if id(s) in known else self._accuracy(s) for s in many]

    def _accuracy(self, seen: Seen | None) -> float | None:
        found = self(seen) if seen else None
        return found.accuracy if found else None

    def _looks(self, many: Sequence[Seen]) -> Floats:
        """Of each (n, 5)."""
        inputs = self._reference.inputs
        return looks(
            self._reference,
            np.array([seen.confidence for seen in many]),
            np.array([seen.classes for seen in many]),
            np.array([[seen.means.get(name, math.nan) for name in inputs] for seen in many], float),
        )

    def _moved(self, seen: Seen) -> float:
        """Share of the answers that went to other classes (total variation), beyond chance."""
        usual, rows = self._reference.classes, float(seen.classes.sum())
        if not rows:
            return 0.0
        apart = np.abs(seen.classes[: len(usual)] / rows - usual / usual.sum()).sum() / 2
        return max(0.0, float(apart) - CHANCE * math.sqrt(len(usual) / rows))

    def _unlike(self, seen: Seen, away: float, half: float) -> str:
        """Why disturbed rows tell nothing about ones that look so."""
        moved = self._moved(seen)
        if away < UNMOVED and moved > UNEXPLAINED:
            return (
                f"{100 * moved:.0f} % of the answers went to other classes while the inputs did "
                "not move: another mix of classes, of which confidences tell less"
            )
        if half > DOUBTFUL:
            return (
                "inputs and answers look unlike what the model was tried on: it may be off by "
                f"{100 * half:.0f} points (covariate shift)"
            )
        return ""

    def _from_confidence(self, seen: Seen, rows: float) -> Estimate:
        """CBPE. Its interval holds what few held-out rows and few rows in the field leave open.

        The variance of `sum(w a)` is `sum(w^2 a(1-a)/held-out rows) + sum(w a(1-a))/rows`.
        """
        known, weight = self._reference.calibration, seen.confidence / rows
        accuracy = known.accuracy(seen.confidence)
        doubt = known.share * (1 - known.share)
        spread = math.sqrt(float(weight**2 @ (doubt / known.rows)) + float(weight @ doubt) / rows)
        low, high = accuracy - NORMAL * spread, accuracy + NORMAL * spread
        note = self._unexplained(self._moved(seen), accuracy)
        return Estimate(accuracy, max(0.0, low), min(1.0, high), int(rows), note)

    def _unexplained(self, moved: float, accuracy: float) -> str:
        """Why confidence is not what it was calibrated for.

        If the mix of classes is what it was, answers only change shares by becoming wrong. So a
        change of the answered classes that is larger than the estimated loss says that the loss is
        larger, or the mix another.
        """
        loss = max(0.0, self.usual - accuracy)
        if moved - loss <= UNEXPLAINED:
            return ""
        return (
            f"{100 * moved:.0f} % of the answers went to other classes, which a loss of "
            f"{100 * loss:.0f} points does not explain: covariate shift, or another mix of classes"
        )


class Fitted:
    """An estimator for each bundle, fitted when it is first asked for."""

    def __init__(self) -> None:
        self._fitted: dict[str, Estimator | None] = {}

    def __call__(self, digest: str, baseline: Baseline) -> Estimator | None:
        """The bundle's; None if it brings no calibration."""
        if digest not in self._fitted:
            self._fitted[digest] = estimator(baseline)
        return self._fitted[digest]

    def known(self, digest: str) -> Estimator | None:
        """One that was asked for before; None if it was not, or brings no calibration."""
        return self._fitted.get(digest)


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
    """The process through what is known, its kernel by the marginal likelihood.

    That is Rasmussen & Williams' (2006), eq. 5.8, up to a constant. The likelihood of single sets
    left out took lengths that were too short once; with kinds left out both are about as good.
    """
    look = np.array([one.looks[:LOOKS] for one in known])
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
                covariance = kernel + np.diag(noise + rough**2)
                inverse: Floats = np.linalg.inv(covariance).astype(float)
                weights = inverse @ (accuracy - mean)
                fits = float((accuracy - mean) @ weights)
                likelihood = -fits - float(np.linalg.slogdet(covariance).logabsdet)
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
