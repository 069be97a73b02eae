"""Did the new version do worse? Devices that got it against devices that did not. Pure.

The unit is the device, measured against its own past; the difference of those changes between
treated and control is taken within each site, so whatever hits a site (a drifting sensor, a change
of light) hits both arms and cancels. The interval may be looked at after every window: its width
is the normal-mixture boundary of Robbins (1970, Ann. Math. Statist. 41:1397), in the form of Howard
et al. (2021, Ann. Statist. 49:1055, section 3.2), widened by Student's t over the normal quantile
because the spread between devices is estimated from few of them.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec
import numpy as np

Metric = Literal["errors", "confidence", "latency"]
Verdict = Literal["pass", "fail", "inconclusive", "no data"]

ALPHA = 0.05
# Windows at which the boundary is tightest; it holds at every other count too.
TIGHTEST_AT = 20.0
# Upper 97.5 % points of Student's t over the normal's 1.96, for 1, 2, ... degrees of freedom.
T_OVER_NORMAL = (6.48, 2.20, 1.62, 1.42, 1.31, 1.25, 1.21, 1.18, 1.15, 1.14, 1.12, 1.11, 1.10)
WORSE_IF_HIGHER: dict[Metric, bool] = {"errors": True, "confidence": False, "latency": True}


class Point(msgspec.Struct, frozen=True):
    """One window of one device: its mean (or share) and how many rows stand behind it."""

    at: float
    value: float
    rows: int


class Arm(msgspec.Struct, frozen=True):
    """One device's windows before and after: its own past, and the time that is judged."""

    device: str
    stratum: str
    treated: bool
    past: tuple[Point, ...]
    now: tuple[Point, ...]


class Gate(msgspec.Struct, frozen=True):
    """A limit on harm.

    Attributes:
        margin: harm that is tolerated, in the metric's own unit (a share, a difference of mean
            confidence, a ratio of latencies above 1).
        must: `prove` needs evidence that the harm is below the margin before going on; `hold`
            only stops when there is evidence that it is above.
    """

    metric: Metric
    margin: float
    must: Literal["prove", "hold"] = "prove"


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """A gate's verdict with its numbers.

    Attributes:
        treated, control: mean change of each arm against its own past.
        difference, low, high: treated minus control, with its always-valid 95 % interval.
        windows: windows of the treated arm that were judged, per device, on average.
    """

    metric: Metric
    verdict: Verdict
    limit: float
    treated: float | None = None
    control: float | None = None
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    treated_devices: int = 0
    control_devices: int = 0
    windows: float = 0
    words: str = ""


def judge(gate: Gate, arms: Sequence[Arm], min_windows: int) -> Judgement:
    """One gate's verdict on what the devices sent.

    A device counts once it has `min_windows` windows after, and (unless it never ran a model
    before) as many before. Needs two devices in each arm for an interval.
    """
    usable = [a for a in arms if len(a.now) >= min_windows and len(a.past) >= min_windows]
    treated = [a for a in usable if a.treated]
    control = [a for a in usable if not a.treated]
    limit = _limit(gate)
    if len(treated) < 2 or len(control) < 2:
        return Judgement(
            metric=gate.metric,
            verdict="no data",
            limit=limit,
            treated_devices=len(treated),
            control_devices=len(control),
            words=f"{len(treated)} treated and {len(control)} control devices have "
            f"{min_windows} windows before and after; 2 of each are needed",
        )
    strata = _strata(usable)
    changes = {arm.device: _change(gate.metric, arm) for arm in usable}
    difference, spread, degrees = _difference(strata, changes)
    windows = sum(len(a.now) for a in treated) / len(treated)
    half = boundary(windows) * student(degrees) * spread
    low, high = difference - half, difference + half
    verdict = _verdict(gate, low, high)
    return Judgement(
        metric=gate.metric,
        verdict=verdict,
        limit=limit,
        treated=_mean(changes[a.device][0] for a in treated),
        control=_mean(changes[a.device][0] for a in control),
        difference=difference,
        low=low,
        high=high,
        treated_devices=len(treated),
        control_devices=len(control),
        windows=windows,
        words=_words(gate, verdict, difference, (low, high), (len(treated), len(control))),
    )


def boundary(windows: float) -> float:
    """Half-width in standard errors of an interval that holds at every number of windows at once.

    `sqrt((1 + r/t) log((1 + t/r) / alpha^2))`: Robbins' normal mixture with variance 1/r.

    >>> boundary(20) < boundary(2), round(boundary(20), 2)
    (True, 3.08)
    """
    ratio = max(windows, 1.0) / (TIGHTEST_AT / 4)
    return math.sqrt((1 + 1 / ratio) * math.log((1 + ratio) / ALPHA**2))


def student(degrees: int) -> float:
    """How much wider Student's t is than the normal at 95 %."""
    if degrees < 1:
        return T_OVER_NORMAL[0]
    if degrees <= len(T_OVER_NORMAL):
        return T_OVER_NORMAL[degrees - 1]
    return 1 + 1.25 / degrees


def _strata(arms: Sequence[Arm]) -> list[tuple[list[Arm], list[Arm]]]:
    """(treated, control) by stratum; one for all if no stratum has both."""
    names = sorted({arm.stratum for arm in arms})
    split = [
        (
            [a for a in arms if a.stratum == name and a.treated],
            [a for a in arms if a.stratum == name and not a.treated],
        )
        for name in names
    ]
    both = [pair for pair in split if pair[0] and pair[1]]
    return both or [([a for a in arms if a.treated], [a for a in arms if not a.treated])]


def _change(metric: Metric, arm: Arm) -> tuple[float, float]:
    """A device's change against its own past, and the sampling variance of that change."""
    transform = math.log if metric == "latency" else float
    values = []
    variance = 0.0
    for points in (arm.past, arm.now):
        numbers = np.array([transform(max(p.value, 1e-12)) for p in points])
        weights = np.array([p.rows for p in points], dtype=float)
        mean = float(np.average(numbers, weights=weights))
        values.append(mean)
        spread = float(np.average((numbers - mean) ** 2, weights=weights))
        if metric == "errors":  # no error seen is not proof of none: Laplace's rule
            share = (mean * weights.sum() + 1) / (weights.sum() + 2)
            spread = max(spread, share * (1 - share) * len(points) / weights.sum())
        variance += spread / max(len(points) - 1, 1)
    return values[1] - values[0], variance


def _difference(
    strata: Sequence[tuple[list[Arm], list[Arm]]], changes: dict[str, tuple[float, float]]
) -> tuple[float, float, int]:
    """Treated minus control within strata, its standard error, and degrees of freedom.

    Strata are weighted by n_t n_c / (n_t + n_c), which is optimal for equal variances. The spread
    between devices is pooled within strata and arms, and never taken below what the windows' own
    scatter implies.
    """
    squares = 0.0
    degrees = 0
    estimate = 0.0
    weight_sum = 0.0
    for treated, control in strata:
        means = []
        for group in (treated, control):
            values = np.array([changes[a.device][0] for a in group])
            means.append(float(values.mean()))
            squares += float(((values - values.mean()) ** 2).sum())
            degrees += len(group) - 1
        weight = len(treated) * len(control) / (len(treated) + len(control))
        estimate += weight * (means[0] - means[1])
        weight_sum += weight
    used = [a for pair in strata for group in pair for a in group]
    sampling = _mean(changes[a.device][1] for a in used)
    between = max(squares / degrees if degrees else 0.0, sampling)
    return estimate / weight_sum, math.sqrt(between / weight_sum), degrees


def _limit(gate: Gate) -> float:
    margin = math.log(gate.margin) if gate.metric == "latency" else gate.margin
    return margin if WORSE_IF_HIGHER[gate.metric] else -margin


def _verdict(gate: Gate, low: float, high: float) -> Verdict:
    limit = _limit(gate)
    if not WORSE_IF_HIGHER[gate.metric]:
        low, high, limit = -high, -low, -limit
    if low > limit:
        return "fail"
    return "pass" if high < limit else "inconclusive"


def _words(
    gate: Gate,
    verdict: Verdict,
    difference: float,
    interval: tuple[float, float],
    devices: tuple[int, int],
) -> str:
    low, high = interval
    who = f"{devices[0]} devices with the new version against {devices[1]} like them"
    if gate.metric == "latency":
        ratios = [math.exp(v) for v in (difference, low, high)]
        size = f"latency x{ratios[0]:.2f} [{ratios[1]:.2f}, {ratios[2]:.2f}], limit x{gate.margin}"
    elif gate.metric == "confidence":
        size = f"confidence {difference:+.3f} [{low:+.3f}, {high:+.3f}], limit -{gate.margin}"
    else:
        size = f"error share {difference:+.4f} [{low:+.4f}, {high:+.4f}], limit +{gate.margin}"
    ending = {
        "pass": "not worse",
        "fail": "worse",
        "inconclusive": "can't tell yet",
        "no data": "no data",
    }[verdict]
    return f"{who}: {size}: {ending}"


def _mean(values: Iterable[float]) -> float:
    numbers = list(values)
    return sum(numbers) / len(numbers)
