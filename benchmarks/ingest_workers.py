"""Windows a second that two ingest workers store over what one does, Mosquitto and PostgreSQL.

Workers (`edge server ingest`) share one subscription; the server itself is stopped meanwhile, since
it would take a share too. Everything runs on this machine: generator, broker, database, workers.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks import ingest
from benchmarks.ingest_broker import last_window, stored_rate
from edge_sdk.topics import UPWARD
from fleet_server.store import Store
from tests import mosquitto, postgres
from tests.server_side import Device, server_process, until

NEEDED = 1.4
EACH = 3000
COUNT = ingest.DEVICES * EACH
TOLD = mosquitto.OPEN + "log_type subscribe\n"
CORES = os.cpu_count() or 1


@contextmanager
def working(folder: Path, database: str, broker: mosquitto.Mosquitto, count: int) -> Iterator[None]:
    """So many workers, once all of them have subscribed."""
    workers = [
        subprocess.Popen(
            [sys.executable, "-m", "edge_sdk.cli", "server", "ingest", "--data-dir",
             str(folder / "data"), "--broker", f"mqtt://127.0.0.1:{broker.port}",
             "--worker", str(n)],
            env=os.environ | {"EDGE_DATABASE": database},
        )
        for n in range(count)
    ]  # fmt: skip
    told = broker.folder / "mosquitto.log"
    wanted = count * len(UPWARD)
    try:
        until(lambda: told.read_text().count(" $share/") == wanted, 60)
        yield
    finally:
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.wait(30)


def idle() -> float:
    """Seconds that this machine's cores had nothing to do, all added up."""
    fields = Path("/proc/stat").read_text().splitlines()[0].split()
    return (int(fields[4]) + int(fields[5])) / os.sysconf("SC_CLK_TCK")  # idle, waiting for a disk


def rate(
    folder: Path, database: str, devices: list[Device], workers: int, number: int
) -> tuple[float, float]:
    """Windows a second, and the share of all cores' time that was in use meanwhile.

    With a broker of its own, since one keeps the sessions of workers that are gone.
    """
    given = ingest.scripts(devices, f"boot-{workers}-{number}", EACH)
    path = ingest.write(folder, ingest.without_passwords(given))
    with (
        mosquitto.mosquitto(folder / f"broker-{workers}-{number}", TOLD) as broker,
        working(folder, database, broker, workers),
        Store(database) as store,
    ):
        began, before = time.perf_counter(), idle()
        found = stored_rate(lambda: last_window(store), broker.port, path, COUNT)
        took = time.perf_counter() - began
        return found, 1 - (idle() - before) / (CORES * took)


def main() -> None:
    if lacking := mosquitto.missing() or postgres.missing():
        print(lacking)
        raise SystemExit(77)
    rates: dict[int, list[tuple[float, float]]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as name, postgres.postgres(durable=True) as base:
        folder, database = Path(name), base.new_database()
        ingest.KEY.save(folder / "signing.key")
        publisher = ("--publisher", str(folder / "signing.pub"))
        with server_process(folder / "data", *publisher, database=database) as server:
            devices = ingest.join_all(server)
            server.stop()
        for number in range(ingest.TIMES):
            for workers, found in rates.items():
                found.append(rate(folder, database, devices, workers, number))
                print(f"{workers}: {found[-1][0]:,.0f} windows a second, {found[-1][1]:.0%} busy")
    (one, with_one), (two, with_two) = (
        [statistics.median(column) for column in zip(*rates[workers], strict=True)]
        for workers in (1, 2)
    )
    result = {
        "name": "ingest-workers",
        "value": round(two / one, 2),
        "unit": "x",
        "better": "higher",
        "against": f"one worker (at least {NEEDED} where cores allow; {CORES} here)",
        "detail": (
            f"Mosquitto and PostgreSQL, median of {ingest.TIMES} times {COUNT:,} windows: "
            f"{two:,.0f}/s with two workers over {one:,.0f}/s with one; generator, broker and "
            f"database shared the {CORES} cores, in use for {with_two:.0%} and {with_one:.0%} of "
            "the time"
        ),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
