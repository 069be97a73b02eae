"""How often the gate blames a version that did nothing wrong, and how soon it finds one that did.

Simulated canary rollouts: 200 devices at 10 sites, 20 canaries by the engine's own stratified draw,
a past of 48 hourly windows, then a look every hour for two days. Each device has its own level, its
own daily rhythm and its own small change; some fleets have heavy tails, in some a site as a whole
wanders. The engine's `judge` decides; beside it, on the same data, the rules that people use.
"""

import json
import math
from collections.abc import Callable

import msgspec
import numpy as np
from scipy import stats

from fleet_server.evidence import Arm, Gate, Point, judge
from fleet_server.rollout import cohort_order

DEVICES, SITES, CANARIES, HOURS, ROWS = 200, 10, 20, 48, 100
MARGIN = 0.05
ROLLOUTS = 120  # of each fleet and effect; the engine's share of false rollbacks pools the fleets
LOOKS = range(6, HOURS + 1, 6)
FLEETS = ("quiet", "heavy tails", "wandering sites")


class World(msgspec.Struct):
    """One simulated rollout: means (devices, hours) before and after, and who is treated."""

    before: np.ndarray
    after: np.ndarray
    treated: np.ndarray
    site: np.ndarray


def world(kind: str, effect: float, rng: np.random.Generator) -> World:
    """A fleet whose canaries change by `effect` in mean confidence."""
    site = np.arange(DEVICES) % SITES
    order = cohort_order([(str(i), str(site[i]), "p") for i in range(DEVICES)], str(rng.random()))
    treated = np.isin(np.arange(DEVICES), [int(d) for d in order[:CANARIES]])
    hours = np.arange(2 * HOURS)
    level = 0.85 + rng.normal(0, 0.05, (DEVICES, 1))
    phase = rng.uniform(0, 2 * math.pi, (DEVICES, 1))
    rhythm = rng.uniform(0, 0.03, (DEVICES, 1)) * np.sin(2 * math.pi * hours / 24 + phase)
    noise = (
        rng.standard_t(3, (DEVICES, 2 * HOURS)) / math.sqrt(3)
        if kind == "heavy tails"
        else rng.normal(size=(DEVICES, 2 * HOURS))
    )
    values = level + rhythm + 0.035 * noise
    if kind == "wandering sites":
        values += rng.normal(0, 0.01, (SITES, 2 * HOURS)).cumsum(axis=1)[site]
    values[:, HOURS:] += rng.normal(0, 0.01, (DEVICES, 1))
    values[treated, HOURS:] += effect
    return World(values[:, :HOURS], values[:, HOURS:], treated, site)


def ours(found: World, hour: int) -> bool:
    """The engine's gate."""
    arms = [
        Arm(
            device=str(i),
            stratum=str(found.site[i]),
            treated=bool(found.treated[i]),
            past=tuple(Point(t, v, ROWS) for t, v in enumerate(found.before[i])),
            now=tuple(Point(t, v, ROWS) for t, v in enumerate(found.after[i, :hour])),
        )
        for i in range(DEVICES)
    ]
    return judge(Gate("confidence", MARGIN), arms, 6).verdict == "fail"


def welch(found: World, hour: int) -> bool:
    """Device means compared by Welch's t at 5 %, looked at again and again."""
    means = found.after[:, :hour].mean(axis=1) + MARGIN * found.treated
    test = stats.ttest_ind(
        means[found.treated], means[~found.treated], equal_var=False, alternative="less"
    )
    return bool(test.pvalue < 0.05)


def pooled(found: World, hour: int) -> bool:
    """All windows of all devices in two heaps, a z-test at 5 %."""
    new, old = (
        found.after[found.treated, :hour].ravel() + MARGIN,
        found.after[~found.treated, :hour],
    )
    spread = math.sqrt(new.var() / new.size + old.var() / old.size)
    return bool((new.mean() - old.mean()) / spread < -1.645)


def mann_whitney(found: World, hour: int) -> bool:
    """Mann-Whitney on the windows at 2 %, as Kayenta has it."""
    new, old = (
        found.after[found.treated, :hour].ravel() + MARGIN,
        found.after[~found.treated, :hour],
    )
    return bool(stats.mannwhitneyu(new, old.ravel(), alternative="less").pvalue < 0.02)


def threshold(found: World, hour: int) -> bool:
    """Canary mean more than the margin below control, no test."""
    new, old = found.after[found.treated, :hour], found.after[~found.treated, :hour]
    return bool(new.mean() - old.mean() < -MARGIN)


RULES: dict[str, Callable[[World, int], bool]] = {
    "ours": ours,
    "Welch, peeking": welch,
    "pooled z, peeking": pooled,
    "Mann-Whitney": mann_whitney,
    "fixed threshold": threshold,
}


def blamed(rule: Callable[[World, int], bool], found: World) -> int | None:
    """The first hour at which the rule blames the version; None if it never does."""
    return next((hour for hour in LOOKS if rule(found, hour)), None)


def main() -> None:
    """Harm exactly at the margin must not be blamed; harm beyond it should be, soon."""
    rng = np.random.default_rng(7)
    shares: dict[str, list[bool]] = {name: [] for name in RULES}
    for kind in FLEETS:
        for _ in range(ROLLOUTS):
            found = world(kind, -MARGIN, rng)
            for name, rule in RULES.items():
                shares[name].append(blamed(rule, found) is not None)
        rates = ", ".join(f"{n} {np.mean(s[-ROLLOUTS:]):.3f}" for n, s in shares.items())
        print(f"false rollbacks, {kind}: {rates}", flush=True)
    hits = [blamed(ours, world("quiet", -MARGIN - 0.02, rng)) for _ in range(ROLLOUTS)]
    found_at = [hour for hour in hits if hour is not None]
    power = len(found_at) / len(hits)
    others = ", ".join(f"{n} {np.mean(s):.3f}" for n, s in shares.items() if n != "ours")
    result = {
        "name": "rollout-calibration",
        "value": round(float(np.mean(shares["ours"])), 4),
        "unit": "false rollbacks",
        "better": "lower",
        "against": f"nominal 0.05; {others}",
        "detail": f"{len(shares['ours'])} rollouts at harm equal to the margin, {len(LOOKS)} looks "
        f"in two days; harm 2 points beyond it found in {power:.0%}, median "
        f"{float(np.median(found_at)) if found_at else float('nan'):.0f} h",
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
