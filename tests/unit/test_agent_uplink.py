"""What goes up: sealed, counted, and sent again while nobody has confirmed it."""

from types import SimpleNamespace

import pytest

from device_agent.uplink import RESEND, Bounds, Uplink
from edge_sdk.identity import Secrets
from edge_sdk.messages import Event, Window, body, unseal_upward

IDENTITY = SimpleNamespace(device="d", secrets=Secrets(b"k" * 32, "p", "t"))


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def wall(self) -> float:
        return 1e9 + self.now

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def world(tmp_path):
    clock, wire = Clock(), []
    uplink = Uplink(IDENTITY, tmp_path / "o", Bounds(3000), clock, lambda *sent: wire.append(sent))
    yield uplink, clock, wire
    uplink.close()


def opened(wire) -> list:
    return [unseal_upward(payload, kind, "d", b"k" * 32) for kind, payload in wire]


def test_what_was_queued_offline_goes_up_sealed_with_the_time_it_was_made(world):
    uplink, clock, wire = world
    clock.now += 5
    uplink.put(Event(name="a"))
    clock.now += 60
    uplink.pump()
    assert wire == []
    uplink.connected(0)
    uplink.pump()
    [sealed] = opened(wire)
    assert (sealed.seq, sealed.uptime, sealed.wall) == (1, 5.0, 1e9 + 105)
    assert body(sealed, "event") == Event(name="a")


def test_a_new_connection_sends_what_is_in_flight_again(world):
    uplink, _, wire = world
    uplink.connected(0)
    uplink.put(Event(name="a"))
    uplink.pump()
    uplink.disconnected()
    uplink.connected(0)
    assert len(wire) == 2
    assert wire[0] == wire[1]


def test_silence_of_the_server_sends_it_again_after_a_while_but_not_at_once(world):
    uplink, clock, wire = world
    uplink.connected(0)
    uplink.put(Event(name="a"))
    uplink.pump()
    clock.now += RESEND - 1
    uplink.pump()
    assert len(wire) == 1
    clock.now += 2
    uplink.pump()
    uplink.pump()
    assert len(wire) == 2
    uplink.acked(opened(wire)[0].boot, 1)
    clock.now += 2 * RESEND
    uplink.pump()
    assert len(wire) == 2
    assert uplink.waiting == 0


def test_rows_dropped_for_want_of_room_are_counted_in_the_next_window(world):
    uplink, _, wire = world
    for rows in range(1, 9):  # of as many models: they can't be made one
        model = str(rows) * 600
        uplink.put(
            Window(model=model, version="1", digest="d", edges_id="e", seconds=1.0, rows=rows)
        )
    uplink.connected(0)
    uplink.pump()
    windows = [body(sealed, "telemetry") for sealed in opened(wire)]
    arrived, dropped = sum(w.rows for w in windows), sum(w.dropped for w in windows)
    assert dropped > 0
    assert arrived + dropped >= 28  # 1 + ... + 8: windows that carried a count were dropped too


def test_windows_widen_to_meet_a_daily_budget_and_nothing_else_waits(tmp_path):
    clock, wire = Clock(), []
    bounds = Bounds(1 << 20, bytes_per_day=24_000)
    uplink = Uplink(IDENTITY, tmp_path / "o", bounds, clock, lambda *sent: wire.append(sent))
    uplink.connected(0)
    for minute in range(4 * 60):
        clock.now += 60
        uplink.put(Window(model="m", version="1", digest="d", edges_id="e", seconds=60.0, rows=600))
        if minute == 120:
            uplink.put(Event(name="urgent"))
        uplink.pump()
        for one in opened(wire[-3:]):
            uplink.acked(one.boot, one.seq)
    uplink.close()
    windows = [body(s, "telemetry") for s in opened([w for w in wire if w[0] == "telemetry"])]
    size = sum(len(payload) for _, payload in wire)
    assert size <= 4_000 + 3_000 + 500  # four hours', and what had gathered
    assert size > 5_000
    assert sum(w.rows for w in windows) > 0.3 * 4 * 60 * 600
    assert all(w.rows == 10 * w.seconds for w in windows)
    assert ("event", 1) in [(kind, 1) for kind, _ in wire]
