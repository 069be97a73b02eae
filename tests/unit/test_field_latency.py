"""How long answers take on a device, from what its windows kept of it."""

import numpy as np
import pytest

from edge_sdk.channels import LATENCY
from edge_sdk.messages import Window
from edge_sdk.sketch import sketch
from fleet_server.field_latency import field_latency, quantile

RNG = np.random.default_rng(5)


def window(version, latencies):
    channels = {} if latencies is None else {"latency_ms": sketch(LATENCY, latencies)}
    return Window(
        model="m", version=version, digest=f"digest-{version}", edges_id="", seconds=60,
        rows=0 if latencies is None else len(latencies), channels=channels,
    )  # fmt: skip


def test_quantiles_are_near_those_of_the_answers_themselves():
    latencies = RNG.lognormal(1, 0.5, 5000)
    found = sketch(LATENCY, latencies)
    for share in (0.5, 0.9, 0.99):
        exact = float(np.quantile(latencies, share))
        assert quantile(found, share) == pytest.approx(exact, rel=0.05)


def test_extremes_that_were_rounded_on_the_way_turn_no_quantile_round():
    found = sketch(LATENCY, np.full(10, 0.004))
    found.low, found.high = 0.085, 0.09  # 6 % of the distance to a mean of 1 ms
    assert 0 < quantile(found, 0.5) <= quantile(found, 0.9) <= LATENCY.edges[0]


def test_all_equal_answers_have_that_quantile():
    assert quantile(sketch(LATENCY, np.full(10, 3.0)), 0.9) == pytest.approx(3.0)


def test_each_model_s_windows_are_summed_up_the_newest_first():
    slow, fast = RNG.uniform(8, 12, 400), RNG.uniform(1, 2, 300)
    windows = [
        window("2", fast[:100]),
        window("2", fast[100:]),
        window("1", slow),
        window("1", None),
    ]
    newest, older = field_latency("pi-1", windows)
    assert (newest.version, newest.windows, newest.rows) == ("2", 2, 300)
    assert newest.ms_mean == pytest.approx(fast.mean())
    assert 1.3 < newest.ms_p50 < 1.7
    assert newest.ms_p50 <= newest.ms_p90 <= 2.0
    assert (older.version, older.windows) == ("1", 1)
    assert field_latency("pi-1", []) == ()
