"""False alarms under control: over features by a maximum, over devices and windows by a budget.

The scores that clean windows of the fleet gave are the null, so whatever makes them wild (heavy
tails, autocorrelation, many channels) raises the bar by itself. Beyond the largest of them the tail
is continued by a generalised Pareto distribution (Pickands, Annals of Statistics 3, 1975; fitted by
moments as in Hosking & Wallis, Technometrics 29, 1987), never thinner than `THINNEST`.
"""

from collections import deque
from collections.abc import Hashable, Iterable, Mapping
from typing import TypeVar

import numpy as np

K = TypeVar("K", bound=Hashable)
BUDGET = 1 / 30  # false alarms in a day, over all devices and features of a model
KEPT = 20_000  # scores
TOP = 0.1  # the share of scores that the tail is fitted to
FEWEST = 10
THINNEST, FATTEST = 0.05, 0.45  # shape of the tail: 0 is exponential


class Tail:
    """How large scores get while nothing is wrong."""

    def __init__(self) -> None:
        self.scores: deque[float] = deque(maxlen=KEPT)
        self._fit: tuple[float, float, float, float] | None = None

    def add(self, scores: Iterable[float]) -> None:
        self.scores.extend(scores)
        self._fit = None

    def p_value(self, score: float) -> float:
        """The chance that a clean window gives this score or a larger one; 1 without a null."""
        if len(self.scores) < FEWEST or not score:
            return 1.0
        share, start, scale, shape = self._fitted()
        if score <= start:
            known = np.asarray(self.scores)
            return float((known >= score).sum() + 1) / (len(known) + 1)
        return float(share * (1 + shape * (score - start) / scale) ** (-1 / shape))

    def _fitted(self) -> tuple[float, float, float, float]:
        if self._fit is None:
            ordered = np.sort(np.asarray(self.scores))
            top = max(FEWEST, int(TOP * len(ordered)))
            start = float(ordered[-top])
            beyond = ordered[-top:] - start
            mean, variance = float(beyond.mean()), float(beyond.var()) + 1e-12
            shape = float(np.clip((1 - mean**2 / variance) / 2, THINNEST, FATTEST))
            scale = max(mean * (1 - shape), 0.05 * start, 1e-6)
            self._fit = (top / len(ordered), start, scale, shape)
        return self._fit


def level(seconds: float, day: float) -> float:
    """The share of false alarms that one look may have, if looks come every `seconds`.

    >>> round(1 / level(3600.0, 86400.0))
    720
    """
    return min(1.0, BUDGET * seconds / day)


def discoveries(p_values: Mapping[K, float], share: float) -> set[K]:
    """Benjamini & Hochberg (J. R. Statist. Soc. B 57, 1995) at level `share`.

    >>> sorted(discoveries({"a": 0.001, "b": 0.02, "c": 0.5}, 0.05))
    ['a', 'b']
    """
    ordered = sorted(p_values.items(), key=lambda item: item[1])
    last = 0
    for rank, (_, p) in enumerate(ordered, start=1):
        if p <= share * rank / len(ordered):
            last = rank
    return {name for name, _ in ordered[:last]}
