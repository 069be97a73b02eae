"""How often the engine blames a version that did nothing wrong, and how soon it finds one that did.

Simulated canary rollouts (`_rollout_fleets`) go through the controller's own steps, from stored
windows to decisions, by the shipped canary strategy with its gates, margins and shared error, and
looks every hour for two days; beside it, on the accuracy of the same rows, the rules in use.
Seeds are spread over the machine's processors.
"""

import json
import math
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from benchmarks._pictures import bars
from benchmarks._rollout_fleets import HARMS, HOURS, KINDS, ROWS, World, blamed, two_days, world

ROLLOUTS, HARMED = 700, 100  # A/A rollouts of each kind of fleet; harmed ones of each kind of harm
FIRST = 10  # hours after which the naive rules look too
RESULTS = Path(__file__).parent / "results"
Floats = NDArray[np.float64]


def _arms(found: World, hour: int) -> tuple[Floats, Floats]:
    new, old = found.now
    return new[:, :hour], old[:, :hour]


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
    return next((hour for hour in range(FIRST, HOURS + 1) if rule(found, hour)), None)


def harmless(kind: str, seed: int) -> dict[str, bool]:
    """Which rules roll one harmless version back."""
    found = world(kind, "", np.random.default_rng([KINDS.index(kind), seed]))
    ours = {
        "ours": blamed(found, two_days()) is not None,
        "ours, no margin": blamed(found, two_days(margins=False)) is not None,
    }
    return ours | {name: first(rule, found) is not None for name, rule in NAIVE.items()}


def harmed(harm: str, seed: int) -> int | None:
    """The hour at which the engine finds a harm; None if it does not."""
    rng = np.random.default_rng([len(KINDS) + HARMS.index(harm), seed])
    return blamed(world("quiet", harm, rng), two_days())


def false_rollbacks(kind: str, rollouts: int, pool: Executor) -> dict[str, float]:
    """How many A/A rollouts of a kind of fleet each rule rolls back, as shares."""
    seen = list(pool.map(harmless, [kind] * rollouts, range(rollouts), chunksize=10))
    return {name: float(np.mean([one[name] for one in seen])) for name in seen[0]}


def found_in(hours: Sequence[int | None]) -> tuple[float, float]:
    """The share of harmed rollouts that is found, and the median hour at which."""
    seen = [hour for hour in hours if hour is not None]
    return len(seen) / len(hours), float(np.median(seen)) if seen else float("nan")


def main() -> None:
    """False rollbacks over three kinds of fleet, then each kind of harm."""
    rates, power = {}, {}
    with ProcessPoolExecutor() as pool:
        for kind in KINDS:
            rates[kind] = false_rollbacks(kind, ROLLOUTS, pool)
            print(kind, rates[kind], flush=True)
        for harm in HARMS:
            power[harm] = found_in(list(pool.map(harmed, [harm] * HARMED, range(HARMED))))
            print(harm, power[harm], flush=True)
    mean = {name: float(np.mean([r[name] for r in rates.values()])) for name in rates[KINDS[0]]}
    _write(rates, mean, power)
    others = ", ".join(f"{name} {mean[name]:.2f}" for name in NAIVE)
    told = "; ".join(f"{harm} {share:.0%}, {hour:.0f} h" for harm, (share, hour) in power.items())
    worst = max(rate["ours, no margin"] for rate in rates.values())
    result = {
        "name": "rollout-calibration",
        "value": round(mean["ours"], 4),
        "unit": "false rollbacks",
        "better": "lower",
        "against": f"nominal 0.05; on the same rows: {others}",
        "detail": f"{len(KINDS) * ROLLOUTS} A/A rollouts through the engine, shipped canary gates, "
        f"hourly looks for two days (without any margin {mean['ours, no margin']:.4f}, worst kind "
        f"of fleet {worst:.3f}); found, and the median hour: {told}",
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
        "| rule | " + " | ".join((*KINDS, "mean")) + " |",
        "|---|" + "---|" * (len(KINDS) + 1),
    ]
    for rule in rules:
        cells = [*(rates[kind][rule] for kind in KINDS), mean[rule]]
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
