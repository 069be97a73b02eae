"""The gates: what blames a version, what does not, and how often they are wrong."""

import msgspec
import numpy as np
import pytest

from benchmarks._rollout_fleets import KINDS, blamed, looks, two_days, world
from fleet_server.evidence.changes import Points, changes
from fleet_server.evidence.gates import Gate
from fleet_server.evidence.hazard import hazard
from fleet_server.evidence.interval import boundary, detectable, shared_level, student
from fleet_server.evidence.judge import Cohort, judge
from fleet_server.evidence.measures import read_measures
from fleet_server.evidence.windows import columns, joined, points
from fleet_server.records import WindowRecord

GATE = Gate("confidence", 0.05)
LEVEL = shared_level(1)


def fleet(seed, *, effect=0.0, drift=0.0, windows=20, treated=3, devices=12, missing=()):
    """Devices on three sites with their own level; `drift` hits site 0, `effect` the treated."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(devices):
        level = 0.9 + rng.normal(0, 0.05)
        own_change = rng.normal(0, 0.005)
        before = level + rng.normal(0, 0.02, 15)
        after = level + own_change + rng.normal(0, 0.02, windows)
        after += effect if i < treated else 0.0
        after += drift if i % 3 == 0 else 0.0
        rows += [(i, False, v, 100) for v in before]
        rows += [(i, True, v, 100) for v in after if i not in missing]
    return cohort(devices, treated), as_points(rows)


def cohort(devices, treated, profiles=()):
    place = np.arange(devices)
    return Cohort(place % 3, place < treated, place % max(len(profiles), 1), profiles)


def as_points(rows):
    device, now, value, weight = zip(*rows, strict=True) if rows else ((), (), (), ())
    return Points(
        np.array(device, dtype=np.int64),
        np.array(now, dtype=bool),
        np.array(value, dtype=float),
        np.array(weight, dtype=float),
    )


def ask(gate, case, windows, level=LEVEL):
    who, seen = case
    return judge(gate, who, changes(gate.metric, seen, len(who.treated)), windows, level)[0]


def until(case, windows):
    """The same, seen when each device had sent so many windows after the start."""
    who, seen = case
    count = np.zeros(len(who.treated), dtype=int)
    kept = []
    for device, now in zip(seen.device, seen.now, strict=True):
        count[device] += now
        kept.append(not now or count[device] <= windows)
    mask = np.array(kept)
    return who, Points(seen.device[mask], seen.now[mask], seen.value[mask], seen.rows[mask])


def test_a_version_that_lowers_confidence_on_the_canaries_alone_fails():
    found = ask(GATE, fleet(1, effect=-0.15), 5)
    assert found.verdict == "fail"
    assert found.high < -0.05
    assert "3 devices with the new version against 9 like them" in found.words


def test_a_drift_that_hits_both_arms_of_a_site_blames_nobody():
    found = ask(GATE, fleet(1, drift=-0.3), 5)
    assert found.verdict == "pass"
    assert found.treated < -0.05  # the canaries did get worse, and so did the control
    assert found.control < -0.05


def test_the_same_drift_does_not_hide_a_bad_version():
    assert ask(GATE, fleet(1, drift=-0.3, effect=-0.2), 5).verdict == "fail"


def test_an_equal_version_passes_once_there_is_enough():
    assert ask(GATE, fleet(2, windows=30), 5).verdict == "pass"


def test_too_few_devices_or_windows_is_no_data_and_never_a_pass():
    assert ask(GATE, fleet(3, windows=4), 5).verdict == "no data"
    assert ask(GATE, fleet(3, missing=(0, 1)), 5).verdict == "no data"
    assert ask(GATE, (cohort(12, 3), as_points([])), 5).verdict == "no data"


def test_no_error_at_all_is_a_pass_only_with_rows_behind_it():
    def case(rows):
        told = [(i, now, 0.0, rows) for i in range(12) for now in (False, True) for _ in range(10)]
        return cohort(12, 3), as_points(told)

    assert ask(Gate("errors", 0.02), case(100), 5).verdict == "pass"
    assert ask(Gate("errors", 0.02), case(1), 5).verdict == "inconclusive"


@pytest.mark.parametrize(("ratio", "verdict"), [(1.0, "pass"), (5.0, "fail")])
def test_latency_is_judged_as_a_ratio(ratio, verdict):
    rng = np.random.default_rng(0)
    told = [
        (i, now, 2.0 * (ratio if now and i < 3 else 1) * rng.lognormal(0, 0.1), 50)
        for i in range(12)
        for now in (False, True)
        for _ in range(15)
    ]
    assert ask(Gate("latency", 3.0), (cohort(12, 3), as_points(told)), 5).verdict == verdict


def test_harm_on_one_board_alone_is_blamed_there_and_named():
    rng = np.random.default_rng(4)
    told = [
        (i, now, 0.9 + rng.normal(0, 0.02) - (0.1 if now and i < 20 and i % 2 else 0.0), 100)
        for i in range(80)
        for now in (False, True)
        for _ in range(15)
    ]
    who, seen = cohort(80, 20, ("pi", "zero")), as_points(told)
    whole, board, other = judge(GATE, who, changes("confidence", seen, 80), 5, LEVEL)
    assert (whole.verdict, board.verdict, other.verdict) == ("inconclusive", "pass", "fail")
    assert other.scope == "zero"
    assert other.words.startswith("on zero: 10 devices")


def test_where_everyone_has_it_only_the_own_past_is_left_to_compare_with():
    who, seen = fleet(6, effect=-0.15, treated=12)
    found = ask(Gate("confidence", 0.05, against="past"), (who, seen), 5)
    assert (found.verdict, found.control) == ("fail", None)
    assert "without any control" in found.words
    assert ask(GATE, (who, seen), 5).verdict == "no data"


def test_a_shadow_is_judged_by_its_level_with_no_past_at_all():
    told = [(i, True, 0.3, 50) for i in range(4) for _ in range(10)]
    found = ask(Gate("disagreement", 0.1), (cohort(8, 4), as_points(told)), 5)
    assert (found.verdict, found.against) == ("fail", "primary")


def test_the_error_is_shared_by_all_verdicts_and_more_of_them_blame_later():
    case = fleet(1, effect=-0.1)
    alone, among = ask(GATE, case, 5), ask(GATE, case, 5, shared_level(20))
    assert among.high > alone.high  # the bound that blames moved away
    assert among.low == alone.low  # the bound that passes stands by itself
    assert student(3, 0.05) > student(30, 0.05) > 1


def test_more_devices_show_smaller_harm():
    few, many = (detectable(0.05, n, 4 * n, LEVEL) for n in (3, 30))
    assert few > 2 * many > 0


def window(number, device="d0", boot="a", classes=(5, 5), **values):
    told = {
        "id": number, "device": device, "boot": boot, "seq": number, "received_at": float(number),
        "version": "1", "digest": "x", "seconds": 1.0, "rows": 10, "errors": 0, "skew": 0,
        "confidence_mean": 0.9, "confidence_rows": 10, "latency_mean": 2.0,
        "measures": msgspec.msgpack.encode([50_000_000, None, classes]),
    }  # fmt: skip
    return WindowRecord(**{**told, **values})


def test_a_window_after_a_restart_is_a_crash_but_not_the_first_of_a_device():
    told = [window(1), window(2, "d1"), window(3, boot="b"), window(4, "d1"), window(5, boot="b")]
    found = columns(told, {"d0": 0, "d1": 1})
    seen = points("crashes", found, np.ones(5, dtype=bool), found.at > 2)
    assert seen.value.tolist() == [0, 0, 1, 0, 0]
    both = joined(columns(told[:2], {"d0": 0, "d1": 1}), columns(told[2:], {"d0": 0, "d1": 1}))
    assert points("crashes", both, np.ones(5, dtype=bool), both.at > 2).value.sum() == 1


def test_predictions_are_held_against_the_device_s_own_past_mix():
    same = [window(n, classes=(50, 50)) for n in range(6)]
    moved = [window(n, classes=(90, 10)) for n in range(6, 9)]
    found = columns([*same, *moved], {"d0": 0})
    now = found.at >= 6
    seen = points("predictions", found, np.ones(9, dtype=bool), now)
    assert np.allclose(seen.value[~seen.now], 0.0)
    assert np.allclose(seen.value[seen.now], 0.4)


def test_a_window_that_was_stored_before_there_were_measures_has_none():
    assert read_measures(b"").compared == 0


def test_looking_after_every_window_rarely_rolls_back_a_harmless_version():
    """A/A, harm exactly at the margin (the hardest null), 12 looks each: at most 5 % may fail."""
    wrong = 0
    for seed in range(150):
        case = fleet(seed, effect=-0.05, windows=60)
        looks = (ask(GATE, until(case, n), 5) for n in range(5, 61, 5))
        wrong += any(found.verdict == "fail" for found in looks)
    assert wrong / 150 <= 0.05


def test_a_short_calibration_of_the_engine_keeps_to_the_nominal_rate():
    """The benchmark with fewer rollouts: shipped gates without their margins, three fleets."""
    rng = np.random.default_rng(11)
    wrong = [blamed(world(kind, "", rng), two_days(margins=False)) for kind in KINDS]
    assert wrong == [None] * len(wrong)


@pytest.mark.parametrize(
    ("harm", "metric"),
    [
        ("latency +20 %", "latency"),
        ("confidence +12 points, accuracy as before, labels", "calibration"),
        ("confidence +12 points, accuracy as before, no labels", "too good to be true"),
    ],
)
def test_the_engine_finds_a_harm_by_its_own_gate(harm, metric):
    *_, (_, end) = looks(world("quiet", harm, np.random.default_rng(3)), two_days())
    assert end.status == "rolled back"
    assert metric in end.reason


def test_the_boundary_holds_for_a_random_walk_looked_at_from_its_first_look_on():
    """An independent check of the formula: Brownian paths cross it in at most 5 % of runs."""
    rng = np.random.default_rng(5)
    steps = np.arange(10, 501)
    walks = rng.normal(size=(2000, 500)).cumsum(axis=1)[:, 9:]
    limit = np.array([boundary(t / 10, 0.05) for t in steps]) * np.sqrt(steps)
    assert (np.abs(walks) > limit).any(axis=1).mean() <= 0.05


def test_a_rare_failure_is_blamed_by_how_often_it_falls_on_the_new_version():
    """A/A: who fails is drawn at random, and after each failure is looked at."""
    rng, arm = np.random.default_rng(8), np.arange(60) < 12
    place, everyone = np.zeros(60, dtype=int), np.ones(60, dtype=bool)
    wrong = 0
    for _ in range(200):
        order = rng.permutation(60)[:20]
        lows = (hazard(order[:n], place, arm, everyone, (0.05, 0.05)).low for n in range(1, 21))
        wrong += any(low > 0 for low in lows)
    assert wrong / 200 <= 0.05
    assert hazard(np.arange(8), place, arm, everyone, (0.01, 0.05)).low > 0
    assert hazard(np.arange(0), place, arm, everyone, (0.01, 0.05)).ratio == 0


def test_a_device_counts_as_failing_once_it_did_so_more_often_than_in_its_past():
    told = [(0, False, 1, 1), (1, False, 0, 1), (0, True, 1, 1), (1, True, 1, 1), (0, True, 1, 1)]
    assert changes("crashes", as_points(told), 2).failed.tolist() == [1, 0]


@pytest.mark.parametrize(("other", "verdict"), [(0.0, "fail"), (-0.3, "pass")])
def test_calibration_is_worse_the_farther_confidence_is_from_accuracy(other, verdict):
    """The new version's gap is 0.2 above the old one's; a gap that shrinks is no harm."""
    rng = np.random.default_rng(9)
    told = [
        (i, now, other + rng.normal(0, 0.02) + (0.2 if now and i < 6 else 0), 50)
        for i in range(24)
        for now in (False, True)
        for _ in range(15)
    ]
    found = ask(Gate("calibration", 0.02), (cohort(24, 6), as_points(told)), 5)
    assert found.verdict == verdict


def test_confidence_that_jumps_is_too_good_to_be_true():
    case = fleet(1, effect=0.2)
    assert ask(GATE, case, 5).verdict == "pass"
    found = ask(Gate("confidence", 0.05, too_good=0.1), case, 5)
    assert found.verdict == "fail"
    assert "too good to be true" in found.words
