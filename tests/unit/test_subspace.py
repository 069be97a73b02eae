"""Novelty: what no single channel shows is seen when they are looked at together."""

import base64

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_sdk.channels import InputSchema, input_channels, watched_inputs
from edge_sdk.errors import FormatError
from edge_sdk.formats import from_json, to_json
from edge_sdk.sketch import Baseline, make_baseline
from edge_sdk.subspace import NOVELTY, fit_channels, fit_subspace, novelty


def related(random, n, k, hidden=3, noise=0.1):
    """Rows (n, k) of standard channels that `hidden` causes move together."""
    mixing = np.random.default_rng(5).normal(0, 1, (hidden, k))
    return random.normal(0, 1, (n, hidden)) @ mixing + random.normal(0, noise, (n, k))


def test_channels_that_only_part_from_each_other_are_novel_though_each_looks_as_ever():
    random = np.random.default_rng(0)
    train, held, later = (related(random, n, 8) for n in (2000, 500, 500))
    apart = later.copy()
    apart[:, 3] = random.permutation(apart[:, 3])  # the same values, in front of other rows
    schema = InputSchema(name="x", kind="vector", shape=(8,), low=-50, high=50)
    subspace = fit_channels(input_channels(schema, train))
    baseline = make_baseline(watched_inputs(schema, held, subspace), (), subspace=subspace)
    same, moved = (watched_inputs(schema, x, baseline.subspace) for x in (later, apart))
    for name in same.keys() - {NOVELTY}:
        assert np.array_equal(np.sort(same[name]), np.sort(moved[name]))
    edge = np.quantile(same[NOVELTY], 0.99)
    assert (moved[NOVELTY] > edge).mean() > 0.7
    usual = baseline.channels[NOVELTY]
    assert np.hypot(usual.mean, usual.sd) == pytest.approx(1, abs=0.2)


@given(st.integers(0, 1000), st.integers(1, 8))
def test_with_all_components_it_is_the_mahalanobis_distance(seed, k):
    random = np.random.default_rng(seed)
    x, given = random.normal(3, 2, (50, k)), random.normal(3, 4, (9, k))
    spaced = fit_subspace(x, tuple(f"c{i}" for i in range(k)))
    z = (x - x.mean(axis=0)) / x.std(axis=0)
    inverse = np.linalg.inv((z.T @ z + k * np.eye(k)) / (50 + k))
    away = (given - x.mean(axis=0)) / x.std(axis=0)
    expected = np.sqrt([row @ inverse @ row / k for row in away])
    if len(spaced.spread) == k:
        assert novelty(spaced, given) == pytest.approx(expected, rel=1e-3)
    else:  # what is left of the variance is evened out
        assert (novelty(spaced, given) > 0).all()


def test_few_rows_constant_channels_and_many_dimensions_still_give_sane_numbers():
    random = np.random.default_rng(1)
    wide = random.normal(0, 1, (40, 256))
    spaced = fit_subspace(wide)
    assert len(spaced.spread) * 256 <= 16_384
    assert 0.5 < novelty(spaced, random.normal(0, 1, (100, 256))).mean() < 2
    far = novelty(spaced, np.full((1, 256), 1e300))
    assert np.isfinite(far).all()
    assert far > 1e5
    still = np.stack([np.ones(40), wide[:, 0], np.full(40, np.nan)], axis=1)
    assert fit_subspace(still[:, :1], ("flat",)) is None
    assert fit_subspace(still, ("flat", "moves", "missing")) is None  # no row is whole
    assert fit_subspace(still[:, :2], ("flat", "moves")).columns == ("moves",)
    assert fit_channels({}) is None
    assert fit_channels({NOVELTY: wide[:, 0]}) is None


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"spread": [1.0]}, "not as many as it has dimensions"),
        ({"columns": ["input.x0"]}, "names 1 channels"),
        ({"columns": ["input.x0", "input.y"]}, "channels that are not there: .*input.y"),
        ({"rest": 0.0}, "above 0"),
        ({"mean": base64.b64encode(np.array([np.nan, 0], "<f4").tobytes()).decode()}, "finite"),
        ({"mean": "AAA"}, "can't be read"),
    ],
)
def test_a_subspace_that_contradicts_itself_is_refused(changes, why):
    columns = {
        f"input.x{i}": values
        for i, values in enumerate(np.random.default_rng(2).normal(size=(2, 30)))
    }
    made = msgspec.json.decode(to_json(make_baseline(columns, (), subspace=fit_channels(columns))))
    made["subspace"] |= changes
    with pytest.raises(FormatError, match=why):
        from_json(Baseline, msgspec.json.encode(made), "baseline.json")
