"""A gate's verdict: devices that got the new version against devices that did not. Pure.

The unit is the device, measured against its own past; the difference of those changes between
treated and control is taken within each site, so whatever hits a site (a drifting sensor, a change
of light) hits both arms and cancels.
"""

import math

import msgspec
import numpy as np

from fleet_server.evidence.changes import Bools, Changes, Floats, Ints
from fleet_server.evidence.gates import MEASURES, RATIOS, Gate, Judgement, Verdict
from fleet_server.evidence.hazard import hazard
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


class _Seen(msgspec.Struct, frozen=True):
    """Harm is above 0, whichever way the metric goes: an estimate and the two arms behind it.

    `blames` and `passes` are how far below, and above, the truth may lie.
    """

    worse: int
    difference: float
    blames: float
    passes: float
    treated: float
    control: float | None

    @property
    def harm(self) -> float:
        return self.worse * self.difference


class _Estimate(msgspec.Struct, frozen=True):
    difference: float
    error: float
    degrees: int


def judge(
    gate: Gate, cohort: Cohort, found: Changes, min_windows: int, level: float
) -> tuple[Judgement, ...]:
    """The gate's verdict on all devices, and on those of each profile that is named.

    A device counts once it has `min_windows` windows after, and as many before.
    """
    usable = (found.windows >= min_windows) & (found.past >= min_windows)
    verdicts = [_judge(gate, cohort, found, usable, (min_windows, level))]
    for number, name in enumerate(cohort.profiles):
        alone = usable & (cohort.profile == number)
        one = _judge(gate, cohort, found, alone, (min_windows, level))
        verdicts.append(msgspec.structs.replace(one, scope=name, words=f"on {name}: {one.words}"))
    if verdicts[0].verdict == "no data":
        lacking = f"{verdicts[0].words}, each with {min_windows} windows before and after"
        verdicts[0] = msgspec.structs.replace(verdicts[0], words=lacking)
    return tuple(verdicts)


def _judge(
    gate: Gate, cohort: Cohort, found: Changes, usable: Bools, errs: tuple[int, float]
) -> Judgement:
    treated, control = usable & cohort.treated, usable & ~cohort.treated
    arms = (int(treated.sum()), int(control.sum()) if gate.compares == "control" else 0)
    blank = Judgement(
        metric=gate.metric,
        verdict="no data",
        limit=MEASURES[gate.metric][0] * _margin(gate),
        against=gate.compares,
        level=errs[1],
        treated_devices=arms[0],
        control_devices=arms[1],
    )
    if arms[0] < NEEDED or (gate.compares == "control" and arms[1] < NEEDED):
        others = f" and {arms[1]} control" if gate.compares == "control" else ""
        words = f"{gate.metric}: {arms[0]} treated{others} devices are heard; "
        return msgspec.structs.replace(blank, words=f"{words}{NEEDED} of each are needed")
    windows = float(found.windows[treated].mean())
    if MEASURES[gate.metric][1] == "hazard":
        seen = _by_hazard(cohort, usable, found, errs[1])
    else:
        seen = _by_level(gate, cohort.stratum, (treated, control), found, errs)
    verdict = _verdict(gate, seen)
    halves = (seen.blames, seen.passes) if seen.worse > 0 else (seen.passes, seen.blames)
    low, high = seen.difference - halves[0], seen.difference + halves[1]
    return msgspec.structs.replace(
        blank,
        verdict=verdict,
        limit=seen.worse * _margin(gate),
        treated=seen.treated,
        control=seen.control,
        difference=seen.difference,
        low=low,
        high=high,
        windows=windows,
        words=_words(gate, verdict, seen, (low, high), arms),
    )


def _by_hazard(cohort: Cohort, usable: Bools, found: Changes, level: float) -> _Seen:
    errors = (level / 2, ALPHA)
    seen = hazard(found.failed, cohort.stratum, cohort.treated, usable, errors)
    blames, passes = seen.ratio - seen.low, seen.high - seen.ratio
    return _Seen(1, seen.ratio, blames, passes, seen.treated, seen.control)


def _by_level(
    gate: Gate,
    stratum: Ints,
    arms: tuple[Bools, Bools],
    found: Changes,
    errs: tuple[int, float],
) -> _Seen:
    first, level = errs
    treated, control = arms
    if gate.compares == "control":
        estimate = _difference(stratum, treated, control, found)
        others: float | None = float(found.value[control].mean())
    else:
        estimate = _alone(treated, found)
        others = None
    grown = float(found.windows[treated].mean()) / first
    blames, passes = (
        boundary(grown, error) * student(estimate.degrees, error) * estimate.error
        for error in (level / 2 if gate.either_way else level, 2 * ALPHA)
    )
    own = float(found.value[treated].mean())
    worse = _worse(gate, arms, found)
    return _Seen(worse, estimate.difference, blames, passes, own, others)


def _worse(gate: Gate, arms: tuple[Bools, Bools], found: Changes) -> int:
    """Which way is harm. A gap grew if the new one and the old one lie on that side together.

    Since `|t| > |c|` is `(t - c)(t + c) > 0`.
    """
    if MEASURES[gate.metric][1] != "gap":
        return MEASURES[gate.metric][0]
    treated, control = arms
    now = float(found.level[treated].mean())
    past = found.level[treated] - found.value[treated]
    other = found.level[control] if gate.compares == "control" else past
    return 1 if now + float(other.mean()) >= 0 else -1


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
    )


def _alone(treated: Bools, found: Changes) -> _Estimate:
    """The mean over the treated devices: there is nobody to compare them with."""
    value, count = found.value[treated], int(treated.sum())
    between = max(float(value.var(ddof=1)), float(found.variance[treated].mean()))
    return _Estimate(float(value.mean()), math.sqrt(between / count), count - 1)


def _margin(gate: Gate) -> float:
    return math.log(gate.margin) if MEASURES[gate.metric][1] in RATIOS else gate.margin


def _too_good(gate: Gate, seen: _Seen) -> bool:
    return gate.too_good > 0 and seen.harm + seen.blames < -gate.too_good


def _verdict(gate: Gate, seen: _Seen) -> Verdict:
    if seen.harm - seen.blames > _margin(gate) or _too_good(gate, seen):
        return "fail"
    if gate.too_good and seen.harm - seen.passes <= -gate.too_good:
        return "inconclusive"
    return "pass" if seen.harm + seen.passes < _margin(gate) else "inconclusive"


def _words(
    gate: Gate, verdict: Verdict, seen: _Seen, bounds: tuple[float, float], arms: tuple[int, int]
) -> str:
    kind = MEASURES[gate.metric][1]
    who = {
        "control": f"{arms[0]} devices with the new version against {arms[1]} like them",
        "past": f"{arms[0]} devices against their own past, without any control",
        "primary": f"{arms[0]} devices, both models on the same rows",
    }[gate.compares]
    if kind in RATIOS:
        middle, low, high = (math.exp(n) for n in (seen.difference, *bounds))
        size = f"{gate.metric} x{middle:.2f} [{low:.2f}, {high:.2f}], limit x{gate.margin:g}"
    else:
        places = 4 if kind == "share" else 3
        told = [f"{n:+.{places}f}" for n in (seen.difference, *bounds)]
        size = (
            f"{gate.metric} {told[0]} [{told[1]}, {told[2]}], limit {seen.worse * gate.margin:+g}"
        )
    ending = {"pass": "not worse", "fail": "worse", "inconclusive": "can't tell yet"}[verdict]
    if _too_good(gate, seen):
        ending = f"better by more than {gate.too_good:g}, which is too good to be true"
    return f"{who}: {size}: {ending}"
