"""Numbers and drawings of the page."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_server.views import DeviceRow, GateRow, Overview, VersionRow
from fleet_server.web import figures


def device(name, **changes):
    values = {
        "id": name, "profile": "p", "site": "s", "health": "live", "seen_seconds_ago": 1.0,
        "model": "m", "wanted": "v1", "running": "v1", "phase": "confirmed", "reason": "",
        "runtime": "", "rows": 0, "confidence": None,
    }  # fmt: skip
    return DeviceRow(**(values | changes))


def version(name, published_at):
    return VersionRow(
        model="m", version=name, profile="p", digest=name, length=1, recipe="r", accuracy=1.0,
        drop=0.0, signed_by="k", published_at=published_at, devices=0,
    )  # fmt: skip


def fleet(running, devices, versions=()):
    return Overview(
        at=0.0, headline="", calm=True, health={}, running=running, versions=versions,
        total=devices, devices=tuple(device(f"d{i}") for i in range(devices)),
        rollouts=(), alerts=(), events=(),
    )  # fmt: skip


def gate(**changes):
    values = {
        "metric": "confidence", "treated": -0.1, "control": 0.0, "difference": -0.1, "low": -0.2,
        "high": 0.0, "limit": -0.05, "verdict": "inconclusive", "words": "",
    }  # fmt: skip
    return GateRow(**(values | changes))


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(-5, "now"), (0.4, "now"), (12.9, "12 s ago"), (60, "1 min ago"), (3600 * 5, "5 h ago"),
     (86_400 * 400, "400 d ago")],
)  # fmt: skip
def test_times_are_told_in_their_largest_unit(seconds, words):
    assert figures.ago(seconds) == words


@pytest.mark.parametrize(
    ("metric", "value", "text"),
    [
        ("confidence", -0.0312, "\N{MINUS SIGN}0.031"),
        ("errors", 0.0012, "+0.12 pp"),
        ("errors", -0.0, "0.00 pp"),
        ("latency", math.log(1.3), "\N{MULTIPLICATION SIGN}1.30"),
        ("latency", None, "\N{EN DASH}"),
    ],
)
def test_a_gate_s_numbers_are_told_in_the_unit_of_the_metric(metric, value, text):
    assert figures.change(metric, value) == text


def test_the_bar_shows_every_version_and_the_devices_that_run_nothing():
    bar = figures.running_bar(fleet((("m", "v2", 6), ("m", "v1", 2)), 10))
    assert [(s.label, s.devices, s.width) for s in bar] == [
        ("m v1", 2, 20.0),
        ("m v2", 6, 60.0),
        ("nothing yet", 2, 20.0),
    ]
    assert [s.colour for s in bar] == [0, 1, None]


def test_a_version_keeps_its_colour_when_an_older_one_is_no_longer_run():
    versions = (version("v2", 20.0), version("v1", 10.0))
    before = figures.running_bar(fleet((("m", "v1", 1), ("m", "v2", 1)), 2, versions))
    after = figures.running_bar(fleet((("m", "v2", 2),), 2, versions))
    assert before[1].colour == after[0].colour


@given(st.lists(st.integers(1, 1000), max_size=12), st.integers(0, 50))
def test_the_bar_is_filled_from_end_to_end(counts, idle):
    running = tuple(("m", f"v{i}", n) for i, n in enumerate(counts))
    bar = figures.running_bar(fleet(running, sum(counts) + idle))
    at = 0.0
    for segment in bar:
        assert segment.start == pytest.approx(at, abs=0.1)
        at = segment.start + segment.width
    assert not bar or at == pytest.approx(100, abs=0.1)


numbers = st.floats(-1e6, 1e6)


@given(numbers, st.lists(numbers, min_size=3, max_size=3).map(sorted))
def test_an_interval_is_drawn_inside_its_frame_and_in_order(limit, values):
    low, difference, high = values
    plot = figures.interval_plot(gate(limit=limit, low=low, difference=difference, high=high))
    assert 0 <= plot.low <= plot.difference <= plot.high <= 100
    assert 0 <= plot.zero <= 100
    assert 0 <= plot.harm_start <= plot.harm_start + plot.harm_width <= 100.01


def test_harm_lies_beyond_the_limit_as_seen_from_zero():
    below = figures.interval_plot(gate(limit=-0.05))
    assert (below.harm_start, below.harm_width) == (0.0, below.limit)
    above = figures.interval_plot(gate(metric="errors", limit=0.05))
    assert above.harm_start == above.limit > above.zero


@pytest.mark.parametrize("missing", ["difference", "low", "high"])
def test_without_an_interval_nothing_is_drawn(missing):
    assert figures.interval_plot(gate(**{missing: None})) is None
    assert figures.interval_plot(gate(**{missing: math.inf})) is None


def test_of_a_big_fleet_the_devices_that_need_a_look_come_first():
    many = [device(f"d{i:04}") for i in range(1000)]
    many[900] = device("d0900", health="offline")
    many[950] = device("d0950", drifting=("input.brightness",))
    many[999] = device("d0999", phase="refused")
    shown = figures.shown_devices(many)
    assert len(shown) == figures.MAX_DEVICES
    assert [row.id for row in shown[:4]] == ["d0900", "d0950", "d0999", "d0000"]
    assert figures.shown_devices(many[:50]) == many[:50]
