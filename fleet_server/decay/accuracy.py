"""How accurate the answers are, without labels: from calibrated confidences (CBPE). Pure.

A calibrated model that says 0.8 is right in 80 % of such rows, so the mean of calibrated
confidences is the expected accuracy (confidence-based performance estimation; Kivimäki et al.,
"Confidence-based estimators for predictive performance in model monitoring", JAIR 82, 2025). The
calibration is histogram binning (Zadrozny & Elkan, ICML 2001) on the bundle's own held-out rows,
for which the additive histogram of confidences is enough. It holds while confidence means what it
meant on the held-out rows: covariate shift that the model does not notice, and concept drift, break
it.
"""

import math

import msgspec
import numpy as np

from edge_sdk.sketch import Baseline, Floats, Sketch

CONFIDENCE, CLASSES = "output.confidence", "output.class"
PRIOR = 2.0  # rows of the overall accuracy that every bin is given
NORMAL = 1.96
UNEXPLAINED = 0.03  # share of answers
CHANCE = 0.4  # of sqrt(classes / rows): about the total variation of two samples of one mix


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


class Calibration(msgspec.Struct, frozen=True, eq=False):
    """How often the held-out rows of each bin of confidence were right, and how many there were."""

    share: Floats
    rows: Floats


def calibration(baseline: Baseline) -> Calibration | None:
    """The bundle's calibration; None if it was made without one."""
    channel = baseline.channels.get(CONFIDENCE)
    if channel is None or len(baseline.correct) != len(channel.counts):
        return None
    rows = np.array(channel.counts, dtype=float)
    right = np.array(baseline.correct, dtype=float)
    overall = right.sum() / max(rows.sum(), 1.0)
    return Calibration((right + PRIOR * overall) / (rows + PRIOR), rows + PRIOR)


def estimate(known: Calibration, confidence: Sketch | Floats, note: str = "") -> Estimate | None:
    """The accuracy that a histogram of confidences lets expect; None without rows.

    The interval holds what calibration on few rows and few rows in the field leave open: the
    variance of `sum(w a)` is `sum(w^2 a(1-a)/held-out rows) + sum(w a(1-a))/rows`.
    """
    counts = np.asarray(confidence.counts if isinstance(confidence, Sketch) else confidence, float)
    rows = float(counts.sum())
    if not rows:
        return None
    weight = counts / rows
    accuracy = float(weight @ known.share)
    doubt = known.share * (1 - known.share)
    spread = math.sqrt(float(weight**2 @ (doubt / known.rows)) + float(weight @ doubt) / rows)
    low, high = accuracy - NORMAL * spread, accuracy + NORMAL * spread
    return Estimate(accuracy, max(0.0, low), min(1.0, high), int(rows), note)


def caveat(baseline: Baseline, found: Estimate, classes: Sketch) -> str:
    """Why an estimate should not be believed; "" if nothing speaks against it.

    If the mix of classes is what it was, answers only change shares by becoming wrong. So a change
    of the answered classes that is larger than the estimated loss says that the loss is larger, or
    the mix another: in both cases confidence is not what it was calibrated for.
    """
    channel = baseline.channels.get(CLASSES)
    if channel is None or not classes.rows or not baseline.correct:
        return ""
    usual = np.array(channel.counts, dtype=float) / max(sum(channel.counts), 1)
    now = np.array(classes.counts, dtype=float) / classes.rows
    moved = float(np.abs(now - usual).sum()) / 2  # total variation
    loss = max(0.0, sum(baseline.correct) / max(sum(channel.counts), 1) - found.accuracy)
    by_chance = CHANCE * math.sqrt(len(usual) / classes.rows)
    if moved - loss <= UNEXPLAINED + by_chance:
        return ""
    return (
        f"{100 * moved:.0f} % of the answers went to other classes, which a loss of "
        f"{100 * loss:.0f} points does not explain: covariate shift, or another mix of classes"
    )
