"""sd_notify to a real socket: up, alive, and silent when nobody asks."""

import socket

import pytest

from device_agent.notify import Watchdog, notify


@pytest.fixture(params=["a path", "an abstract name"])
def systemd(request, tmp_path, monkeypatch):
    """A socket as systemd gives one, and what came to it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        if request.param == "a path":
            listening.bind(str(tmp_path / "notify"))
            monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        else:
            listening.bind("")
            name = listening.getsockname().decode()
            monkeypatch.setenv("NOTIFY_SOCKET", "@" + name[1:])
        listening.settimeout(1)
        yield listening


def test_states_reach_the_socket(systemd):
    assert notify("READY=1")
    assert systemd.recv(100) == b"READY=1"


def test_the_watchdog_is_fed_as_often_as_asked(systemd):
    watchdog = Watchdog(30.0)
    for now in (0.0, 1.0, 29.9, 30.0, 31.0, 61.0):
        watchdog.alive(now)
    systemd.setblocking(False)
    came = []
    try:
        while True:
            came.append(systemd.recv(100))
    except BlockingIOError:
        assert came == [b"WATCHDOG=1"] * 3


def test_without_systemd_nothing_happens(monkeypatch, tmp_path):
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not notify("READY=1")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    assert not notify("READY=1")
