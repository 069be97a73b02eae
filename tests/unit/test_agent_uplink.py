"""What goes up: sealed, counted, and sent again while nobody has confirmed it."""

from types import SimpleNamespace

import pytest

from device_agent.uplink import RESEND, Uplink
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
    uplink = Uplink(IDENTITY, tmp_path / "o", 3000, clock, lambda *sent: wire.append(sent))
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
    uplink.connected()
    uplink.pump()
    [sealed] = opened(wire)
    assert (sealed.seq, sealed.uptime, sealed.wall) == (1, 5.0, 1e9 + 105)
    assert body(sealed, "event") == Event(name="a")


def test_a_new_connection_sends_what_is_in_flight_again(world):
    uplink, _, wire = world
    uplink.connected()
    uplink.put(Event(name="a"))
    uplink.pump()
    uplink.disconnected()
    uplink.connected()
    assert len(wire) == 2
    assert wire[0] == wire[1]


def test_silence_of_the_server_sends_it_again_after_a_while_but_not_at_once(world):
    uplink, clock, wire = world
    uplink.connected()
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
    for rows in range(1, 9):
        uplink.put(
            Window(model="m" * 600, version="1", digest="d", edges_id="e", seconds=1.0, rows=rows)
        )
    uplink.connected()
    uplink.pump()
    windows = [body(sealed, "telemetry") for sealed in opened(wire)]
    arrived, dropped = sum(w.rows for w in windows), sum(w.dropped for w in windows)
    assert dropped > 0
    assert arrived + dropped >= 28  # 1 + ... + 8: windows that carried a count were dropped too
