"""Roll-ups and labels: what was stored is summed once, whatever order or commit it came in."""

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_sdk.calibration import Disturbed
from edge_sdk.messages import body
from edge_sdk.messages import unseal_upward as unseal
from edge_sdk.sketch import Sketch, merge, sketch
from fleet_server.batch import Arrived, commit
from fleet_server.decay.accuracy import Estimator, Fitted, seen_of
from fleet_server.evidence.measures import read_measures
from fleet_server.labels import Counted, Label, counted, why_not, wilson
from fleet_server.rollups import added, keys_of, slice_of, taken_at
from tests.server_side import NOW, backend


@pytest.fixture
def back(tmp_path, database):
    with backend(tmp_path, database) as made:
        yield made


def arrived(device, window, *, at=NOW, **changes):
    kind, payload = device.message(window, **changes)
    sealed = unseal(payload, kind, device.name, device.secrets.mac)
    return Arrived(
        at=at, device=device.name, kind=kind, payload=payload, sealed=sealed,
        body=body(sealed, kind),
    )  # fmt: skip


def put(back, *items):
    return commit(back.store, items, back.store.bundle, Fitted())


def a_label(**changes):
    label = Label(
        device="pi-1", row="r1", model="digits", version="1", predicted="3", label="3",
        taken_at=NOW - 60,
    )  # fmt: skip
    return msgspec.structs.replace(label, **changes)


def test_windows_are_summed_by_hour_and_day_for_each_site_and_label_set(back):
    north = back.device("pi-1")
    south = back.device("pi-2", labels={"site": "south", "lens": "wide"})
    put(back, arrived(north, back.window(rows=10)), arrived(south, back.window(rows=20)))
    put(back, arrived(north, back.window(rows=5, seed=4), wall=NOW + 3600, at=NOW + 3600))
    hours = back.store.rollups("digits", "hour", 0)
    assert [(h.slice.site, h.slice.labels, h.sums.rows) for h in hours] == [
        ("north", "", 10),
        ("south", "lens=wide", 20),
        ("north", "", 5),
    ]
    assert {h.start % 3600 for h in hours} == {0}
    assert {h.profile for h in hours} == {"raspberry-pi-4"}
    days = back.store.rollups("digits", "day", 0)
    assert {d.slice.site: (d.sums.rows, d.sums.windows) for d in days} == {
        "north": (15, 2),
        "south": (20, 1),
    }
    north_day = next(d for d in days if d.slice.site == "north").sums
    one, other = back.window(rows=10), back.window(rows=5, seed=4)
    for name in one.channels:
        merged = merge(one.channels[name], other.channels[name])
        assert north_day.channels[name].counts == merged.counts
        assert north_day.channels[name].total == pytest.approx(merged.total)
    assert back.store.rollups("digits", "hour", NOW + 1800, NOW + 7200)[0].sums.rows == 5


def test_a_window_that_comes_twice_is_summed_once(back):
    device = back.device("pi-1")
    item = arrived(device, back.window(rows=10))
    put(back, item, item)
    put(back, item)
    assert [h.sums.rows for h in back.store.rollups("digits", "hour", 0)] == [10]


def test_a_commit_that_fails_sums_nothing(back):
    device = back.device("pi-1")

    def broken(_digest):
        raise RuntimeError

    with pytest.raises(RuntimeError):
        commit(back.store, [arrived(device, back.window(rows=10))], broken, Fitted())
    assert back.store.rollups("digits", "hour", 0) == []


def test_a_window_is_stored_with_the_accuracy_that_the_drift_engine_estimates_of_it(back):
    plain = back.store.bundle(back.bundle.digest)
    counts = plain.baseline.channels["output.confidence"].counts
    looks = [(0.5, 0.0, 2.2, 0.0, 0.0), (0.5, 0.3, 1.5, 1.0, 0.5), (0.4, 0.5, 1.0, 2.0, 1.0)]
    tried = tuple(Disturbed("noise", 100, 50 - 20 * i, look) for i, look in enumerate(looks))
    baseline = msgspec.structs.replace(
        plain.baseline, correct=tuple(n // 2 for n in counts), disturbed=tried
    )
    known = msgspec.structs.replace(plain, baseline=baseline)
    classes = plain.baseline.channels["output.class"]
    device, windows = back.device("pi-1"), [back.window(rows=n) for n in (10, 16)]
    for window in windows:
        window.channels["output.class"] = sketch(classes, np.arange(window.rows) % 3.0)
    silent = msgspec.structs.replace(windows[0], channels={})
    items = [arrived(device, window) for window in (*windows, silent)]
    commit(back.store, items, lambda _: known, Fitted())
    stored = [read_measures(row.measures).estimated for row in back.store.windows("digits", 0)]
    estimate = Estimator(baseline)
    expected = [estimate(seen_of(window.channels)).accuracy for window in windows]
    assert stored == [*map(pytest.approx, expected), None]
    alone = Estimator(msgspec.structs.replace(baseline, disturbed=()))
    assert stored[0] != pytest.approx(alone(seen_of(windows[0].channels)).accuracy, abs=0.01)


def test_a_wrong_clock_does_not_decide_when_a_window_was_taken():
    assert taken_at(NOW, NOW - 86400) == NOW - 86400
    assert taken_at(NOW, 0.0) == NOW
    assert taken_at(NOW, NOW + 86400) == NOW
    [hour, day] = keys_of(NOW, slice_of("d", {"site": "s"}))
    assert (hour.start, day.start) == (NOW - NOW % 3600, NOW - NOW % 86400)


@given(st.lists(st.lists(st.integers(0, 1000), min_size=3, max_size=3), min_size=1, max_size=6))
def test_added_is_the_same_as_merging_one_by_one(counts):
    parts = [
        Sketch(c, rows=sum(c), missing=1, total=2.0 * sum(c), squares=4.0 * sum(c),
               low=float(min(c)), high=float(max(c)))
        for c in counts
    ]  # fmt: skip
    one_by_one = parts[0]
    for part in parts[1:]:
        one_by_one = merge(one_by_one, part)
    summed = added(parts)
    assert summed.counts == one_by_one.counts
    assert (summed.rows, summed.missing) == (one_by_one.rows, one_by_one.missing)
    if any(p.rows for p in parts):
        filled = [p for p in parts if p.rows]
        assert summed.low == min(p.low for p in filled)
        assert summed.high == max(p.high for p in filled)


def test_a_row_has_one_label_the_last_one_given(back):
    assert back.store.add_labels([a_label(), a_label(row="r2", taken_at=NOW - 90)], NOW) == 2
    assert back.store.add_labels([a_label(label="8", audit=False)], NOW + 5) == 0
    second, first = back.store.labels("digits")
    assert (first.label, first.audit, second.row) == ("8", False, "r2")
    assert back.store.labels("digits", since=NOW - 70) == [first]
    assert back.store.labels("other") == []


def test_only_rows_drawn_at_random_count_for_the_accuracy():
    labels = [
        a_label(),
        a_label(row="r2", label="8"),
        a_label(row="r3", audit=False, label="8"),
        a_label(row="r4", predicted=""),
        a_label(row="r5", version="2"),
    ]
    assert counted(labels) == {"1": Counted(1, 2), "2": Counted(1, 1)}
    low, high = wilson(Counted(1, 2))
    assert 0 < low < 0.5 < high < 1
    assert wilson(Counted(0, 0)) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"label": ""}, "must be given"),
        ({"row": "x" * 201}, "at most 200"),
        ({"device": "../x"}, "no device id"),
        ({"taken_at": NOW + 2 * 86400}, "no time in the past"),
        ({"taken_at": float("nan")}, "no time in the past"),
        ({"confidence": 1.5}, "not within 0..1"),
        ({"certainty": -0.1}, "not within 0..1"),
    ],
)
def test_a_label_that_makes_no_sense_is_refused_in_words(changes, words):
    assert words in why_not(a_label(**changes), NOW)
    assert why_not(a_label(), NOW) is None
