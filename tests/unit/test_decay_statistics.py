"""The statistics behind drift: distances against independent answers, tails, estimated accuracy."""

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.spatial.distance import jensenshannon

from edge_sdk.calibration import Disturbed, looks
from edge_sdk.sketch import make_baseline, numeric_channel, sketch
from fleet_server.concept import DETECTORS, concept_drift, first_alarm
from fleet_server.decay.accuracy import Seen, estimator, seen_of
from fleet_server.decay.control import Tail, discoveries
from fleet_server.decay.distances import (
    chi_squared,
    cramers_v,
    hellinger,
    jensen_shannon,
    ks,
    wasserstein,
)
from fleet_server.labels import Label, calibration_error

COUNTS = (
    st.lists(st.integers(0, 500), min_size=4, max_size=4)
    .filter(any)
    .map(lambda values: np.array(values, dtype=float))
)


@given(COUNTS, COUNTS)
def test_distances_are_what_scipy_says_and_between_nothing_and_all(p, q):
    assert float(jensen_shannon(p, q)) == pytest.approx(jensenshannon(p, q, 2) or 0, abs=1e-6)
    both = np.sqrt(p / p.sum()), np.sqrt(q / q.sum())
    assert hellinger(p, q) == pytest.approx(np.linalg.norm(both[0] - both[1]) / math.sqrt(2))
    assert 0 <= cramers_v(p, q) <= 1
    table = np.array([p, q])[:, (p + q) > 0]
    if table.shape[1] > 1:
        expected = stats.chi2_contingency(table, correction=False)
        assert chi_squared(p, q) == pytest.approx((expected.statistic, expected.dof))


@given(st.integers(0, 2**32 - 1), st.floats(-2, 2), st.floats(0.3, 3), st.integers(2, 16))
def test_the_bounds_hold_the_distance_of_the_rows_themselves(seed, shift, scale, bins):
    rng = np.random.default_rng(seed)
    old, new = rng.normal(size=300), rng.normal(shift, scale, 200)
    channel = numeric_channel(old, bins)
    p, q = (np.array(sketch(channel, rows).counts, dtype=float) for rows in (old, new))
    low, high = ks(p, q)
    assert low - 1e-9 <= stats.ks_2samp(old, new).statistic <= high + 1e-9
    ends = min(old.min(), new.min()), max(old.max(), new.max())
    low, high = wasserstein(p, q, np.array([ends[0], *channel.edges, ends[1]]))
    assert low - 1e-9 <= stats.wasserstein_distance(old, new) <= high + 1e-9


def test_a_tail_is_learnt_from_clean_scores_and_continued_beyond_the_largest():
    rng = np.random.default_rng(1)
    tail = Tail()
    assert tail.p_value(100.0) == 1.0  # nothing is known yet
    tail.add(rng.standard_normal(5000))
    for score in (1.0, 2.0, 3.0):
        assert 0.7 * stats.norm.sf(score) < tail.p_value(score) < 3 * stats.norm.sf(score)
    beyond = tail.p_value(6.0)
    assert stats.norm.sf(6.0) < beyond < 1e-4  # never thinner than what it was learnt from
    heavy = Tail()
    heavy.add(np.abs(rng.standard_t(3, 5000)))
    assert heavy.p_value(6.0) > beyond


def test_false_discoveries_stay_at_their_level_when_nothing_is_wrong():
    rng = np.random.default_rng(2)
    found = [bool(discoveries(dict(enumerate(rng.random(50))), 0.05)) for _ in range(2000)]
    assert np.mean(found) < 0.07
    shared = dict.fromkeys(range(10), 0.0001) | {i: float(rng.random()) for i in range(10, 50)}
    assert discoveries(shared, 0.01) >= set(range(10))  # many alike need less each


def confidences(rng, rows, harder=0.0):
    """Rows with confidence c that are right with probability c - 0.1: overconfident."""
    confidence = np.clip(rng.beta(6, 1.5, rows) - harder, 0.2, 1.0)
    right = rng.random(rows) < np.clip(confidence - 0.1, 0, 1)
    return confidence, right.astype(float)


def a_baseline(rng, rows, held, right):
    columns = {"output.confidence": held, "output.class": rng.integers(0, 3, rows) * 1.0}
    return make_baseline(columns, ("x", "y", "z"), right)


def seen_in(baseline, confidence, classes):
    columns = {"output.confidence": confidence, "output.class": classes * 1.0}
    return seen_of({name: sketch(baseline.channels[name], v) for name, v in columns.items()})


def expected(baseline, confidence, classes, known=None):
    return (known or estimator(baseline))(seen_in(baseline, confidence, classes))


def test_the_estimate_is_the_accuracy_of_an_overconfident_model_too_within_its_interval():
    rng = np.random.default_rng(3)
    held, right = confidences(rng, 5000)
    baseline = a_baseline(rng, 5000, held, right)
    inside = []
    for harder in np.linspace(0, 0.3, 40):
        field, truth = confidences(rng, 600, harder)
        found = expected(baseline, field, rng.integers(0, 3, 600))
        inside.append(found.low <= truth.mean() <= found.high)
        assert found.accuracy == pytest.approx(truth.mean(), abs=0.08)
    assert np.mean(inside) > 0.85


def test_a_bundle_without_a_calibration_gives_no_estimate():
    assert estimator(make_baseline({"output.confidence": np.array([0.5, 0.9])}, ())) is None


def test_the_estimate_is_not_believed_if_answers_went_to_other_classes_without_a_loss():
    rng = np.random.default_rng(4)
    held, right = confidences(rng, 3000)
    baseline = a_baseline(rng, 3000, held, right)

    def note(classes, harder):
        return expected(baseline, confidences(rng, 600, harder)[0], classes).note

    lopsided = np.minimum(rng.integers(0, 4, 600), 2)
    assert note(rng.integers(0, 3, 600), 0.0) == ""
    assert note(lopsided, 0.3) == ""  # as many answers changed as are estimated to be wrong
    assert "does not explain" in note(lopsided, 0.0)


def test_a_model_that_stays_sure_where_it_is_wrong_is_seen_through_by_how_it_was_when_disturbed():
    """It answers ever more rows with its first class, as sure as ever."""
    rng = np.random.default_rng(6)
    held, right = confidences(rng, 3000)
    baseline = a_baseline(rng, 3000, held, right)

    def rows(broken, size):
        confidence, truth = confidences(rng, size)
        gone = rng.random(size) < broken
        classes = np.where(gone, 0, rng.integers(0, 3, size))
        return confidence, classes, np.where(gone, rng.random(size) < 1 / 3, truth)

    known = []
    for broken in np.linspace(0, 0.9, 30):
        confidence, classes, truth = rows(broken, 300)
        counts = (
            np.array(sketch(baseline.channels[name], column * 1.0).counts, float)
            for name, column in (("output.confidence", confidence), ("output.class", classes))
        )
        look = looks(baseline.reference, *counts, np.array([]))
        known.append(Disturbed("gone", 300, int(truth.sum()), tuple(look.tolist())))
    tried = msgspec.structs.replace(baseline, disturbed=tuple(known))
    plain, better = estimator(baseline), estimator(tried)
    for broken in (0.3, 0.5, 0.8):
        confidence, classes, truth = rows(broken, 2000)
        found = expected(tried, confidence, classes, better)
        assert found.accuracy == pytest.approx(truth.mean(), abs=0.05)
        assert abs(expected(tried, confidence, classes, plain).accuracy - truth.mean()) > 0.08
    odd = expected(tried, np.full(500, 0.21), np.full(500, 2), better)  # unlike all of them
    assert "may be off" in odd.note or "another mix" in odd.note

    empty = Seen(np.zeros(20), np.zeros(3), {})
    confidence, classes, _ = rows(0.5, 200)
    one = seen_in(tried, confidence, classes)
    alone = Seen(one.confidence, np.zeros(3), {})  # what classes were answered is not known
    told = better.accuracies([None, one, empty, alone])
    assert told == [None, better(one).accuracy, None, plain(alone).accuracy]

    fewer = tuple(msgspec.structs.replace(k, looks=k.looks[:4]) for k in known)
    more = tuple(msgspec.structs.replace(k, looks=(*k.looks, 7.0)) for k in known)
    for others in (fewer, more):  # of a converter that looked at less, or looks at more
        found = expected(msgspec.structs.replace(tried, disturbed=others), confidence, classes)
        assert found.accuracy == pytest.approx(better(one).accuracy, abs=1e-6)


def test_how_a_set_looks_does_not_depend_on_how_many_rows_it_has():
    rng = np.random.default_rng(8)
    held, right = confidences(rng, 50_000)
    reference = a_baseline(rng, 50_000, held, right).reference

    def average(rows):
        chance = [0.5, 0.3, 0.2, 0.0]  # and no other class
        counts = rng.multinomial(rows, chance, 3000).astype(float)
        confidence = np.ones((3000, len(reference.calibration.share)))
        _, apart, mixed, *_ = looks(reference, confidence, counts, np.zeros((3000, 0))).T
        return np.square(apart).mean(), mixed.mean()

    assert average(60) == pytest.approx(average(5000), abs=0.003)


def a_label(i, right, confidence=None):
    return Label(
        device="d", row=str(i), model="m", version="1", predicted="a", label="a" if right else "b",
        taken_at=float(i), confidence=confidence,
    )  # fmt: skip


def test_the_calibration_error_is_the_gap_between_confidence_and_right_answers():
    labels = [a_label(i, right=i % 2 == 0, confidence=0.9) for i in range(100)]
    assert calibration_error(labels) == pytest.approx(0.4)
    assert calibration_error([a_label(0, right=True)]) is None


@pytest.mark.parametrize("name", sorted(DETECTORS))
def test_detectors_of_concept_drift_find_errors_that_become_more_frequent(name):
    rng = np.random.default_rng(5)
    before, after = (rng.random(800) < 0.1).astype(int), (rng.random(800) < 0.5).astype(int)
    found = first_alarm(name, [*before, *after])
    assert found is not None
    assert 800 <= found < 1300
    assert first_alarm(name, before.tolist()) is None


def test_concept_drift_is_told_in_words_and_only_with_enough_labels():
    rng = np.random.default_rng(6)
    labels = [a_label(i, right=rng.random() > (0.1 if i < 800 else 0.6)) for i in range(1600)]
    assert concept_drift(labels[:50]) == ()
    [words] = concept_drift(labels)
    assert "ADWIN and" in words
    assert "found more wrong answers" in words
    [words] = concept_drift(labels[:700])
    assert "no concept drift in 700 labelled rows" in words
