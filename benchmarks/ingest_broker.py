"""Windows a second that the server stores through Mosquitto, over a bare paho script's behind one.

As `ingest`, but our server, too, is a subscriber of Mosquitto (`--broker`); its time runs until the
last window is in the database.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import ingest
from fleet_server.data_dir import DATABASE
from fleet_server.store import Store
from tests.mosquitto import missing, mosquitto
from tests.server_side import server_process, until


def stored_rate(store: Store, port: int, path: Path) -> float:
    """Windows a second from the first commit to the last, without those of the first."""
    before = count(store)
    loading = subprocess.Popen(
        [sys.executable, "-m", "benchmarks._load", str(port), str(path)], stdout=subprocess.PIPE
    )
    try:
        until(lambda: count(store) > before, 60)
        first, began = count(store), time.perf_counter()
        until(lambda: count(store) == before + ingest.COUNT, 120)
        return (before + ingest.COUNT - first) / (time.perf_counter() - began)
    finally:
        loading.communicate(timeout=60)


def count(store: Store) -> int:
    """Windows in the database."""
    with store._read() as c:
        return int(c.exec_driver_sql("SELECT count(*) FROM windows").scalar_one())


def main() -> None:
    if missing():
        print(missing())
        raise SystemExit(77)
    ours, theirs = [], []
    with tempfile.TemporaryDirectory() as name, mosquitto(Path(name) / "broker") as broker:
        folder = Path(name)
        ingest.KEY.save(folder / "signing.key")
        options = ("--publisher", str(folder / "signing.pub"),
                   "--broker", f"mqtt://127.0.0.1:{broker.port}")  # fmt: skip
        with server_process(folder / "data", *options) as server:
            devices = ingest.join_all(server)
            with Store(folder / "data" / DATABASE) as store:
                for number in range(ingest.TIMES):
                    given = ingest.scripts(devices, f"boot-{number}")
                    path = ingest.write(folder, ingest.without_passwords(given))
                    ours.append(stored_rate(store, broker.port, path))
                    theirs.append(ingest.COUNT / ingest.bare(folder, given, number))
                    print(f"{ours[-1]:,.0f} and {theirs[-1]:,.0f} windows a second")
    best, peer = statistics.median(ours), statistics.median(theirs)
    result = {
        "name": "ingest-broker",
        "value": round(best / peer, 2),
        "unit": "x",
        "better": "higher",
        "against": "Mosquitto, bare paho, decode, batched insert (at least 1.5)",
        "detail": (
            f"our server behind Mosquitto too, SQLite synchronous FULL: median of {ingest.TIMES} "
            f"times {ingest.COUNT:,} windows at QoS 1: {best:,.0f}/s over {peer:,.0f}/s"
        ),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
