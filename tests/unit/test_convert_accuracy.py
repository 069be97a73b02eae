"""How much worse a converted model is, with an interval that can be believed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from converters.accuracy import agreement, by_slice, compare
from converters.intervals import auc, bootstrapped, macro_f1, paired_drop, paired_mean


@given(st.data(), st.integers(1, 2000))
def test_the_interval_is_ordered_and_holds_the_drop_of_many_rows(data, rows):
    before = data.draw(st.integers(0, rows))
    after = data.draw(st.integers(0, rows - before))
    drop, low, high = paired_drop(before, after, rows)
    assert drop == (before - after) / rows
    assert low < high
    if rows > 200 and before + after > 20:
        assert low <= drop <= high


def test_no_difference_in_few_rows_is_no_certainty():
    _, low, high = paired_drop(0, 0, 50)
    assert high - low > 0.05
    assert low == -high


def test_the_interval_holds_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(5)
    rows, lost, won = 400, 0.06, 0.03
    hits = 0
    for _ in range(1000):
        before, after, _ = rng.multinomial(rows, [lost, won, 1 - lost - won])
        _, low, high = paired_drop(int(before), int(after), rows)
        hits += low <= lost - won <= high
    assert 0.93 < hits / 1000 < 0.98


def test_models_are_compared_row_by_row():
    truth = np.array([0, 0, 1, 1])
    before = np.array([[1, 0], [1, 0], [0, 1], [1, 0]], dtype=np.float32)
    after = np.array([[1, 0], [0, 1], [0, 1], [0, 1]], dtype=np.float32)
    found = compare(truth, before, after, ("cat", "dog", "never seen"))
    assert (found.float_accuracy, found.accuracy, found.drop) == (0.75, 0.75, 0.0)
    assert found.agreement == 0.5
    assert found.per_class == {"cat": 0.5, "dog": 1.0}
    assert found.drop_low == pytest.approx(-found.drop_high)


def test_f1_and_auc_are_those_of_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(4)
    truth, found = rng.integers(0, 3, 300), rng.integers(0, 3, 300)
    weights = rng.integers(0, 3, 300).astype(float)
    expected = metrics.f1_score(truth, found, average="macro", sample_weight=weights)
    assert macro_f1(truth, found)(weights) == pytest.approx(expected)
    scores, positive = rng.integers(0, 20, 300) / 20 + truth * 0.1, truth > 0
    expected = metrics.roc_auc_score(positive, scores, sample_weight=weights)
    assert auc(scores, positive)(weights) == pytest.approx(expected)


def test_a_bootstrapped_interval_of_a_mean_is_near_the_normal_one():
    values = np.random.default_rng(2).normal(0.3, 1, 500)
    mean, low, high = bootstrapped(lambda w: float((w * values).sum() / w.sum()), len(values))
    exact, normal_low, normal_high = paired_mean(values)
    assert mean == pytest.approx(exact)
    assert (low, high) == pytest.approx((normal_low, normal_high), abs=0.03)


def test_a_regression_is_judged_by_its_error_against_the_best_constant():
    truth = np.arange(100, dtype=np.float32)
    right, off = truth[:, np.newaxis], truth[:, np.newaxis] + 5
    found = compare(truth, right, off, (), "regression")
    assert (found.quality, found.float_accuracy) == ("skill", 1.0)
    assert found.accuracy == pytest.approx(1 - 5 / 25)
    assert found.drop == pytest.approx(0.2)
    assert found.figures["mae"].converted == pytest.approx(5.0)
    constant = compare(truth, np.full((100, 1), 49.5, np.float32), off, (), "regression")
    assert constant.float_accuracy == pytest.approx(0.0)


def test_an_anomaly_is_judged_by_how_well_the_error_tells_it():
    truth = np.array([0] * 80 + [1] * 20)
    good = truth[:, np.newaxis] + np.linspace(0, 0.5, 100, dtype=np.float32)[:, np.newaxis]
    found = compare(truth, good, good[::-1], (), "anomaly")
    assert (found.quality, found.float_accuracy) == ("auc", 1.0)
    assert found.drop > 0.5
    assert found.drop_low <= found.drop <= found.drop_high
    same = compare(truth, good, good, (), "anomaly")
    assert (same.drop, same.drop_low, same.drop_high, same.agreement) == (0, 0, 0, 1)


def test_numbers_agree_if_they_differ_by_little_of_their_spread():
    before = np.linspace(0, 100, 50, dtype=np.float32)[:, np.newaxis]
    assert agreement(before, before + 2, "regression") == 1.0
    assert agreement(before, before + 3, "regression") == 0.0


def test_the_drop_is_told_for_every_value_of_a_column():
    truth = np.array([0] * 50 + [1] * 50)
    right = np.eye(2, dtype=np.float32)[truth]
    wrong_there = right.copy()
    wrong_there[:25] = right[:25, ::-1]
    site = np.array(["north"] * 25 + ["south"] * 75)
    north, south = by_slice(truth, right, wrong_there, {"site": site}, "classification")
    assert (north.label, north.rows, north.drop) == ("site=north", 25, 1.0)
    assert (south.label, south.drop) == ("site=south", 0.0)
    values = truth.astype(np.float32)[:, np.newaxis]
    drops = by_slice(values[:, 0], values, values + (site == "north")[:, np.newaxis],
                     {"site": site}, "regression")  # fmt: skip
    assert [one.drop for one in drops] == [2.0, 0.0]
