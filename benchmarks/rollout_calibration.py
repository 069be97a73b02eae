"""How often the gates blame a version that did nothing wrong, and how soon they find one that did.

Simulated canary rollouts: 200 devices of two hardware profiles at 10 sites, 20 canaries by the
engine's own stratified draw, a past of 40 hourly windows, then a look every hour for two days. Each
device has its own level, its own daily rhythm and its own small change; some fleets have heavy
tails, in some a site as a whole wanders. The engine's `changes` and `judge` decide, over four gates
at once; beside them, on the same rows of one metric, the rules that people use.

Accuracy, confidence and rows are as in an earlier study of ours: 100 answers an hour, between
devices sd 0.05, between hours 0.03, between answers 0.35.
"""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy import stats

from benchmarks._pictures import bars
from fleet_server.evidence.changes import Points, changes
from fleet_server.evidence.gates import Gate, Metric
from fleet_server.evidence.interval import shared_level
from fleet_server.evidence.judge import Cohort, judge
from fleet_server.rollout.cohort import cohort_order

DEVICES, SITES, CANARIES, PAST, HOURS, ROWS = 200, 10, 20, 40, 48, 100
ROLLOUTS, HARMED = 700, 200  # A/A rollouts of each kind of fleet; harmed ones of each kind of harm
MIN_WINDOWS = 6
FLEETS = ("quiet", "heavy tails", "wandering sites")
METRICS: tuple[Metric, ...] = ("accuracy", "confidence", "latency", "crashes")
CRASH = 0.0005  # share of windows that begin with a restart, of a version that is well
STRICT = tuple(Gate(m, 1.0 if m == "latency" else 0.0) for m in METRICS)
USUAL = (
    Gate("accuracy", 0.005),
    Gate("confidence", 0.01),
    Gate("latency", 1.05),
    Gate("crashes", 0.002),
)
HARMS = ("accuracy -2 points on one profile", "latency +20 %", "crash loops 1 %", "confidence -5")
RESULTS = Path(__file__).parent / "results"
Floats = NDArray[np.float64]


class World(msgspec.Struct):
    """One simulated rollout: (devices, hours) of each metric, past first, and who is who."""

    cohort: Cohort
    values: dict[Metric, Floats]
    rows: float = ROWS

    @property
    def treated(self) -> NDArray[np.bool_]:
        return self.cohort.treated


def world(kind: str, harm: str, rng: np.random.Generator) -> World:
    """A fleet whose canaries suffer `harm`; "" is none."""
    site = np.arange(DEVICES) % SITES
    profile = np.arange(DEVICES) // SITES % 2
    fleet = [(str(i), str(site[i]), str(profile[i])) for i in range(DEVICES)]
    order = cohort_order(fleet, str(rng.random()))
    treated = np.isin(np.arange(DEVICES), [int(d) for d in order[:CANARIES]])
    after = np.outer(treated, np.arange(PAST + HOURS) >= PAST)
    values: dict[Metric, Floats] = {
        "accuracy": _level(kind, site, rng) - 0.02 * after * (profile == 1)[:, None]
        if harm == HARMS[0]
        else _level(kind, site, rng),
        "confidence": _level(kind, site, rng) - 0.05 * after * (harm == HARMS[3]),
        "latency": np.exp(2 * _level(kind, site, rng)) * (1 + 0.2 * after * (harm == HARMS[1])),
        "crashes": (rng.random(after.shape) < CRASH + 0.01 * after * (harm == HARMS[2])).astype(
            float
        ),
    }
    return World(Cohort(site, treated, profile, ("board A", "board B")), values)


def _level(kind: str, site: NDArray[np.int64], rng: np.random.Generator) -> Floats:
    hours = np.arange(PAST + HOURS)
    shape = (DEVICES, PAST + HOURS)
    level = 0.85 + rng.normal(0, 0.05, (DEVICES, 1))
    phase = rng.uniform(0, 2 * math.pi, (DEVICES, 1))
    rhythm = rng.uniform(0, 0.03, (DEVICES, 1)) * np.sin(2 * math.pi * hours / 24 + phase)
    noise = (
        rng.standard_t(3, shape) / math.sqrt(3) if kind == "heavy tails" else rng.normal(size=shape)
    )
    found = level + rhythm + math.hypot(0.03, 0.35 / math.sqrt(ROWS)) * noise
    if kind == "wandering sites":
        found += rng.normal(0, 0.01, (SITES, len(hours))).cumsum(axis=1)[site]
    found[:, PAST:] += rng.normal(0, 0.01, (DEVICES, 1))
    return np.asarray(found, dtype=np.float64)


def blamed(found: World, gates: Sequence[Gate], looks: Sequence[int]) -> int | None:
    """The first hour at which one of the engine's gates fails; None if none ever does."""
    level = shared_level(len(gates) * (1 + len(found.cohort.profiles)))
    for hour in looks:
        for gate in gates:
            points = _points(found, gate.metric, hour)
            seen = changes(gate.metric, points, DEVICES)
            told = judge(gate, found.cohort, seen, MIN_WINDOWS, level)
            if any(one.verdict == "fail" for one in told):
                return hour
    return None


def _points(found: World, metric: Metric, hour: int) -> Points:
    value = found.values[metric][:, : PAST + hour]
    device, at = np.indices(value.shape)
    rows = 1.0 if metric == "crashes" else float(ROWS)
    return Points(device.ravel(), at.ravel() >= PAST, value.ravel(), np.full(value.size, rows))


def _arms(found: World, hour: int) -> tuple[Floats, Floats]:
    now = found.values["accuracy"][:, PAST : PAST + hour]
    return now[found.treated], now[~found.treated]


def welch(found: World, hour: int) -> bool:
    """Device means compared by Welch's t at 5 %, looked at again and again."""
    new, old = (arm.mean(axis=1) for arm in _arms(found, hour))
    return bool(stats.ttest_ind(new, old, equal_var=False, alternative="less").pvalue < 0.05)


def pooled(found: World, hour: int) -> bool:
    """All rows of all devices in two heaps, a z-test at 5 %, looked at again and again."""
    new, old = (arm.ravel() for arm in _arms(found, hour))
    scale = math.sqrt(ROWS)  # of a window's mean over its rows, which such a test takes for rows
    spread = 0.35 / scale * math.sqrt(1 / new.size + 1 / old.size)
    return bool((new.mean() - old.mean()) / spread < -1.645)


def mann_whitney(found: World, hour: int) -> bool:
    """Mann-Whitney on the windows at 2 %, as Kayenta has it, looked at again and again."""
    new, old = (arm.ravel() for arm in _arms(found, hour))
    return bool(stats.mannwhitneyu(new, old, alternative="less").pvalue < 0.02)


def threshold(found: World, hour: int) -> bool:
    """Canary mean more than one point below control, no test."""
    new, old = _arms(found, hour)
    return bool(new.mean() - old.mean() < -0.01)


NAIVE: dict[str, Callable[[World, int], bool]] = {
    "pooled rows": pooled,
    "peeking t-test": welch,
    "Mann-Whitney": mann_whitney,
    "fixed threshold": threshold,
}


def first(rule: Callable[[World, int], bool], found: World) -> int | None:
    """The first hour at which a naive rule blames the version."""
    return next((hour for hour in range(MIN_WINDOWS, HOURS + 1) if rule(found, hour)), None)


def false_rollbacks(
    kind: str, rollouts: int, looks: Sequence[int], rng: np.random.Generator
) -> dict[str, float]:
    """How many A/A rollouts of a kind of fleet each rule rolls back, as shares."""
    hits: dict[str, list[bool]] = {name: [] for name in ("ours, no margin", "ours", *NAIVE)}
    for _ in range(rollouts):
        found = world(kind, "", rng)
        hits["ours, no margin"].append(blamed(found, STRICT, looks) is not None)
        hits["ours"].append(blamed(found, USUAL, looks) is not None)
        for name, rule in NAIVE.items():
            hits[name].append(first(rule, found) is not None)
    return {name: float(np.mean(seen)) for name, seen in hits.items()}


def found_in(harm: str, rollouts: int, rng: np.random.Generator) -> tuple[float, float]:
    """The share of harmed rollouts that is found, and the median hour at which."""
    looks = range(MIN_WINDOWS, HOURS + 1)
    hours = [blamed(world("quiet", harm, rng), USUAL, looks) for _ in range(rollouts)]
    seen = [hour for hour in hours if hour is not None]
    return len(seen) / rollouts, float(np.median(seen)) if seen else float("nan")


def main() -> None:
    """False rollbacks over three kinds of fleet, then four kinds of harm."""
    rng, looks = np.random.default_rng(7), range(MIN_WINDOWS, HOURS + 1)
    rates = {}
    for kind in FLEETS:
        rates[kind] = false_rollbacks(kind, ROLLOUTS, looks, rng)
        print(kind, rates[kind], flush=True)
    mean = {name: float(np.mean([r[name] for r in rates.values()])) for name in rates[FLEETS[0]]}
    power = {}
    for harm in HARMS:
        power[harm] = found_in(harm, HARMED, rng)
        print(harm, power[harm], flush=True)
    _write(rates, mean, power)
    others = ", ".join(f"{name} {mean[name]:.2f}" for name in NAIVE)
    told = "; ".join(f"{harm} {share:.0%}, {hour:.0f} h" for harm, (share, hour) in power.items())
    worst = max(rate["ours, no margin"] for rate in rates.values())
    result = {
        "name": "rollout-calibration",
        "value": round(mean["ours, no margin"], 4),
        "unit": "false rollbacks",
        "better": "lower",
        "against": f"nominal 0.05; on the same rows: {others}",
        "detail": f"{len(FLEETS) * ROLLOUTS} A/A rollouts, 4 gates without any margin, "
        f"{len(looks)} hourly looks (worst kind of fleet {worst:.3f}; with the usual margins "
        f"{mean['ours']:.4f}); found, and the median hour: {told}",
    }
    print(json.dumps(result))


def _write(
    rates: dict[str, dict[str, float]],
    mean: dict[str, float],
    power: dict[str, tuple[float, float]],
) -> None:
    """The table and the picture."""
    rules = list(mean)
    lines = [
        "# False rollbacks of harmless versions",
        "",
        f"{ROLLOUTS} simulated A/A rollouts of each kind of fleet; nominal is 0.05.",
        "",
        "| rule | " + " | ".join((*FLEETS, "mean")) + " |",
        "|---|" + "---|" * (len(FLEETS) + 1),
    ]
    for rule in rules:
        cells = [*(rates[kind][rule] for kind in FLEETS), mean[rule]]
        lines.append(f"| {rule} | " + " | ".join(f"{cell:.3f}" for cell in cells) + " |")
    lines += ["", "![False rollbacks](rollout-calibration.svg)", "", "# Harm that is found", ""]
    lines += ["| harm | found within two days | median hour |", "|---|---|---|"]
    lines += [f"| {harm} | {share:.0%} | {hour:.0f} |" for harm, (share, hour) in power.items()]
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "rollout-calibration.md").write_text("\n".join(lines) + "\n")
    picture = bars("False rollbacks of harmless versions (nominal 0.05)", mean, 0.05)
    (RESULTS / "rollout-calibration.svg").write_text(picture)


if __name__ == "__main__":
    main()
