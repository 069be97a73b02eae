"""A peer of `ingest-broker`: Node-RED, from MQTT by MessagePack into SQLite, many rows at a time.

npm puts it into a folder of its own, once (EDGE_BENCH_NODE_RED, or below ~/.cache). It takes QoS 1
and acknowledges when its flow has the message, so before the commit; it checks nothing.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.server_side import until

PACKAGES = ("node-red@4.1.15", "node-red-node-sqlite@1.1.1", "node-red-node-msgpack@1.2.1")
RECEIVE_MAXIMUM = 5000
INSTALL_SECONDS = 1200  # it compiles SQLite
GATHER = """
const rows = context.get('rows') || [];
if (!msg.late) {
    const m = msg.payload;
    rows.push(`('${m.device}','${m.boot}',${m.seq},${m.wall},X'${m.body.toString('hex')}')`);
}
if (rows.length === 0 || (rows.length < 500 && !msg.late)) {
    context.set('rows', rows);
    return null;
}
context.set('rows', []);
return {topic: 'BEGIN; INSERT OR IGNORE INTO w VALUES ' + rows.join(',') + '; COMMIT'};
"""


def installed() -> Path | None:
    """Its folder; None where it can't be had."""
    npm, known = shutil.which("npm"), os.environ.get("EDGE_BENCH_NODE_RED")
    folder = Path(known) if known else Path.home() / ".cache" / "edge-benchmarks" / "node-red"
    if all((folder / "node_modules" / name.split("@")[0]).exists() for name in PACKAGES):
        return folder
    if npm is None:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    command = [npm, "install", "--no-fund", "--no-audit", "--prefix", str(folder), *PACKAGES]
    done = subprocess.run(command, capture_output=True, timeout=INSTALL_SECONDS, check=False)
    return folder if done.returncode == 0 else None


def flow(port: int, database: Path) -> list[dict[str, object]]:
    """MQTT in, MessagePack, 500 rows to one INSERT; every 50 ms what is left over."""
    broker = {
        "id": "broker", "type": "mqtt-broker", "broker": "127.0.0.1", "port": str(port),
        "clientid": "node-red", "autoConnect": True, "usetls": False, "protocolVersion": "5",
        "keepalive": "60", "cleansession": True, "receiveMaximum": RECEIVE_MAXIMUM,
    }  # fmt: skip
    source = {
        "id": "in", "type": "mqtt in", "z": "tab", "topic": "edge/1/+/telemetry", "qos": "1",
        "datatype": "buffer", "broker": "broker", "nl": False, "rap": True, "rh": 0, "inputs": 0,
        "wires": [["unpack"]],
    }  # fmt: skip
    tick = {
        "id": "tick", "type": "inject", "z": "tab", "props": [{"p": "late", "v": "true",
        "vt": "bool"}], "repeat": "0.05", "once": True, "onceDelay": 0.1, "wires": [["gather"]],
    }  # fmt: skip
    gather = {
        "id": "gather", "type": "function", "z": "tab", "func": GATHER, "outputs": 1,
        "wires": [["store"]],
    }  # fmt: skip
    return [
        {"id": "tab", "type": "tab", "label": "ingest"},
        broker,
        source,
        {"id": "unpack", "type": "msgpack", "z": "tab", "property": "payload",
         "wires": [["gather"]]},
        tick,
        gather,
        {"id": "file", "type": "sqlitedb", "db": str(database), "mode": "RWC"},
        {"id": "store", "type": "sqlite", "z": "tab", "mydb": "file", "sqlquery": "batch",
         "sql": "", "wires": [[]]},
    ]  # fmt: skip


@contextmanager
def node_red(home: Path, port: int, database: Path) -> Iterator[None]:
    """Running, from when it is connected; raises RuntimeError with its words if it never is."""
    settings = database.with_suffix(".settings.js")
    settings.write_text(
        "module.exports = {httpAdminRoot: false, httpNodeRoot: false, credentialSecret: false, "
        "telemetry: {enabled: false, updateNotification: false}, "
        f"nodesDir: {json.dumps(str(home / 'node_modules'))}}};"
    )
    flows = database.with_suffix(".flows.json")
    flows.write_text(json.dumps(flow(port, database)))
    log = database.with_suffix(".log")
    with log.open("w") as out:
        process = subprocess.Popen(
            ["node", str(home / "node_modules" / "node-red" / "red.js"), "--userDir",
             str(home), "--settings", str(settings), str(flows)],
            stdout=out, stderr=out,
        )  # fmt: skip
    try:
        until(lambda: "Connected to broker" in log.read_text() or process.poll() is not None, 60)
        if process.poll() is not None:
            raise RuntimeError(f"Node-RED did not start: {log.read_text()[-300:]}")
        yield
    finally:
        process.terminate()
        process.wait(30)
