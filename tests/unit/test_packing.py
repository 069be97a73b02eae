"""Packed windows: counts come out as they went in, moments as closely as is promised."""

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_sdk.channels import LATENCY
from edge_sdk.errors import EdgeError, FormatError, InvalidInputError
from edge_sdk.messages import Window
from edge_sdk.packing import added_up, packed, unpacked
from edge_sdk.sketch import Baseline, make_baseline, merge, sketch_all

LABELS = ("a", "b", "c")
RANDOM = np.random.default_rng(5)
REFERENCE = {f"input.x{i}": RANDOM.normal(i, 1 + i, 400) for i in range(6)}
REFERENCE["input.still"] = np.full(400, 7.0)
REFERENCE["output.class"] = RANDOM.integers(0, 3, 400).astype(float)
BASELINE = make_baseline(REFERENCE, LABELS)


def window(columns) -> Window:
    channels = sketch_all({"latency_ms": LATENCY, **BASELINE.channels}, columns)
    return Window(
        model="m", version="1", digest="d", edges_id=BASELINE.edges_id, seconds=1.0, rows=1,
        channels=channels,
    )  # fmt: skip


def columns(seed: int, rows: int, spread: float):
    random = np.random.default_rng(seed)
    made = {name: random.choice(values, rows) * spread for name, values in REFERENCE.items()}
    made["output.class"] = random.integers(0, 5, rows).astype(float)
    return made | {"latency_ms": random.gamma(2, 0.01, rows)}


@given(st.integers(0, 99), st.integers(0, 900), st.sampled_from([0.0, 1.0, -3.0, 1e-6, 1e9]))
def test_counts_come_back_exactly_and_moments_closely(seed, rows, spread):
    before = window(columns(seed, rows, spread))
    sent = packed(before, BASELINE)
    assert (sent.channels, sent.edges_id) == ({}, "")
    after = unpacked(sent, BASELINE)
    assert after.channels.keys() == before.channels.keys()
    assert after.edges_id == BASELINE.edges_id
    for name, was in before.channels.items():
        got = after.channels[name]
        assert (got.counts, got.rows, got.missing) == (was.counts, was.rows, was.missing)
        if not rows or name == "output.class":
            continue
        known = BASELINE.channels.get(name, LATENCY)
        scale = known.sd or 1e-3 * (abs(known.mean) or 1)
        far = abs(was.mean - known.mean)
        assert abs(got.mean - was.mean) <= 0.008 * (scale + far)
        sd = was.variance**0.5
        assert abs(got.variance**0.5 - sd) <= 0.01 * sd + 1e-6 * (scale + abs(was.mean))
        assert abs(got.high - was.high) <= 0.07 * (scale + abs(was.high - known.mean))


def test_missing_values_and_unknown_channels_survive():
    given = columns(1, 50, 1.0)
    given["input.x0"][:7] = np.nan
    before = window(given)
    before.channels["not.watched"] = before.channels["input.x1"]
    after = unpacked(packed(before, BASELINE), BASELINE)
    assert after.channels["input.x0"].missing == 7
    assert after.channels["not.watched"] == before.channels["not.watched"]


def test_a_plain_window_passes_unchanged():
    before = window(columns(1, 50, 1.0))
    assert unpacked(before, BASELINE) == before


@given(st.integers(0, 50), st.integers(0, 300), st.integers(0, 300))
def test_packed_windows_add_up_like_plain_ones(seed, rows, more):
    parts = [window(columns(seed, rows, 1.0)), window(columns(seed + 1, more, 1.5))]
    summed = msgspec.structs.replace(
        parts[0], channels={}, packed=added_up([packed(p, BASELINE).packed for p in parts])
    )
    got = unpacked(summed, BASELINE).channels
    for name, one in parts[0].channels.items():
        want = merge(one, parts[1].channels[name])
        assert got[name].counts == want.counts
        if want.rows and name.startswith("input.x"):
            sd = BASELINE.channels[name].sd
            assert got[name].mean == pytest.approx(want.mean, abs=0.05 * sd)


def test_windows_of_other_channels_do_not_add_up():
    one, other = window(columns(1, 9, 1.0)), window(columns(1, 9, 1.0))
    del other.channels["input.x3"]
    with pytest.raises(InvalidInputError, match="different channels"):
        added_up([packed(one, BASELINE).packed, packed(other, BASELINE).packed])


def test_another_baseline_is_refused():
    fewer = Baseline({"input.x0": BASELINE.channels["output.class"]}, 1)
    with pytest.raises(FormatError, match="do not fit the baseline"):
        unpacked(packed(window(columns(1, 9, 1.0)), BASELINE), fewer)


@settings(max_examples=300)
@given(st.binary(max_size=200) | st.integers(0, 2000), st.integers(1, 255))
def test_junk_and_damage_are_refused_or_harmless(where, change):
    blob = packed(window(columns(3, 40, 1.0)), BASELINE).packed
    if isinstance(where, int):
        damaged = bytearray(blob)
        damaged[where % len(blob)] ^= change
        where = bytes(damaged)
    given = msgspec.structs.replace(window({}), packed=where)
    try:
        found = unpacked(given, BASELINE)
    except EdgeError:
        return
    assert len(found.channels) <= len(BASELINE.channels) + 1
