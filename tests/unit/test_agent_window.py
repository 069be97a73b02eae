"""Telemetry windows and the loop that fills them, with a real model where it matters."""

import threading
from itertools import pairwise

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from converters.flatbuffer import with_embedding
from device_agent.inference import Inference
from device_agent.runtime import Model
from device_agent.sources import NpzReplay, Paced
from device_agent.window import WindowBuffer
from edge_sdk.bundle import TensorSpec, unpack
from edge_sdk.channels import (
    LATENCY,
    Preprocessing,
    input_channels,
    output_channels,
    watched_inputs,
)
from edge_sdk.formats import to_msgpack
from edge_sdk.interpreter import LiteRt, Prepared
from edge_sdk.messages import MAX_MESSAGE, Running
from edge_sdk.signing import SigningKey
from edge_sdk.sketch import numeric_channel, sketch, sketch_all
from edge_sdk.subspace import NOVELTY, fit_subspace, novelty
from tests.agent_world import eventually, rows, tiny_bundle

KEY = SigningKey.generate()
BUNDLE = unpack(tiny_bundle(KEY), [KEY.public])


class Fails(LiteRt):
    """An interpreter that can't answer."""

    def infer(self, prepared):
        raise ValueError("wrong shape")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Fixed:
    """A source that gives the same row for ever."""

    def __init__(self, row) -> None:
        self.row, self.taken = row, 0

    def take(self, count):
        self.taken += count
        return np.repeat(self.row[np.newaxis], count, axis=0)


def model(digest: str = "d1", interpreter=None) -> Model:
    real = (interpreter or LiteRt)(BUNDLE.model, BUNDLE.manifest.preprocessing)
    running = Running("quarters", "1", digest)
    return Model(running, BUNDLE.manifest, BUNDLE.baseline, real, real.description)


def loop(source, *, seconds: float = 1.0, rate: float = 10.0):
    clock, closed = Clock(), []
    return Inference(Paced(source, rate, clock), seconds, clock, closed.append), clock, closed


def stored(interpreter, x):
    return np.concatenate([interpreter.infer(row) for row in interpreter.prepare(x)])


@pytest.mark.parametrize("portion", [4 * 1024 * 1024, 3 * 256])
def test_the_sketches_are_those_of_all_rows_however_they_were_portioned(monkeypatch, portion):
    monkeypatch.setattr("device_agent.window.RAW_BYTES", portion)
    monkeypatch.setattr("device_agent.window.PORTION", portion // 256)
    x, one = rows(40), model()
    scores = one.interpreter.run_rows(x)
    buffer = WindowBuffer(one)
    for row in x:
        buffer.answered(row[np.newaxis], stored(one.interpreter, row[np.newaxis]), np.ones(1))
    window = buffer.close(1.5, 2, 9).window()
    inputs = watched_inputs(BUNDLE.manifest.input, x, BUNDLE.baseline.subspace)
    assert "input.novelty" in inputs
    expected = {**inputs, **output_channels(scores.astype(float))}
    for name, values in expected.items():
        want = sketch(BUNDLE.baseline.channels[name], values)
        assert window.channels[name].counts == want.counts
        assert window.channels[name].total == pytest.approx(want.total)
    assert (window.rows, window.seconds, window.dropped, window.rss_bytes) == (40, 1.5, 2, 9)
    assert window.edges_id == BUNDLE.baseline.edges_id
    assert len(to_msgpack(window)) < MAX_MESSAGE / 100


def test_of_very_many_inputs_some_are_looked_at_evenly_spread_and_all_answers_are(monkeypatch):
    monkeypatch.setattr("device_agent.window.INPUTS", 16)
    buffer, x = WindowBuffer(model()), rows(64)
    answers = stored(model().interpreter, x)
    seen = []
    for _ in range(2):
        for begin in range(0, 64, 4):
            part = slice(begin, begin + 4)
            buffer.answered(x[part], answers[part], np.ones(4))
        seen.append(buffer.close(1, 0, 0).window().channels)
    assert [found["output.class"].rows for found in seen] == [64, 64]
    assert seen[1]["input.brightness"].rows == 16
    expected = input_channels(BUNDLE.manifest.input, x[::4])["input.brightness"]
    assert seen[1]["input.brightness"].total == pytest.approx(expected.sum())


def test_a_model_with_an_embedding_is_watched_by_how_novel_rows_are_in_it(monkeypatch):
    data, x = with_embedding(BUNDLE.model), rows(64)
    inner = LiteRt(data, BUNDLE.manifest.preprocessing)
    subspace = fit_subspace(inner.embed_rows(rows(64, seed=9)).astype(float))
    usual = novelty(subspace, inner.embed_rows(x))
    channels = {**BUNDLE.baseline.channels, NOVELTY: numeric_channel(usual)}
    one = msgspec.structs.replace(
        model(interpreter=lambda _data, steps: LiteRt(data, steps)),
        manifest=msgspec.structs.replace(BUNDLE.manifest, embedding=inner.embedding),
        baseline=msgspec.structs.replace(BUNDLE.baseline, channels=channels, subspace=subspace),
    )
    monkeypatch.setattr("device_agent.window.INPUTS", 16)
    clock, closed = Clock(), []
    loop = Inference(Paced(NpzReplay(x, 0), 64.0, clock), 1.0, clock, closed.append)
    loop.switch(one)
    for clock.now in (1.0, 2.0):  # of the second window every fourth row is looked at
        loop.turn()
    first, second = (c.filled.window().channels[NOVELTY] for c in closed)
    assert (first.rows, second.rows) == (64, 16)
    assert first.mean == pytest.approx(usual.mean())
    assert second.low >= usual.min() - 1e-6


def test_a_window_begins_empty_after_the_one_before():
    buffer = WindowBuffer(model())
    buffer.answered(rows(1), np.zeros((1, 4), np.int8), np.ones(1))
    buffer.skewed("range")
    buffer.failed(1)
    assert not buffer.idle
    buffer.close(1, 0, 0)
    assert buffer.idle
    assert buffer.close(1, 0, 0).window().channels == {}


def test_rows_of_another_type_lose_nothing():
    buffer = WindowBuffer(model())
    for x in (rows(1), rows(1).astype(np.float64), rows(1).astype(np.uint8)):
        buffer.answered(x, np.zeros((1, 4), np.int8), np.ones(1))
    assert buffer.close(1, 0, 0).window().channels["input.brightness"].rows == 3


@given(
    st.integers(1, 30).flatmap(
        lambda n: st.lists(
            hnp.arrays(np.float64, n, elements=st.floats(-10, 10) | st.sampled_from([np.nan, 0.5])),
            min_size=1,
            max_size=4,
        )
    ),
    st.integers(1, 12),
)
def test_sketching_all_columns_at_once_is_sketching_each(columns, bins):
    channel = numeric_channel(np.linspace(-3, 3, 50), bins)
    named = {f"c{index}": values for index, values in enumerate(columns)}
    got = sketch_all(dict.fromkeys(named, channel), named | {"not watched": columns[0]})
    assert got.keys() == named.keys()
    for name, values in named.items():
        want = sketch(channel, values)
        found = got[name]
        assert (found.counts, found.rows, found.missing) == (want.counts, want.rows, want.missing)
        assert (found.low, found.high) == (want.low, want.high)
        assert (found.total, found.squares) == pytest.approx((want.total, want.squares))


@pytest.mark.parametrize("scale", [1 / 255, 1 / 300, 2.0])
def test_bytes_are_prepared_by_table_exactly_as_by_arithmetic(scale):
    spec = TensorSpec(name="x", dtype="int8", shape=(1, 256), scale=1 / 255, zero_point=-128)
    prepared = Prepared(Preprocessing(scale, 0.01 if scale == 2 else 0), spec)
    x = np.arange(256, dtype=np.uint8).reshape(1, 256)
    assert (prepared(x) == prepared(x.astype(np.float32))).all()
    assert prepared(x).dtype == np.int8


def test_latency_bins_are_a_quarter_octave_wide():
    assert all(b / a == pytest.approx(2**0.25) for a, b in pairwise(LATENCY.edges))
    assert (LATENCY.edges[0], LATENCY.edges[-1]) == (1 / 128, 2**13)


def test_rows_are_answered_at_the_rate_and_windows_end_on_time():
    inference, clock, closed = loop(Fixed(rows(1)[0]), rate=8.0)
    inference.switch(model())
    for step in range(1, 21):
        clock.now = step / 8
        inference.turn()
    assert [(c.number, c.filled.rows) for c in closed] == [(1, 8), (2, 8)]
    assert closed[0].filled.seconds == 1.0


def test_without_a_model_no_row_is_taken():
    source = Fixed(rows(1)[0])
    inference, clock, closed = loop(source)
    clock.now = 5.0
    inference.turn()
    assert (source.taken, closed) == (0, [])


def test_a_switch_ends_the_old_models_window_and_mixes_nothing():
    inference, clock, closed = loop(Fixed(rows(1)[0]))
    inference.switch(model("d1"))
    clock.now = 0.5
    inference.turn()
    second = model("d2")
    inference.switch(second)
    inference.switch(second)  # twice is once
    clock.now = 1.5
    inference.turn()
    assert [(c.filled.model.running.digest, c.filled.rows) for c in closed] == [
        ("d1", 5),
        ("d2", 10),
    ]
    assert inference.running is second


def test_a_switch_before_the_first_row_sends_no_window():
    inference, _, closed = loop(Fixed(rows(1)[0]))
    inference.switch(model("d1"))
    inference.switch(model("d2"))
    assert closed == []


def test_rows_too_old_to_catch_up_with_are_dropped_and_counted():
    inference, clock, closed = loop(Fixed(rows(1)[0]))
    inference.switch(model())
    clock.now = 60.0  # the process was stopped for a minute
    inference.turn()
    assert closed[0].filled.rows == 20
    assert closed[0].filled.dropped == 580


@pytest.mark.parametrize(
    ("row", "reason", "answered"),
    [
        (rows(1)[0] * 9, "range", 10),
        (rows(1)[0] * np.nan, "missing", 0),
        (rows(1)[0][:4], "shape", 0),
    ],
)
def test_a_row_that_does_not_fit_the_schema_is_counted_and_no_error(row, reason, answered):
    inference, clock, closed = loop(Fixed(row))
    inference.switch(model())
    clock.now = 1.0
    inference.turn()
    [window] = [c.filled for c in closed]
    assert window.skew == {reason: 10}
    assert (window.rows, window.errors) == (answered, 0)


def test_an_inference_that_raises_is_counted():
    inference, clock, closed = loop(Fixed(rows(1)[0]))
    inference.switch(model(interpreter=Fails))
    clock.now = 1.0
    inference.turn()
    assert (closed[0].filled.rows, closed[0].filled.errors) == (0, 10)


class Slow(LiteRt):
    """A shadow that never gets ready while the test looks."""

    gate = threading.Event()

    def infer(self, prepared):
        self.gate.wait(30)
        return super().infer(prepared)


def test_a_shadow_answers_the_same_rows_and_is_only_compared():
    inference, clock, closed = loop(Fixed(rows(1)[0]))
    inference.switch(model("d1"))
    inference.accompany(model("d2"))
    clock.now = 0.9
    inference.turn()
    compared = inference._shadow._found  # what it has found so far, by its own thread
    eventually(lambda: len(compared.primary) == 9, "the shadow answered")
    clock.now = 1.0
    inference.turn()
    inference.accompany(None)
    [window] = [c.filled.window() for c in closed]
    found = window.comparison
    assert (window.digest, found.digest) == ("d1", "d2")
    assert found.rows == found.agreed >= 9
    assert found.primary.confidence.rows == found.shadow.latency_ms.rows == found.rows
    assert found.lead.total == 0
    assert inference.shadow is None


def test_a_slow_shadow_keeps_nobody_waiting_and_says_what_it_missed(monkeypatch):
    monkeypatch.setattr("device_agent.shadow.WAITING", 3)
    inference, clock, closed = loop(Fixed(rows(1)[0]))
    inference.switch(model("d1"))
    Slow.gate.clear()
    inference.accompany(model("d2", interpreter=Slow))
    clock.now = 1.0
    inference.turn()
    Slow.gate.set()
    inference.accompany(None)
    [window] = [c.filled.window() for c in closed]
    assert window.rows == 10
    assert window.comparison.skipped >= 6
    assert window.comparison.rows + window.comparison.skipped <= 10


def test_a_shadow_that_fails_is_told_and_hurts_nobody():
    inference, clock, closed = loop(Fixed(rows(1)[0]))
    inference.switch(model("d1"))
    inference.accompany(model("d2", interpreter=Fails))
    clock.now = 0.9
    inference.turn()
    eventually(lambda: inference._shadow._found.errors == 9, "it failed at all rows")
    clock.now = 1.0
    inference.turn()
    inference.accompany(None)
    [window] = [c.filled.window() for c in closed]
    assert (window.rows >= 9, window.errors) == (True, 0)
    assert (window.comparison.rows, window.comparison.errors >= 9) == (0, True)


def test_after_a_switch_no_row_of_the_model_before_is_compared():
    inference, clock, closed = loop(Fixed(rows(1)[0]))
    inference.switch(model("d1"))
    Slow.gate.clear()
    inference.accompany(model("d3", interpreter=Slow))
    clock.now = 0.9
    inference.turn()
    inference.switch(model("d2"))
    Slow.gate.set()
    clock.now = 2.0
    inference.turn()
    inference.accompany(None)
    by = {c.filled.model.running.digest: c.filled.window() for c in closed}
    assert by["d1"].comparison.rows == 0
    assert by["d2"].comparison.rows <= by["d2"].rows
