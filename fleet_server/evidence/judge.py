"""A gate's verdict: devices that got the new version against devices that did not. Pure.

The unit is the device, measured against its own past; the difference of those changes between
treated and control is taken within each site, so whatever hits a site (a drifting sensor, a change
of light) hits both arms and cancels.
"""

import math

import msgspec
import numpy as np

from fleet_server.evidence.changes import Bools, Changes, Floats, Ints
from fleet_server.evidence.gates import MEASURES, Gate, Judgement, Verdict
from fleet_server.evidence.interval import ALPHA, boundary, student

NEEDED = 2  # devices of an arm, to know a spread
NEEDED_ALONE = 5  # devices of each arm with one hardware profile, to judge that profile by itself


class Cohort(msgspec.Struct, frozen=True):
    """Who is compared with whom: by device, its stratum (index), arm, and hardware profile.

    `profiles` names those that are judged by themselves too; the others have the index -1.
    """

    stratum: Ints
    treated: Bools
    profile: Ints
    profiles: tuple[str, ...]


class _Estimate(msgspec.Struct, frozen=True):
    difference: float
    error: float
    degrees: int
    treated: float
    control: float | None


def judge(
    gate: Gate, cohort: Cohort, found: Changes, min_windows: int, level: float
) -> tuple[Judgement, ...]:
    """The gate's verdict on all devices, and on those of each profile that is named.

    A device counts once it has `min_windows` windows after, and as many before.
    """
    usable = (found.windows >= min_windows) & (found.past >= min_windows)
    verdicts = [_judge(gate, cohort, found, usable, level)]
    for number, name in enumerate(cohort.profiles):
        one = _judge(gate, cohort, found, usable & (cohort.profile == number), level)
        verdicts.append(msgspec.structs.replace(one, scope=name, words=f"on {name}: {one.words}"))
    if verdicts[0].verdict == "no data":
        lacking = f"{verdicts[0].words}, each with {min_windows} windows before and after"
        verdicts[0] = msgspec.structs.replace(verdicts[0], words=lacking)
    return tuple(verdicts)


def _judge(gate: Gate, cohort: Cohort, found: Changes, usable: Bools, level: float) -> Judgement:
    treated, control = usable & cohort.treated, usable & ~cohort.treated
    arms = (int(treated.sum()), int(control.sum()))
    compares = gate.compares
    limit = _limit(gate)
    if arms[0] < NEEDED or (compares == "control" and arms[1] < NEEDED):
        others = f" and {arms[1]} control" if compares == "control" else ""
        return Judgement(
            metric=gate.metric,
            verdict="no data",
            limit=limit,
            against=compares,
            level=level,
            treated_devices=arms[0],
            control_devices=arms[1],
            words=f"{gate.metric}: {arms[0]} treated{others} devices are heard; "
            f"{NEEDED} of each are needed",
        )
    if compares == "control":
        estimate = _difference(cohort.stratum, treated, control, found)
    else:
        estimate = _alone(treated, found)
    windows = float(found.windows[treated].mean())
    blames, passes = (
        boundary(windows, error) * student(estimate.degrees, error) * estimate.error
        for error in (level, 2 * ALPHA)
    )
    halves = (blames, passes) if MEASURES[gate.metric][0] > 0 else (passes, blames)
    low, high = estimate.difference - halves[0], estimate.difference + halves[1]
    verdict = _verdict(gate, low, high)
    return Judgement(
        metric=gate.metric,
        verdict=verdict,
        limit=limit,
        against=compares,
        treated=estimate.treated,
        control=estimate.control,
        difference=estimate.difference,
        low=low,
        high=high,
        level=level,
        treated_devices=arms[0],
        control_devices=arms[1] if compares == "control" else 0,
        windows=windows,
        words=_words(gate, verdict, (estimate.difference, low, high), arms),
    )


def _difference(stratum: Ints, treated: Bools, control: Bools, found: Changes) -> _Estimate:
    """Treated minus control within strata, its standard error, and degrees of freedom.

    Strata are weighted by n_t n_c / (n_t + n_c), which is optimal for equal variances; if none has
    both arms, all are one. The spread between devices is pooled within strata and arms, and never
    taken below what the windows' own scatter implies.
    """
    size = int(stratum.max()) + 1
    counts = np.stack([np.bincount(stratum[arm], minlength=size) for arm in (treated, control)])
    if not (counts.min(axis=0) > 0).any():
        stratum, size = np.zeros_like(stratum), 1
        counts = np.array([[treated.sum()], [control.sum()]])
    both = counts.min(axis=0) > 0
    squares, sampling, used = 0.0, 0.0, 0
    means: list[Floats] = []
    for arm, count in zip((treated, control), counts, strict=True):
        inside = arm & both[stratum]
        place, value = stratum[inside], found.value[inside]
        mean = np.bincount(place, value, size) / np.maximum(count, 1)
        squares += float(((value - mean[place]) ** 2).sum())
        sampling += float(found.variance[inside].sum())
        used += int(inside.sum())
        means.append(mean)
    degrees = used - 2 * int(both.sum())
    weight = np.where(both, counts[0] * counts[1] / np.maximum(counts.sum(axis=0), 1), 0.0)
    between = max(squares / degrees if degrees > 0 else 0.0, sampling / used)
    return _Estimate(
        difference=float((weight * (means[0] - means[1])).sum() / weight.sum()),
        error=math.sqrt(between / float(weight.sum())),
        degrees=degrees,
        treated=float(found.value[treated].mean()),
        control=float(found.value[control].mean()),
    )


def _alone(treated: Bools, found: Changes) -> _Estimate:
    """The mean over the treated devices: there is nobody to compare them with."""
    value, count = found.value[treated], int(treated.sum())
    between = max(float(value.var(ddof=1)), float(found.variance[treated].mean()))
    mean = float(value.mean())
    return _Estimate(mean, math.sqrt(between / count), count - 1, mean, None)


def _limit(gate: Gate) -> float:
    worse, kind = MEASURES[gate.metric]
    return worse * (math.log(gate.margin) if kind == "ratio" else gate.margin)


def _verdict(gate: Gate, low: float, high: float) -> Verdict:
    limit = _limit(gate)
    if MEASURES[gate.metric][0] < 0:
        low, high, limit = -high, -low, -limit
    if low > limit:
        return "fail"
    return "pass" if high < limit else "inconclusive"


def _words(
    gate: Gate, verdict: Verdict, numbers: tuple[float, float, float], arms: tuple[int, int]
) -> str:
    worse, kind = MEASURES[gate.metric]
    who = {
        "control": f"{arms[0]} devices with the new version against {arms[1]} like them",
        "past": f"{arms[0]} devices against their own past, without any control",
        "primary": f"{arms[0]} devices, both models on the same rows",
    }[gate.compares]
    if kind == "ratio":
        middle, low, high = (math.exp(n) for n in numbers)
        size = f"{gate.metric} x{middle:.2f} [{low:.2f}, {high:.2f}], limit x{gate.margin:g}"
    else:
        middle, low, high = numbers
        places = 4 if kind == "share" else 3
        size = (
            f"{gate.metric} {middle:+.{places}f} [{low:+.{places}f}, {high:+.{places}f}], "
            f"limit {worse * gate.margin:+g}"
        )
    ending = {"pass": "not worse", "fail": "worse", "inconclusive": "can't tell yet"}
    return f"{who}: {size}: {ending[verdict]}"
