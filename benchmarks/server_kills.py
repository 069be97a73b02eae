"""A server that is killed fifty times under load, whose disk fills up, whose parts go away.

Devices send windows as fast as they are confirmed, and again what was not. First one server with
its own endpoint and SQLite is killed (SIGKILL) and started KILLS times; then its disk, a small
tmpfs, is filled and freed (as root alone); then Mosquitto and PostgreSQL are killed under another
server. The value is how many confirmed windows are missing, or doubled, after each.
"""

import asyncio
import json
import os
import random
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2

from benchmarks._many import Simulated, Told
from edge_sdk.bundle import unpack
from edge_sdk.packing import packed
from edge_sdk.signing import SigningKey
from fleet_server.data_dir import DATABASE
from fleet_server.store import Store
from tests import mosquitto, postgres
from tests.bundles import make_bundle
from tests.server_side import Device, ServerProcess, join, server_process, until, window_of

KILLS = int(os.environ.get("KILLS", "50"))
OUTAGES = 5  # of broker and database
DEVICES, WAITING = 10, 100  # windows of one device that are not confirmed
FAILS, AGAIN = "it fails that messages are stored", "messages are stored again"
KEY = SigningKey.generate()
BUNDLE = unpack(make_bundle(KEY), [KEY.public])
NAP = threading.Event()


class Load:
    """Devices in a thread of their own; `confirmed` may be read at any time."""

    def __init__(self, devices: list[Device], port: int, *, own: bool) -> None:
        window, self.told, self._over = packed(window_of(BUNDLE), BUNDLE.baseline), Told(), False
        self.devices = [
            Simulated(device, window, port, self.told, back=0.3,
                      password=device.secrets.mqtt_password if own else "")
            for device in devices
        ]  # fmt: skip
        # A daemon: where a stage fails the benchmark ends, and does not send for ever.
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self._thread.start()

    async def _run(self) -> None:
        await asyncio.gather(*(one.come(0.1) for one in self.devices))
        while not self._over or any(one.waiting for one in self.devices):
            for one in self.devices:
                if not self._over and len(one.waiting) < WAITING:
                    one.report()
                else:  # a broker that was killed has lost what it had
                    one.send_old(1.0)
            await asyncio.sleep(0.005)
        for one in self.devices:
            one.leave()

    @property
    def confirmed(self) -> int:
        return len(self.told.took) + len(self.told.late)

    def more(self, count: int = 200) -> None:
        """Wait until so many more are confirmed."""
        until_now = self.confirmed
        until(lambda: self.confirmed >= until_now + count, 120)

    def finish(self) -> int:
        """No new windows; every one that was sent is confirmed. How many."""
        self._over = True
        self._thread.join(180)
        return self.told.sent


def joined(server: ServerProcess, names: str) -> list[Device]:
    with server.client() as fleet, httpx2.Client(base_url=server.where.url) as http:
        fleet.publish(make_bundle(KEY))
        token = fleet.new_enrolment_key(uses=DEVICES).token
        return [join(http, token, f"{names}-{n}")[0] for n in range(DEVICES)]


def wrong(where: Path | str, sent: int) -> int:
    """Windows that are missing in the database, and those that are there twice."""
    with Store(where) as store:
        found = [(w.device, w.boot, w.seq) for w in store.windows("digits", 0)]
    return sent - len(set(found)) + len(found) - len(set(found))


def killed(folder: Path, publisher: tuple[str, ...]) -> tuple[int, int]:
    """SIGKILL after SIGKILL; windows sent, and of them wrong."""
    chance, data = random.Random(1), folder / "killed"  # noqa: S311 - when to kill
    server = ServerProcess(data, *publisher)
    ports = ("--mqtt-port", str(server.where.mqtt_port))
    load = Load(joined(server, "k"), server.where.mqtt_port, own=True)
    for _ in range(KILLS):
        load.more(chance.randrange(50, 500))
        NAP.wait(chance.uniform(0.0, 0.2))
        server.kill()
        server = ServerProcess(data, *publisher, *ports)
    sent = load.finish()
    server.stop()
    return sent, wrong(data / DATABASE, sent)


def filled(folder: Path, publisher: tuple[str, ...]) -> tuple[int, int]:
    """The disk is full, and is not; windows sent, and of them wrong."""
    with small_disk(folder / "disk") as disk, server_process(disk, *publisher) as server:
        load = Load(joined(server, "d"), server.where.mqtt_port, own=True)
        for _ in range(OUTAGES):
            load.more()
            fill_once(disk, server)
        sent = load.finish()
        server.stop()
        return sent, wrong(disk / DATABASE, sent)


def fill_once(disk: Path, server: ServerProcess) -> None:
    """Until the server has said that it fails, and that it goes on."""
    before = server.output.count(FAILS)
    ballast = (disk / "ballast").open("wb", buffering=0)
    try:
        while True:
            ballast.write(bytes(1 << 16))
    except OSError:
        ballast.close()
    until(lambda: server.output.count(FAILS) > before, 60)
    (disk / "ballast").unlink()
    until(lambda: server.output.count(AGAIN) == server.output.count(FAILS), 60)


@contextmanager
def small_disk(at: Path) -> Iterator[Path]:
    at.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=96m", "tmpfs", str(at)], check=True)
    try:
        yield at
    finally:
        subprocess.run(["umount", "--lazy", str(at)], check=True)


def broken(folder: Path, publisher: tuple[str, ...]) -> tuple[int, int]:
    """Broker and database are killed and come back; windows sent, and of them wrong."""
    with mosquitto.mosquitto(folder / "broker") as broker, postgres.postgres(durable=True) as base:
        where = base.new_database()
        options = (*publisher, "--broker", f"mqtt://127.0.0.1:{broker.port}")
        with server_process(folder / "broken", *options, database=where) as server:
            load = Load(joined(server, "b"), broker.port, own=False)
            for part in (broker, base) * OUTAGES:
                load.more()
                part.kill()
                NAP.wait(0.5)
                part.start()
            sent = load.finish()
            server.stop()
        return sent, wrong(where, sent)


def main() -> None:
    if lacking := mosquitto.missing() or postgres.missing():
        print(lacking)
        raise SystemExit(77)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        KEY.save(folder / "signing.key")
        publisher = ("--publisher", str(folder / "signing.pub"))
        told = {f"killed {KILLS} times": killed(folder, publisher)}
        if os.geteuid() == 0:
            told[f"its disk full {OUTAGES} times"] = filled(folder, publisher)
        told[f"Mosquitto and PostgreSQL gone {OUTAGES} times each"] = broken(folder, publisher)
    result = {
        "name": "server-kills",
        "value": sum(lost for _, lost in told.values()),
        "unit": "lost or doubled",
        "better": "lower",
        "against": "0",
        "detail": f"{DEVICES} devices that send again what was not confirmed; the server "
        + "; ".join(f"{what}: {sent:,} windows, {bad} wrong" for what, (sent, bad) in told.items()),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
