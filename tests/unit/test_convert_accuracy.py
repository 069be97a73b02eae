"""How much worse a converted model is, with an interval that can be believed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from converters.accuracy import compare, paired_drop


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
