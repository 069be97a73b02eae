"""Three weeks without the server: what waits is bounded, and all of it arrives, only coarser."""

from types import SimpleNamespace

import numpy as np

from device_agent.ledger import size
from device_agent.uplink import Bounds, Uplink
from edge_sdk.packing import packed
from tests.server_side import NOW, backend
from tests.unit.test_server_ingest import drive

HOURS = 21 * 24
LIMIT = 40_000  # bytes


class Clock:
    now = 0.0

    def wall(self) -> float:
        return NOW - 3600 * HOURS + self.now

    def monotonic(self) -> float:
        return self.now


def test_weeks_offline_arrive_coarser_and_whole_within_the_bound(tmp_path, database):
    clock, wire = Clock(), []
    with backend(tmp_path, database) as back:
        device = back.device()
        uplink = Uplink(
            SimpleNamespace(device=device.name, secrets=device.secrets),
            tmp_path / "outbox", Bounds(LIMIT), clock, lambda *sent: wire.append(sent),
        )  # fmt: skip
        counts = np.zeros(len(back.window().channels["input.brightness"].counts), int)
        for hour in range(HOURS):
            clock.now = 3600.0 * hour
            window = back.window(rows=20, seed=hour, seconds=3600.0)
            counts += window.channels["input.brightness"].counts
            uplink.put(packed(window, back.bundle.baseline))
            uplink.pump()
            if hour % 24 == 23:
                assert size(tmp_path / "outbox")[1] <= LIMIT
        assert wire == []

        async def story(rig):
            uplink.connected(1)
            while uplink.waiting or wire:
                uplink.pump()
                sent, wire[:] = list(wire), []
                await rig.send(device, *sent)
                for _, boot, seq in rig.acks[-1:]:
                    uplink.acked(boot, seq)

        drive(back, story)
        uplink.close()
        arrived = back.store.windows("digits", 0)
        assert 10 < len(arrived) < HOURS
        assert sum(window.rows for window in arrived) == 20 * HOURS
        assert sum(window.seconds for window in arrived) == 3600.0 * HOURS
        stored = [one.window.channels["input.brightness"] for one in back.store.window_bodies(0)]
        assert np.sum([sketch.counts for sketch in stored], axis=0).tolist() == counts.tolist()
