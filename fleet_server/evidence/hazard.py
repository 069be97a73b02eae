"""Do devices fail sooner with the new version? The safe logrank test, for what is rare. Pure.

A device counts once, with its first failure, so one that is broken anyway weighs no more than any
other. Since the arms were drawn at random, each such failure falls on a treated device with
probability `r T / (r T + C)`, `T` and `C` being the devices of its site that have not failed yet
and `r` the ratio of hazards; so likelihood ratios of `r` are test martingales, and their mean over
many `r` may be looked at at any time (ter Schure, Pérez-Ortiz, Ly & Grünwald, "The safe logrank
test", arXiv:2011.06931). It is exact for few devices and few failures, where no normal law helps.
"""

import math

import msgspec
import numpy as np
from numpy.typing import NDArray

from fleet_server.evidence.changes import Bools, Ints

MOST = 64.0  # times as often, or as seldom: the ratios between which is looked
TRIED = 200  # failures after which nobody asks how many more it would take
RATIOS = np.linspace(-math.log(MOST), math.log(MOST), 193)  # logarithms; the middle one is 0


class Hazard(msgspec.Struct, frozen=True):
    """Logarithms: the likeliest ratio with its bounds, and failures over expected ones by arm."""

    ratio: float
    low: float
    high: float
    treated: float
    control: float


def hazard(
    failed: Ints, stratum: Ints, treated: Bools, usable: Bools, errors: tuple[float, float]
) -> Hazard:
    """The ratio of hazards, treated over control.

    Args:
        failed: devices in the order in which they failed, each once.
        stratum: by device, its site.
        treated: by device, whether it has the new version.
        usable: by device, whether it is looked at.
        errors: with which the bound below, and the one above, may ever be wrong.
    """
    fell, risk = _at_risk(failed, stratum, treated, usable)
    share = risk[:, 1] / np.maximum(risk.sum(axis=1), 1)
    seen = (int(fell.sum()), int((~fell).sum()))
    expected = (float(share.sum()), float((1 - share).sum()))
    likelihood = _log_likelihood(fell, risk)
    low, high = _bounds(likelihood, errors)
    return Hazard(
        ratio=float(RATIOS[likelihood.argmax()]) if likelihood.any() else 0.0,
        low=low,
        high=high,
        treated=_over(seen[0], expected[0]),
        control=_over(seen[1], expected[1]),
    )


def needed(treated: int, control: int, error: float, margin: float) -> int | None:
    """How many treated devices must fail, while no other does, to be blamed; None if none do."""
    arm = np.arange(treated + control) < treated
    everyone = np.ones_like(arm)
    place = np.zeros(len(arm), dtype=np.int64)
    for count in range(1, min(treated, TRIED) + 1):
        found = hazard(np.arange(count), place, arm, everyone, (error, 1.0))
        if found.low > math.log(margin):
            return count
    return None


def _at_risk(
    failed: Ints, stratum: Ints, treated: Bools, usable: Bools
) -> tuple[Bools, NDArray[np.int64]]:
    """By failure: whether it fell on a treated device, and how many of each arm it could have."""
    size = int(stratum.max(initial=0)) + 1
    arms = (usable & ~treated, usable & treated)
    left = np.stack([np.bincount(stratum[arm], minlength=size) for arm in arms])
    if not left.min(axis=0).any():  # no site has both arms: all are one
        stratum, left = np.zeros_like(stratum), left.sum(axis=1, keepdims=True)
    counted = [int(device) for device in failed if usable[device]]
    risk = np.zeros((len(counted), 2), dtype=np.int64)
    for number, device in enumerate(counted):
        risk[number] = left[:, stratum[device]]
        left[int(treated[device]), stratum[device]] -= 1
    return treated[counted].astype(np.bool_), risk


def _log_likelihood(fell: Bools, risk: NDArray[np.int64]) -> NDArray[np.float64]:
    """Of each ratio in `RATIOS`; where a site had one arm only, its failures say nothing."""
    told = risk.min(axis=1, initial=1) > 0
    times = np.exp(RATIOS)[:, None] * risk[told, 1]
    chance = np.where(fell[told], times, risk[told, 0]) / (times + risk[told, 0])
    return np.asarray(np.log(chance).sum(axis=1))


def _bounds(likelihood: NDArray[np.float64], errors: tuple[float, float]) -> tuple[float, float]:
    """The ratios that the mean likelihood of all larger, or smaller, ones has not ruled out."""
    count = np.log(np.arange(1, len(likelihood) + 1))
    larger = np.logaddexp.accumulate(likelihood[::-1])[::-1] - count[::-1]
    smaller = np.logaddexp.accumulate(likelihood) - count
    below, above = (-math.log(error) for error in errors)
    kept = np.flatnonzero(larger - likelihood < below), np.flatnonzero(smaller - likelihood < above)
    low = RATIOS[kept[0][0]] if len(kept[0]) else RATIOS[-1]
    high = RATIOS[kept[1][-1]] if len(kept[1]) else RATIOS[0]
    return float(low), float(high)


def _over(seen: int, expected: float) -> float:
    return math.log((seen + 0.5) / (expected + 0.5))
