"""A microcontroller behind the agent: delivery, self-test, results and the way back over a serial
line with noise, lost bytes and resets. The board is `reference_board` with the real TFLite Micro.
"""

import os
import random
import signal
import subprocess
import sys
import threading
import time

import msgspec
import numpy as np
import pytest
import serial
from hypothesis import given
from hypothesis import strategies as st

from device_agent.agent import Agent
from device_agent.board import Board, SilentBoardError, put_on
from device_agent.frames import Deframer, cobs, encode_frame, uncobs
from device_agent.inference import Inference
from device_agent.runtime import prepare
from device_agent.serial_protocol import Kind, Packet, Result
from device_agent.told import BoardSource
from edge_sdk.bundle import Golden, unpack
from edge_sdk.channels import Preprocessing
from edge_sdk.errors import EdgeError, RefusedError
from edge_sdk.interpreter import LiteRt
from edge_sdk.messages import Report, Window
from tests.agent_world import BOARD, LABELS, MODEL, FleetServer, config, eventually, rows, setup
from tests.bundles import make_bundle
from tests.system.test_agent_runtimes import KEY, order

pytest.importorskip("tflite_micro", reason="tflite-micro has wheels for x86-64 Linux only")
pytestmark = pytest.mark.system


TENSORS = LiteRt(MODEL.read_bytes(), Preprocessing())


def bundle(key=KEY, version="1", model=None):
    data, x = model or MODEL.read_bytes(), rows()[:4]
    here = LiteRt(data, Preprocessing(scale=1 / 16), family="builtin")
    golden = here.run_rows(x)
    return make_bundle(
        key, name="quarters", version=version, profile=BOARD.name, labels=LABELS, x=rows(),
        model=data, golden=Golden(x, {"builtin": golden}), tolerance=2 / 256,
        tensors=(here.input, here.output),
    )  # fmt: skip


class Line:
    """A board's process at one end, a port for the gateway at the other, and what goes wrong."""

    def __init__(self, folder, *sensor) -> None:
        self.folder, self._sensor = folder, sensor
        self._mine, theirs = os.openpty()  # the gateway's side
        self._wire, self._board_port = os.openpty()  # the board's side
        self.port = os.ttyname(theirs)
        for fd in (theirs, self._board_port):
            _raw(fd)
        self._keep = theirs
        self.noise = self.loss = 0.0
        self.passed = 0
        self.after = lambda passed: None
        self._random = random.Random(7)  # noqa: S311 - a test
        self._start()
        for source, sink in ((self._mine, self._wire), (self._wire, self._mine)):
            threading.Thread(target=self._carry, args=(source, sink), daemon=True).start()

    def _start(self) -> None:
        name = os.ttyname(self._board_port)
        command = [sys.executable, "-m", "device_agent.reference_board", name, self.folder]
        command += map(str, self._sensor)
        self._process = subprocess.Popen(command)

    def reset(self) -> None:
        """The reset button."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(30)
        self._start()

    def _carry(self, source: int, sink: int) -> None:
        while True:
            try:
                data = bytearray(os.read(source, 256))
                for at in range(len(data)):
                    if self._random.random() < self.noise:
                        data[at] ^= 1 << self._random.randrange(8)
                kept = bytes(b for b in data if self._random.random() >= self.loss)
                os.write(sink, kept)
            except OSError:
                return
            self.passed += len(data)
            self.after(self.passed)

    def close(self) -> None:
        self._process.kill()
        self._process.wait(30)
        for fd in (self._mine, self._wire, self._board_port, self._keep):
            os.close(fd)


def _raw(fd: int) -> None:
    import tty

    tty.setraw(fd)


@pytest.fixture
def line(tmp_path):
    made = Line(tmp_path / "flash")
    yield made
    made.close()


@pytest.fixture
def board(line):
    made = Board(serial.Serial(line.port, 115_200, timeout=0.05))
    yield made
    made.close()


def test_a_model_is_delivered_tested_and_answers_as_the_reference_kernels_do(board):
    data = bundle()
    model = prepare(unpack(data, [KEY.public]), order(data), BOARD, board)
    assert model.description == "tflite-micro/board"
    x = rows(6)
    stored = np.concatenate([model.interpreter.infer(row) for row in model.interpreter.prepare(x)])
    expected = LiteRt(MODEL.read_bytes(), Preprocessing(scale=1 / 16), family="builtin").run_rows(x)
    assert model.interpreter.scores(stored) == pytest.approx(expected, abs=2 / 256)
    counted = board.counters()
    assert (counted.rows, counted.errors, counted.resets) == (10, 0, 1)
    assert (
        counted.active.hex() == unpack(data, [KEY.public]).manifest.members["model.tflite"].sha256
    )


def test_noise_and_lost_bytes_cost_time_only(board, line, monkeypatch):
    monkeypatch.setattr("device_agent.board.TIMEOUT", 0.1)
    monkeypatch.setattr("device_agent.board.TRIES", 100)
    board.counters()  # the board has started
    line.noise, line.loss = 0.0004, 0.0002
    found = put_on(board, MODEL.read_bytes(), unpack(bundle(), [KEY.public]).manifest)
    stored = [found.infer(row) for row in found.prepare(rows(20))]
    line.noise = line.loss = 0.0
    clean = [found.infer(row) for row in found.prepare(rows(20))]
    assert np.concatenate(stored).tolist() == np.concatenate(clean).tolist()


def test_a_reset_in_the_middle_of_a_delivery_goes_on_where_it_was(board, line, monkeypatch):
    monkeypatch.setattr("device_agent.board.TIMEOUT", 1.0)
    board.counters()
    begun = line.passed
    resets = []

    def reset_once(passed):
        if not resets and passed - begun > 2200:
            resets.append(passed)
            line.reset()

    line.after = reset_once
    digest = board.deliver(MODEL.read_bytes())
    assert resets
    board.run(digest, bytes(64))
    assert board.counters().resets == 2
    before = line.passed
    board.deliver(MODEL.read_bytes())  # it is there: nothing travels again
    assert line.passed - before < 200


def test_a_damaged_or_unknown_model_never_answers(board):
    with pytest.raises(RefusedError, match="no such model"):
        board.run(bytes(32), b"")
    with pytest.raises(RefusedError, match="a model may have"):
        board.deliver(bytes(2 * 1024 * 1024))
    with pytest.raises(RefusedError, match="no TFLite model"):
        board.deliver(b"no model at all" * 10)
    digest = board.deliver(MODEL.read_bytes())
    with pytest.raises(RefusedError, match="cannot reshape"):
        board.run(digest, bytes(63))
    assert board.counters().active == bytes(32)


def test_a_silent_board_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr("device_agent.board.TIMEOUT", 0.02)
    mine, theirs = os.openpty()
    one = Board(serial.Serial(os.ttyname(theirs), timeout=0.01))
    with pytest.raises(SilentBoardError, match="did not answer HELLO in 20 tries"):
        one.deliver(b"x")
    one.close()
    os.close(mine)
    os.close(theirs)


def test_what_a_board_senses_and_answers_by_itself_is_counted_as_what_answered_it(tmp_path):
    np.savez(tmp_path / "x.npz", x=rows(16))
    line = Line(tmp_path / "flash", tmp_path / "x.npz", 0.005, 1 / 16)
    board = Board(serial.Serial(line.port, 115_200, timeout=0.05))
    closed, stop, asked = [], threading.Event(), []
    ask = board.run
    board.run = lambda *given: (asked.append(given), ask(*given))[1]
    one, other = (
        prepare(unpack(data, [KEY.public]), order(data), BOARD, board)
        for data in (bundle(), bundle(version="2", model=MODEL.read_bytes() + bytes(4)))
    )
    loop = Inference(BoardSource(board), 1e9, time.monotonic, closed.append)
    golden = len(asked)
    thread = threading.Thread(target=loop.run, args=(stop,))
    try:
        loop.switch(one)
        thread.start()
        eventually(lambda: loop.totals.rows > 40, "a board without a model is asked at first")
        loop.switch(other)
        eventually(lambda: loop.totals.rows > 80, "rows after the switch")
        line.reset()
        eventually(lambda: "reset, 2 times" in board.resets, "it tells that it was reset")
        so_far = loop.totals.rows
        eventually(lambda: loop.totals.rows > so_far + 20, "rows after the reset")
    finally:
        stop.set()
        thread.join(30)
        board.close()
        line.close()
    first, second = (one.filled.window() for one in closed)
    assert (first.digest, second.digest) == (one.running.digest, other.running.digest)
    assert first.rows + second.rows == loop.totals.rows
    assert (loop.totals.errors, loop.totals.skewed) == (0, 0)
    assert len(asked) - golden < loop.totals.rows / 2  # what it answered is not asked for again
    for window in (first, second):
        assert window.channels["latency_ms"].rows == window.rows
        assert 0.3 < window.channels["input.brightness"].mean < 0.6
        assert window.channels["output.class"].counts[-1] == 0


def test_a_gateway_updates_its_board_and_goes_back_when_the_self_test_fails(board, tmp_path):
    with FleetServer() as fleet:
        given = config(tmp_path, fleet.url)
        made = msgspec.structs.replace(setup(given, fleet.token), board=board)
        stop = threading.Event()
        thread = threading.Thread(target=Agent(made).run, args=(stop,))
        thread.start()
        try:
            first = fleet.order("dev-1", bundle(fleet.publisher))

            def reports(generation, phase):
                found = fleet.bodies("dev-1", Report)
                return [r for r in found if (r.generation, r.phase) == (generation, phase)]

            eventually(lambda: reports(first.generation, "confirmed"), "v1 runs", 60)
            assert reports(first.generation, "confirmed")[0].runtime == "tflite-micro/board"
            bad = make_bundle(
                fleet.publisher, name="quarters", version="2", profile=BOARD.name, labels=LABELS,
                x=rows(), model=MODEL.read_bytes() + bytes(4),
                golden=Golden(rows()[:4], {"builtin": np.ones((4, 4), np.float32)}),
                tensors=(TENSORS.input, TENSORS.output),
            )  # fmt: skip
            second = fleet.order("dev-1", bad, version="2")
            eventually(lambda: reports(second.generation, "refused"), "v2 is refused", 60)
            assert "golden answers differ" in reports(second.generation, "refused")[0].reason
            seen = len(fleet.bodies("dev-1", Window))
            eventually(lambda: len(fleet.bodies("dev-1", Window)) > seen + 2, "v1 goes on", 60)
            last = fleet.bodies("dev-1", Window)[-1]
            assert (last.digest, last.errors) == (first.digest, 0)
            assert last.rows > 0
        finally:
            stop.set()
            thread.join(30)


@given(st.binary(max_size=1200))
def test_frames_hold_any_payload_and_no_zero_byte(payload):
    frame = encode_frame(payload)
    assert frame.count(0) == 1
    assert Deframer().feed(frame) == [payload]
    assert uncobs(cobs(payload)) == payload


@given(st.binary(max_size=80))
def test_junk_is_no_packet_or_a_packet_that_is_itself(junk):
    try:
        found = Packet.decode(junk)
    except EdgeError:
        return
    assert found.encode() == junk
    assert found.kind in Kind


@given(st.binary(max_size=80))
def test_junk_is_no_result_or_a_result_that_is_itself(junk):
    try:
        found = Result.decode(junk)
    except EdgeError:
        return
    assert found.encode() == junk
