"""How wide an interval must be that is looked at after every window, by few devices."""

import math

from scipy.special import ndtri, stdtrit

ALPHA = 0.05  # how often a version that does no harm may be blamed, over all gates and looks
# Windows at which the boundary is tightest; it holds at every other count too.
TIGHTEST_AT = 20.0
POWER = 0.8  # of a drop that is called detectable


def boundary(windows: float, level: float) -> float:
    """Half-width in standard errors of an interval that holds at every number of windows at once.

    `sqrt((1 + r/t) log((1 + t/r) / level^2))`: the normal-mixture boundary of Robbins (1970, Ann.
    Math. Statist. 41:1397), in the form of Howard et al. (2021, Ann. Statist. 49:1055, section
    3.2), for variance 1/r; `level` is its two-sided error.

    >>> boundary(20, 0.05) < boundary(2, 0.05), round(boundary(20, 0.05), 2)
    (True, 3.08)
    """
    ratio = max(windows, 1.0) / (TIGHTEST_AT / 4)
    return math.sqrt((1 + 1 / ratio) * math.log((1 + ratio) / level**2))


def student(degrees: int, level: float) -> float:
    """How much wider Student's t is than the normal at that two-sided error.

    The spread between devices is estimated from few of them; that this factor repairs the boundary
    is a heuristic, checked by simulation (`rollout-calibration`), not a theorem.
    """
    point = 1 - level / 2
    return float(stdtrit(max(degrees, 1), point) / ndtri(point))


def shared_level(judgements: int) -> float:
    """The two-sided error of each of so many judgements, of which one side each is blame.

    Bonferroni's, since gates of one rollout depend on each other in ways nobody knows.

    >>> shared_level(1), shared_level(5)
    (0.1, 0.02)
    """
    return 2 * ALPHA / max(judgements, 1)


def detectable(spread: float, treated: int, control: int, windows: float, level: float) -> float:
    """The harm beyond the margin that is found with probability `POWER` within so many windows.

    `spread` is the standard deviation of a device's change against its own past, `treated` and
    `control` count devices (no control is a comparison with the past alone), `windows` are per
    device and `level` is as in `boundary`.
    """
    error = spread * math.sqrt(1 / treated + (1 / control if control else 0.0))
    degrees = treated + control - 2 if control else treated - 1
    return (boundary(windows, level) * student(degrees, level) + float(ndtri(POWER))) * error
