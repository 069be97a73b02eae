"""Windows a second that the server stores through Mosquitto, over a bare paho script's behind one.

As `ingest`, but our server, too, is a subscriber of Mosquitto (`--broker`). The time of each runs
from the first message to when the last is in its database. Beside them mq-bridge, in an environment
that uv makes for it, and Node-RED, in a folder that npm fills.
"""

import json
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from benchmarks import ingest
from benchmarks._node_red import PACKAGES, installed, node_red
from fleet_server.data_dir import DATABASE
from fleet_server.store import Store
from tests.mosquitto import missing, mosquitto
from tests.server_side import server_process, until

UV = shutil.which("uv") or str(Path(__file__).parents[1] / ".tools" / "bin" / "uv")
EACH = 2250  # windows of a device; so many that the first batch hardly counts
COUNT = ingest.DEVICES * EACH
BRIDGE = "mq-bridge==1.2.0"


def stored_rate(last: Callable[[], int], port: int, path: Path, count: int = ingest.COUNT) -> float:
    """Windows a second from when the first was sent until the last is committed.

    `last` tells the number of the last one in the database: it costs the database next to nothing.
    """
    before = last()
    loading = subprocess.Popen(
        [sys.executable, "-m", "benchmarks._load", str(port), str(path)],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        until(lambda: last() >= before + count, 120)
        ended = time.perf_counter()
    finally:
        said, _ = loading.communicate(timeout=60)
    return count / (ended - float(said.split()[1]))  # one clock for all processes


def last_window(store: Store) -> int:
    """The number of the last window in the database, 0 if there is none."""
    with store._read() as c:
        return int(c.exec_driver_sql("SELECT coalesce(max(id), 0) FROM windows").scalar_one())


def bridged(folder: Path, path: Path, number: int) -> float:
    """Messages a second that mq-bridge stores; 0 if it can't be had here."""
    database = folder / f"bridged-{number}.db"
    with (
        mosquitto(folder / f"bridged-{number}") as broker,
        closing(sqlite3.connect(database, isolation_level=None)) as rows,
    ):
        rows.execute("PRAGMA journal_mode=WAL")
        rows.execute("CREATE TABLE messages (id INTEGER PRIMARY KEY, payload BLOB NOT NULL)")
        command = [
            UV,
            "run",
            "--no-project",
            "--isolated",
            "--quiet",
            "--no-build",
            "--with",
            BRIDGE,
            "python",
            Path(__file__).with_name("_mq_bridge.py"),
            str(broker.port),
            database,
        ]
        peer = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            if peer.stdout is None or not peer.stdout.readline():
                return 0.0
            threading.Event().wait(1.0)  # it does not say when it has subscribed
            last = "SELECT coalesce(max(id), 0) FROM messages"
            return stored_rate(
                lambda: int(rows.execute(last).fetchone()[0]), broker.port, path, COUNT
            )
        finally:
            peer.communicate()


def flowed(folder: Path, path: Path, number: int, home: Path) -> float:
    """Messages a second that Node-RED stores."""
    database = folder / f"flowed-{number}.db"
    with (
        mosquitto(folder / f"flowed-{number}") as broker,
        closing(sqlite3.connect(database, isolation_level=None)) as rows,
    ):
        rows.execute("PRAGMA journal_mode=WAL")
        rows.execute(
            "CREATE TABLE w (device TEXT, boot TEXT, seq INT, at REAL, body BLOB, "
            "UNIQUE (device, boot, seq))"
        )
        with node_red(home, broker.port, database):
            threading.Event().wait(1.0)  # until it has subscribed
            last = "SELECT coalesce(max(rowid), 0) FROM w"
            return stored_rate(
                lambda: int(rows.execute(last).fetchone()[0]), broker.port, path, COUNT
            )


def main() -> None:
    if missing():
        print(missing())
        raise SystemExit(77)
    ours, theirs, bridge, flow = [], [], [], []
    home = installed()
    with tempfile.TemporaryDirectory() as name, mosquitto(Path(name) / "broker") as broker:
        folder = Path(name)
        ingest.KEY.save(folder / "signing.key")
        options = ("--publisher", str(folder / "signing.pub"),
                   "--broker", f"mqtt://127.0.0.1:{broker.port}")  # fmt: skip
        with server_process(folder / "data", *options) as server:
            devices = ingest.join_all(server)
            with Store(folder / "data" / DATABASE) as store:
                for number in range(ingest.TIMES):
                    given = ingest.scripts(devices, f"boot-{number}", EACH)
                    path = ingest.write(folder, ingest.without_passwords(given))
                    ours.append(stored_rate(lambda: last_window(store), broker.port, path, COUNT))
                    theirs.append(COUNT / ingest.bare(folder, given, number))
                    bridge.append(bridged(folder, path, number))
                    flow.append(flowed(folder, path, number, home) if home else 0.0)
                    rates = ours[-1], theirs[-1], bridge[-1], flow[-1]
                    print(", ".join(f"{rate:,.0f}" for rate in rates), "windows a second")
    best, peer, beside, red = (statistics.median(r) for r in (ours, theirs, bridge, flow))
    result = {
        "name": "ingest-broker",
        "value": round(best / peer, 2),
        "unit": "x",
        "better": "higher",
        "against": "Mosquitto, bare paho, decode, batched insert (at least 1.5)",
        "detail": (
            f"our server behind Mosquitto too, SQLite synchronous FULL: median of {ingest.TIMES} "
            f"times {COUNT:,} windows at QoS 1: {best:,.0f}/s over {peer:,.0f}/s; {BRIDGE}, "
            "which stores what comes without looking at it: "
            + (f"{beside:,.0f}/s" if beside else "not to be had here")
            + f"; {PACKAGES[0]}, which acknowledges before it stores: "
            + (f"{red:,.0f}/s" if red else "not to be had here")
        ),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
