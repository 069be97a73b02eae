"""The gates: what blames a version, what does not, and how often they are wrong."""

import numpy as np
import pytest

from fleet_server.evidence import Arm, Gate, Point, boundary, judge

GATE = Gate("confidence", 0.05)


def fleet(seed, *, effect=0.0, drift=0.0, windows=20, treated=3, devices=12, missing=()):
    """Devices on three sites with their own level; `drift` hits site 0, `effect` the treated."""
    rng = np.random.default_rng(seed)
    arms = []
    for i in range(devices):
        level = 0.9 + rng.normal(0, 0.05)
        own_change = rng.normal(0, 0.005)
        before = level + rng.normal(0, 0.02, 15)
        after = level + own_change + rng.normal(0, 0.02, windows)
        after += effect if i < treated else 0.0
        after += drift if i % 3 == 0 else 0.0
        arms.append(
            Arm(
                device=f"d{i}",
                stratum=f"site{i % 3}",
                treated=i < treated,
                past=tuple(Point(t, v, 100) for t, v in enumerate(before)),
                now=() if i in missing else tuple(Point(t, v, 100) for t, v in enumerate(after)),
            )
        )
    return arms


def test_a_version_that_lowers_confidence_on_the_canaries_alone_fails():
    found = judge(GATE, fleet(1, effect=-0.15), 5)
    assert found.verdict == "fail"
    assert found.high < -0.05
    assert "3 devices with the new version against 9 like them" in found.words


def test_a_drift_that_hits_both_arms_of_a_site_blames_nobody():
    found = judge(GATE, fleet(1, drift=-0.3), 5)
    assert found.verdict == "pass"
    assert found.treated < -0.05  # the canaries did get worse, and so did the control
    assert found.control < -0.05


def test_the_same_drift_does_not_hide_a_bad_version():
    assert judge(GATE, fleet(1, drift=-0.3, effect=-0.2), 5).verdict == "fail"


def test_an_equal_version_passes_once_there_is_enough():
    assert judge(GATE, fleet(2, windows=30), 5).verdict == "pass"


def test_too_few_devices_or_windows_is_no_data_and_never_a_pass():
    assert judge(GATE, fleet(3, windows=4), 5).verdict == "no data"
    assert judge(GATE, fleet(3, missing=(0, 1)), 5).verdict == "no data"
    assert judge(GATE, [], 5).verdict == "no data"


def test_no_error_at_all_is_a_pass_only_with_rows_behind_it():
    def arms(rows):
        point = tuple(Point(t, 0.0, rows) for t in range(10))
        return [Arm(f"d{i}", "s", i < 3, point, point) for i in range(12)]

    assert judge(Gate("errors", 0.02), arms(100), 5).verdict == "pass"
    assert judge(Gate("errors", 0.02), arms(1), 5).verdict == "inconclusive"


@pytest.mark.parametrize(("ratio", "verdict"), [(1.0, "pass"), (5.0, "fail")])
def test_latency_is_judged_as_a_ratio(ratio, verdict):
    rng = np.random.default_rng(0)
    arms = [
        Arm(
            f"d{i}",
            "s",
            i < 3,
            tuple(Point(t, 2.0 * rng.lognormal(0, 0.1), 50) for t in range(15)),
            tuple(
                Point(t, 2.0 * (ratio if i < 3 else 1) * rng.lognormal(0, 0.1), 50)
                for t in range(15)
            ),
        )
        for i in range(12)
    ]
    assert judge(Gate("latency", 3.0), arms, 5).verdict == verdict


def test_looking_after_every_window_rarely_rolls_back_a_harmless_version():
    """A/A, harm exactly at the margin (the hardest null), 60 looks each: at most 5 % may fail."""
    wrong = 0
    for seed in range(150):
        arms = fleet(seed, effect=-0.05, windows=60)
        looks = (
            judge(GATE, [Arm(a.device, a.stratum, a.treated, a.past, a.now[:n]) for a in arms], 5)
            for n in range(5, 61, 5)
        )
        wrong += any(found.verdict == "fail" for found in looks)
    assert wrong / 150 <= 0.05


def test_the_boundary_holds_for_a_random_walk_looked_at_every_step():
    """An independent check of the formula: Brownian paths cross it in at most 5 % of runs."""
    rng = np.random.default_rng(5)
    steps = np.arange(1, 501)
    walks = rng.normal(size=(2000, 500)).cumsum(axis=1)
    limit = np.array([boundary(t) for t in steps]) * np.sqrt(steps)
    assert (np.abs(walks) > limit).any(axis=1).mean() <= 0.05
