"""How wide an interval must be that is looked at after every window, by few devices.

SciPy is imported where it is used: it would be a third of a server's start.
"""

import math
from functools import lru_cache
from statistics import NormalDist

ALPHA = 0.05  # how often a version that does no harm may be blamed, over all gates and looks
POWER = 0.8  # of a drop that is called detectable
NORMAL = NormalDist()


def boundary(grown: float, level: float) -> float:
    """Half-width in standard errors of an interval that holds at the first look and ever after.

    `sqrt(a^2 + log g)`, where `g` is how often more there is to go by than at the first look, and
    `a` solves `2 (1 - Phi(a) + a phi(a)) = level`, the two-sided error: Robbins & Siegmund (1970,
    Ann. Math. Statist. 41:1410), who show that a Brownian motion leaves it ever with exactly that
    probability. Looking once would allow `a = Phi^-1(1 - level / 2)`.

    >>> round(boundary(1, 0.05), 2), round(boundary(10, 0.05), 2)
    (2.79, 3.18)
    """
    return math.sqrt(_at_first(level) ** 2 + math.log(max(grown, 1.0)))


@lru_cache(maxsize=256)
def _at_first(level: float) -> float:
    from scipy.optimize import brentq

    def beyond(a: float) -> float:
        density = math.exp(-a * a / 2) / math.sqrt(2 * math.pi)
        return math.erfc(a / math.sqrt(2)) + 2 * a * density - level

    return float(brentq(beyond, 0.0, 40.0))


def student(degrees: int, level: float) -> float:
    """How much wider Student's t is than the normal at that two-sided error.

    The spread between devices is estimated from few of them; that this factor repairs the boundary
    is a heuristic, checked by simulation (`rollout-calibration`), not a theorem.
    """
    from scipy.special import stdtrit

    point = 1 - level / 2
    return float(stdtrit(max(degrees, 1), point)) / NORMAL.inv_cdf(point)


def shared_level(judgements: int) -> float:
    """The two-sided error of each of so many judgements, of which one side each is blame.

    Bonferroni's, since gates of one rollout depend on each other in ways nobody knows.

    >>> shared_level(1), shared_level(5)
    (0.1, 0.02)
    """
    return 2 * ALPHA / max(judgements, 1)


def detectable(spread: float, treated: int, control: int, level: float) -> float:
    """The harm beyond the margin that the first look finds with probability `POWER`.

    `spread` is the standard deviation of a device's change against its own past, `treated` and
    `control` count devices (no control is a comparison with the past alone), and `level` is as in
    `boundary`.
    """
    error = spread * math.sqrt(1 / treated + (1 / control if control else 0.0))
    degrees = treated + control - 2 if control else treated - 1
    return (boundary(1, level) * student(degrees, level) + NORMAL.inv_cdf(POWER)) * error
