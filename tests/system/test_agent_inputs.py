"""Every source from its one line of configuration, with the real thing behind it where it can be:
files, sockets, a pseudo terminal, OpenCV on a video file.
"""

import json
import os
import shutil
import socket
import struct
import subprocess
import threading
import urllib.error
import urllib.request
import wave

import numpy as np
import pytest

from device_agent.feed import Feed
from device_agent.frames import Deframer, encode_frame
from device_agent.inputs import open_source
from edge_sdk.errors import EdgeError, InvalidInputError
from tests.agent_world import eventually

pytestmark = pytest.mark.system


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def replayed(line, count):
    """The first `count` rows of a recording."""
    clock = Clock()
    source = open_source(line, 1.0, clock)
    clock.now = float(count)
    found = []
    while len(found) < count:
        clock.now += 1
        found += list(source.take(1).rows)
    return found


def live(line):
    return open_source(line, 1.0)


def rows_of(source, count, send=lambda: None):
    """Its first rows; `send` sends them, again and again since opening a port forgets what came."""
    found = []

    def enough():
        send()
        found.extend(source.take(16).rows)
        return len(found) >= count

    eventually(enough, f"{count} rows; {source.trouble}", 30)
    return found


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def test_a_folder_of_pictures_is_scaled_and_comes_in_order(tmp_path):
    image = pytest.importorskip("PIL.Image")
    for name, value in (("b.png", 200), ("a.jpg", 10), ("note.txt", 0)):
        if name.endswith("txt"):
            (tmp_path / name).write_text("no picture")
        else:
            image.new("RGB", (40, 20), (value, value, value)).save(tmp_path / name)
    first, second, third = replayed(f"folder:{tmp_path}?size=8x4&colour=grey", 3)
    assert (first.shape, first.dtype) == ((4, 8, 1), np.uint8)
    assert [int(p.mean().round()) for p in (first, second, third)] == [10, 200, 10]


def test_a_wav_file_gives_overlapping_windows(tmp_path):
    with wave.open(str(tmp_path / "a.wav"), "wb") as made:
        made.setnchannels(2)
        made.setsampwidth(2)
        made.setframerate(8000)
        for n in range(100):
            made.writeframes(struct.pack("<hh", n * 256, -1))
    first, second = replayed(f"wav:{tmp_path / 'a.wav'}?window=20&hop=10", 2)
    assert first.shape == (20,)
    assert first[10] == second[0] == pytest.approx(10 / 128)
    with pytest.raises(InvalidInputError, match="a window of 500"):
        open_source(f"wav:{tmp_path / 'a.wav'}?window=500", 1.0)


def test_a_csv_file_may_have_a_head_and_gaps(tmp_path):
    (tmp_path / "x.csv").write_text("a,b\n1,2\n3,\n")
    found = sorted(row[0] for row in replayed(f"csv:{tmp_path / 'x.csv'}", 2))
    assert found == [1, 3]
    (tmp_path / "y.csv").write_text("1,2\n3,x\n")
    with pytest.raises(InvalidInputError, match="could not convert"):
        open_source(f"csv:{tmp_path / 'y.csv'}", 1.0)


def test_opencv_reads_frames_as_from_a_camera(tmp_path):
    cv2 = pytest.importorskip("cv2")
    path = str(tmp_path / "film.avi")
    film = cv2.VideoWriter(path, cv2.VideoWriter_fourcc(*"MJPG"), 25, (64, 48))
    for _ in range(5):
        film.write(np.full((48, 64, 3), (0, 0, 200), np.uint8))  # red, in OpenCV's order
    film.release()
    source = live(f"camera:{path}?size=16x12")
    try:
        row = rows_of(source, 1)[0]
    finally:
        source.close()
    assert row.shape == (12, 16, 3)
    assert row[..., 0].mean() > 150 > row[..., 2].mean()


@pytest.mark.parametrize(
    ("options", "sent", "got"),
    [
        ("format=json&columns=t,h", b'boot v1\n{"t": 1.5, "h": 2}\n[3, 4]\n', [[1.5, 2], [3, 4]]),
        ("format=csv", b"1.5,2\nnoise\n3,4\n", [[1.5, 2], [3, 4]]),
        (
            "format=cobs",
            b"".join(encode_frame(struct.pack("<2f", *v)) for v in ((1.5, 2), (3, 4))),
            [[1.5, 2], [3, 4]],
        ),
    ],
)
def test_a_serial_sensor_is_read_in_each_format(options, sent, got):
    board, port = os.openpty()
    source = live(f"serial:{os.ttyname(port)}?{options}")
    try:
        found = rows_of(source, 2, lambda: os.write(board, sent))
        assert [row.tolist() for row in found][:2] == got
    finally:
        source.close()
        os.close(board)
        os.close(port)


def test_a_sensor_that_is_unplugged_is_told_and_comes_back(monkeypatch):
    monkeypatch.setattr("device_agent.feed.FIRST_WAIT", 0.02)
    board, port = os.openpty()
    name = os.ttyname(port)
    source = live(f"serial:{name}?format=csv")
    try:
        rows_of(source, 1, lambda: os.write(board, b"1\n"))
        os.close(port)
        os.close(board)
        eventually(lambda: source.trouble, "trouble is told")
    finally:
        source.close()


def test_rows_posted_over_http_arrive_and_others_are_refused():
    port = free_port()
    source = live(f"http://127.0.0.1:{port}")

    def post(body):
        return urllib.request.urlopen(f"http://127.0.0.1:{port}/", body, timeout=10).status

    def listens():
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    try:
        eventually(listens, "it listens")
        assert post(b"[1, 2, 3]") == 202
        with pytest.raises(urllib.error.HTTPError, match="400"):
            post(b"{}")
        assert rows_of(source, 1)[0].tolist() == [1, 2, 3]
    finally:
        source.close()


@pytest.mark.skipif(not shutil.which("mosquitto"), reason="no mosquitto on this machine")
def test_rows_published_to_a_topic_arrive(tmp_path):
    from paho.mqtt import publish

    port = free_port()
    config = tmp_path / "mosquitto.conf"
    config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\n")
    broker = subprocess.Popen(["mosquitto", "-c", str(config)], stderr=subprocess.DEVNULL)
    try:
        source = live(f"mqtt://127.0.0.1:{port}/field/sensor")
        found = []

        def came():
            try:
                payload = json.dumps({"values": [1, 2]})
                publish.single("field/sensor", payload, hostname="127.0.0.1", port=port)
            except OSError:
                return False
            found.extend(source.take(10).rows)
            return found

        eventually(came, f"a row; {source.trouble}", 30)
        source.close()
        assert found[0].tolist() == [1, 2]
    finally:
        broker.terminate()
        broker.wait(10)


def test_a_python_callable_gives_rows(tmp_path, monkeypatch):
    (tmp_path / "my_sensor_of_test.py").write_text(
        "def read():\n    return [1.0, 2.0]\n\ndef stream():\n    yield from ([1], [2])\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    for name, expected in (("stream", [[1], [2]]),):
        source = live(f"python:my_sensor_of_test:{name}")
        assert [row.tolist() for row in rows_of(source, 2)][:2] == expected
        eventually(lambda s=source: "has ended" in s.trouble, "the end is told")
        source.close()


def test_a_source_that_can_not_work_says_why():
    for line, says in (
        ("python:no_such_module_here:read", "can't be imported"),
        ("serial:/dev/no-such-port", "no-such-port"),
        ("camera:/no/such/film.avi", "can't be opened"),
        ("microphone:no-such-microphone", "microphone"),  # with or without PortAudio
        ("picamera:9", "Pi camera"),
    ):
        source = live(line)
        try:
            eventually(lambda s=source, t=says: t in s.trouble, f"{line}: {source.trouble}")
        finally:
            source.close()
    with pytest.raises(InvalidInputError, match="unknown field"):
        live("camera:0?sise=1x1")
    with pytest.raises(EdgeError, match="must be WIDTHxHEIGHT"):
        live("camera:0?size=big")


def test_when_nobody_takes_rows_the_oldest_are_dropped_and_counted():
    ready = threading.Event()

    def produce(put, stop):
        for n in range(10):
            put(np.array([n]))
        ready.set()
        stop.wait()

    feed = Feed("ten", produce, room=4)
    try:
        assert ready.wait(30)
        taken = feed.take(100)
        assert (taken.rows[:, 0].tolist(), taken.dropped) == ([6, 7, 8, 9], 6)
        assert feed.take(100).dropped == 0
    finally:
        feed.close()


def test_noise_between_frames_costs_only_the_frames_it_hits():
    deframer = Deframer()
    good = [encode_frame(bytes([n]) * 20) for n in range(4)]
    damaged = bytearray(good[1])
    damaged[5] ^= 255
    got = deframer.feed(b"\x11\x22\0" + good[0] + bytes(damaged) + good[2][:7])
    got += deframer.feed(good[2][7:] + good[3])
    assert got == [bytes([n]) * 20 for n in (0, 2, 3)]
    assert deframer.damaged == 2
