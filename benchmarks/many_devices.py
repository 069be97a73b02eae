"""10,000 devices on one server through Mosquitto, each reporting once a minute for ten minutes.

In the middle the broker is killed and comes back, and all of them with it. The value is the 99th
percentile from sending a window to hearing that it is stored, among those that no outage touched;
nothing may be lost, whatever happens. MANY_DEVICES and MANY_SECONDS make it smaller.
"""

import asyncio
import json
import os
import resource
import statistics
import tempfile
import threading
import time
from pathlib import Path

from benchmarks._many import Simulated, Told, live
from edge_sdk.bundle import unpack
from edge_sdk.identity import exchange_public
from edge_sdk.packing import packed
from edge_sdk.signing import SigningKey
from fleet_server.data_dir import DATABASE, KEYS
from fleet_server.keyring import open_keyring, pinned_root
from fleet_server.records import DeviceRecord
from fleet_server.store import Store
from tests.bundles import make_bundle
from tests.mosquitto import Mosquitto, missing, mosquitto
from tests.server_side import Device, ServerProcess, server_process, window_of

COUNT = int(os.environ.get("MANY_DEVICES", "10000"))
SECONDS = float(os.environ.get("MANY_SECONDS", "600"))
PERIOD = 60.0
KEY = SigningKey.generate()
BUNDLE = unpack(make_bundle(KEY), [KEY.public])


def resident(pid: int) -> float:
    """MB of a process."""
    fields = Path(f"/proc/{pid}/statm").read_text().split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def enrolled(data: Path) -> list[Device]:
    """Devices that the server's database knows, as if each had joined."""
    keys = data / KEYS
    keyring = open_keyring(keys, [], keys / "nobody.pub", lambda: pinned_root(keys))
    devices = [Device(f"many-{n:05}", exchange_public(keyring.exchange)) for n in range(COUNT)]
    with Store(data / DATABASE) as store, store.transaction():
        for number, device in enumerate(devices):
            store.add_device(
                DeviceRecord(
                    id=device.name,
                    public=device.public,
                    profile="raspberry-pi-4",
                    labels={"site": f"s{number % 40}"},
                    enrolled_at=0.0,
                )
            )
    return devices


async def story(devices: list[Device], broker: Mosquitto, told: Told) -> float:
    """All of it; the seconds from the broker's return to the last confirmation of what waited."""
    window = packed(window_of(BUNDLE, rows=600, seconds=PERIOD), BUNDLE.baseline)
    simulated = [Simulated(device, window, broker.port, told) for device in devices]
    await asyncio.gather(*(one.come(COUNT / 500) for one in simulated))
    reporting = asyncio.create_task(live(simulated, PERIOD, SECONDS))
    await asyncio.sleep(SECONDS / 2)
    broker.kill()
    waits = {one: one.device.seq for one in simulated}
    await asyncio.sleep(5)
    await asyncio.to_thread(broker.start)
    back, absorbed = time.monotonic(), 0.0
    while not reporting.done() or any(one.waiting for one in simulated):
        await asyncio.sleep(0.5)
        behind = any(seq <= waits[one] for one in simulated for seq in one.waiting)
        everyone = all(one.up for one in simulated)
        if not absorbed and everyone and not behind:
            absorbed = time.monotonic() - back
        if time.monotonic() - back > SECONDS + 120:
            break
    return absorbed


def stored(data: Path) -> tuple[int, int]:
    """Windows in the database, and how many of them are doubled."""
    with Store(data / DATABASE) as store:
        found = [(w.device, w.boot, w.seq) for w in store.windows("digits", 0)]
    return len(found), len(found) - len(set(found))


def run(folder: Path, server: ServerProcess, broker: Mosquitto, devices: list[Device]) -> str:
    told, before = Told(), resident(server.process.pid)
    broker_before, most = resident(broker.process.pid), [0.0]
    over = threading.Event()

    def watch() -> None:
        while not over.wait(2.0):
            most[0] = max(most[0], resident(server.process.pid))

    watching = threading.Thread(target=watch)
    watching.start()
    absorbed = asyncio.run(story(devices, broker, told))
    over.set()
    watching.join()
    broker_each = (resident(broker.process.pid) - broker_before) / COUNT * 1000
    server.stop()
    count, doubled = stored(folder / "data")
    cuts = statistics.quantiles(told.took, n=100)
    result = {
        "name": "many-devices",
        "value": round(cuts[98], 2),
        "unit": "s",
        "better": "lower",
        "against": "5 s (99th percentile from publish to stored and confirmed)",
        "detail": (
            f"{COUNT:,} devices through Mosquitto to one server on SQLite, a window each "
            f"{PERIOD:.0f} s for {SECONDS:.0f} s: {told.sent:,} sent, {told.sent - count} lost, "
            f"{doubled} doubled; median {cuts[49]:.2f} s; the broker killed and back: all "
            f"{told.connects - COUNT:,} reconnected and everything stored {absorbed:.0f} s later, "
            f"the slowest of it after {max(told.late, default=0.0):.0f} s; memory a device: server "
            f"{(most[0] - before) / COUNT * 1000:.1f} KB ({most[0]:.0f} MB at most), broker "
            f"{broker_each:.1f} KB"
        ),
    }
    return json.dumps(result)


def main() -> None:
    if missing():
        print(missing())
        raise SystemExit(77)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if most < COUNT + 200:
        print(f"only {most} open files are allowed here: raise 'ulimit -n'")
        raise SystemExit(77)
    with tempfile.TemporaryDirectory() as name, mosquitto(Path(name) / "broker") as broker:
        folder = Path(name)
        KEY.save(folder / "signing.key")
        options = ("--publisher", str(folder / "signing.pub"),
                   "--broker", f"mqtt://127.0.0.1:{broker.port}")  # fmt: skip
        with server_process(folder / "data", *options) as server, server.client() as fleet:
            fleet.publish(make_bundle(KEY))
            server.stop()
        devices = enrolled(folder / "data")
        with server_process(folder / "data", *options) as server:
            print(run(folder, server, broker, devices))


if __name__ == "__main__":
    main()
