"""Telemetry windows and the loop that fills them, with a real model where it matters."""

from itertools import pairwise

import numpy as np
import pytest

from device_agent.inference import Inference
from device_agent.runtime import Model
from device_agent.window import WindowBuffer
from edge_sdk.bundle import unpack
from edge_sdk.channels import LATENCY, input_channels, output_channels
from edge_sdk.formats import to_msgpack
from edge_sdk.interpreter import LiteRt
from edge_sdk.messages import MAX_MESSAGE, Running
from edge_sdk.signing import SigningKey
from edge_sdk.sketch import sketch
from tests.agent_world import rows, tiny_bundle

KEY = SigningKey.generate()
BUNDLE = unpack(tiny_bundle(KEY), [KEY.public])


class Fails:
    """An interpreter that can't answer."""

    description, family = "fails", "xnnpack"

    def run(self, raw):
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
    real = interpreter or LiteRt(BUNDLE.model, BUNDLE.manifest.preprocessing)
    running = Running("quarters", "1", digest)
    return Model(running, BUNDLE.manifest, BUNDLE.baseline, real, real.description)


def loop(source, *, seconds: float = 1.0, rate: float = 10.0):
    clock, closed = Clock(), []
    return Inference(source, rate, seconds, clock, closed.append), clock, closed


@pytest.mark.parametrize("portion", [4 * 1024 * 1024, 3 * 256])
def test_the_sketches_are_those_of_all_rows_however_they_were_portioned(monkeypatch, portion):
    monkeypatch.setattr("device_agent.window.RAW_BYTES", portion)
    x = rows(40)
    scores = LiteRt(BUNDLE.model, BUNDLE.manifest.preprocessing).run_rows(x)
    buffer = WindowBuffer(Running("m", "1", "d"), BUNDLE.manifest, BUNDLE.baseline, 64)
    for row, score in zip(x, scores, strict=True):
        buffer.answered(row, score, 0.5)
    window = buffer.close(1.5, 2, 9)
    expected = {**input_channels(BUNDLE.manifest.input, x), **output_channels(scores.astype(float))}
    for name, values in expected.items():
        want = sketch(BUNDLE.baseline.channels[name], values)
        assert window.channels[name].counts == want.counts
        assert window.channels[name].total == pytest.approx(want.total)
    assert (window.rows, window.seconds, window.dropped, window.rss_bytes) == (40, 1.5, 2, 9)
    assert window.edges_id == BUNDLE.baseline.edges_id
    assert len(to_msgpack(window)) < MAX_MESSAGE / 100


def test_a_window_begins_empty_after_the_one_before():
    buffer = WindowBuffer(Running("m", "1", "d"), BUNDLE.manifest, BUNDLE.baseline, 8)
    buffer.answered(rows(1)[0], np.zeros(4, np.float32), 1.0)
    buffer.skewed("range")
    buffer.failed()
    assert not buffer.idle
    buffer.close(1, 0, 0)
    assert buffer.idle
    assert buffer.close(1, 0, 0).channels == {}


def test_a_row_of_another_type_begins_a_new_portion_and_loses_nothing():
    buffer = WindowBuffer(Running("m", "1", "d"), BUNDLE.manifest, BUNDLE.baseline, 8)
    for row in (rows(1)[0], rows(1)[0].astype(np.float64), rows(1)[0].astype(np.uint8)):
        buffer.answered(row, np.full(4, 0.25, np.float32), 1.0)
    assert buffer.close(1, 0, 0).channels["input.brightness"].rows == 3


def test_latency_bins_are_a_quarter_octave_wide():
    assert all(b / a == pytest.approx(2**0.25) for a, b in pairwise(LATENCY.edges))
    assert (LATENCY.edges[0], LATENCY.edges[-1]) == (1 / 128, 2**13)


def test_rows_are_answered_at_the_rate_and_windows_end_on_time():
    inference, clock, closed = loop(Fixed(rows(1)[0]), rate=8.0)
    inference.switch(model())
    for step in range(1, 21):
        clock.now = step / 8
        inference.turn()
    assert [(c.number, c.window.rows) for c in closed] == [(1, 8), (2, 8)]
    assert closed[0].window.seconds == 1.0


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
    assert [(c.window.digest, c.window.rows) for c in closed] == [("d1", 5), ("d2", 10)]
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
    assert closed[0].window.rows == 20
    assert closed[0].window.dropped == 580


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
    [window] = [c.window for c in closed]
    assert window.skew == {reason: 10}
    assert (window.rows, window.errors) == (answered, 0)


def test_an_inference_that_raises_is_counted():
    inference, clock, closed = loop(Fixed(rows(1)[0]))
    inference.switch(model(interpreter=Fails()))
    clock.now = 1.0
    inference.turn()
    assert (closed[0].window.rows, closed[0].window.errors) == (0, 10)
