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
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks import ingest
from benchmarks.ingest_broker import stored_rate
from fleet_server.store import Store
from tests import mosquitto, postgres
from tests.server_side import Device, server_process, until

NEEDED = 1.4


@contextmanager
def working(folder: Path, database: str, port: int, count: int) -> Iterator[None]:
    """So many workers, once all of them have subscribed."""
    log = (folder / f"workers-{port}.log").open("w+")
    workers = [
        subprocess.Popen(
            [sys.executable, "-m", "edge_sdk.cli", "server", "ingest", "--data-dir",
             str(folder / "data"), "--broker", f"mqtt://127.0.0.1:{port}", "--worker", str(n)],
            env=os.environ | {"EDGE_DATABASE": database},
            stderr=log,
        )
        for n in range(count)
    ]  # fmt: skip
    told = Path(log.name)
    until(lambda: told.read_text().count("connected to") == count, 60)
    try:
        yield
    finally:
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.wait(30)
        log.close()


def rate(folder: Path, database: str, devices: list[Device], workers: int, number: int) -> float:
    """With a broker of its own, since one keeps the sessions of workers that are gone."""
    given = ingest.scripts(devices, f"boot-{workers}-{number}")
    path = ingest.write(folder, ingest.without_passwords(given))
    with (
        mosquitto.mosquitto(folder / f"broker-{workers}-{number}") as broker,
        working(folder, database, broker.port, workers),
        Store(database) as store,
    ):
        return stored_rate(store, broker.port, path)


def main() -> None:
    if lacking := mosquitto.missing() or postgres.missing():
        print(lacking)
        raise SystemExit(77)
    rates: dict[int, list[float]] = {1: [], 2: []}
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
                print(f"{workers}: {found[-1]:,.0f} windows a second")
    one, two = (statistics.median(rates[workers]) for workers in (1, 2))
    cores = os.cpu_count() or 1
    enough = "" if cores >= 4 else (
        f"; {cores} cores are not enough for it: generator, broker, database and one worker fill "
        "them already"
    )  # fmt: skip
    result = {
        "name": "ingest-workers",
        "value": round(two / one, 2),
        "unit": "x",
        "better": "higher",
        "against": f"one worker (at least {NEEDED} where cores allow)",
        "detail": (
            f"Mosquitto and PostgreSQL, median of {ingest.TIMES} times {ingest.COUNT:,} windows: "
            f"{two:,.0f}/s with two workers over {one:,.0f}/s with one{enough}"
        ),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
