"""Windows a second that the server stores before it acknowledges, over a bare paho script's.

Ours: `edge server run`, its own MQTT endpoint, SQLite synchronous FULL; it checks the HMAC and the
content, counts duplicates once, keeps roll-ups. The peer: Mosquitto and `_bare_paho`, which does
none of that. Both get the same sealed windows of the same devices at QoS 1 from the same generator.
"""

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import httpx2
import msgspec

from benchmarks._load import Script
from edge_sdk.bundle import unpack
from edge_sdk.packing import packed
from edge_sdk.signing import SigningKey
from tests.bundles import make_bundle
from tests.mosquitto import missing, mosquitto
from tests.server_side import Device, ServerProcess, join, server_process, window_of

DEVICES, EACH, TIMES = 20, 750, 3
COUNT = DEVICES * EACH
KEY = SigningKey.generate()
BUNDLE = unpack(make_bundle(KEY), [KEY.public])


def scripts(devices: list[Device], boot: str, each: int = EACH) -> list[Script]:
    """The same number of windows from each, under a boot of its own each time."""
    window = packed(window_of(BUNDLE, rows=60), BUNDLE.baseline)
    found = []
    for device in devices:
        device.restarted(boot)
        messages = [device.message(window)[1] for _ in range(each)]
        found.append(Script(device.name, device.secrets.mqtt_password, messages))
    return found


def write(folder: Path, given: list[Script]) -> Path:
    path = folder / "script"
    path.write_bytes(msgspec.msgpack.encode(given))
    return path


def load(port: int, path: Path) -> float:
    """Seconds from the first message to the last acknowledgement."""
    made = subprocess.run(
        [sys.executable, "-m", "benchmarks._load", str(port), str(path)],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    return float(made.stdout.split()[0])


def join_all(server: ServerProcess) -> list[Device]:
    with server.client() as fleet, httpx2.Client(base_url=server.where.url) as http:
        fleet.publish(make_bundle(KEY))
        token = fleet.new_enrolment_key(uses=DEVICES).token
        return [join(http, token, f"load-{n}")[0] for n in range(DEVICES)]


def without_passwords(given: list[Script]) -> list[Script]:
    """For a broker that knows nobody."""
    return [msgspec.structs.replace(script, password="") for script in given]


def bare(folder: Path, given: list[Script], number: int) -> float:
    """The peer's seconds from its first message to the last commit."""
    anonymous, count = without_passwords(given), sum(len(one.messages) for one in given)
    with mosquitto(folder / f"broker-{number}") as broker:
        database = str(folder / f"bare-{number}.db")
        peer = subprocess.Popen(
            [sys.executable, "-m", "benchmarks._bare_paho", str(broker.port), database, str(count)],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        with peer.stdout as told:
            told.readline()
            load(broker.port, write(folder, anonymous))
            took = float(told.readline())
        peer.wait(30)
    return took


def main() -> None:
    if missing():
        print(missing())
        raise SystemExit(77)
    ours, theirs = [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        KEY.save(folder / "signing.key")
        publisher = ["--publisher", str(folder / "signing.pub")]
        with server_process(folder / "data", *publisher) as server:
            devices = join_all(server)
            for number in range(TIMES):
                given = scripts(devices, f"boot-{number}")
                ours.append(COUNT / load(server.where.mqtt_port, write(folder, given)))
                theirs.append(COUNT / bare(folder, given, number))
                print(f"{ours[-1]:,.0f} and {theirs[-1]:,.0f} windows a second")
    length = len(given[0].messages[0])
    best, peer = statistics.median(ours), statistics.median(theirs)
    result = {
        "name": "ingest",
        "value": round(best / peer, 2),
        "unit": "x",
        "better": "higher",
        "against": "Mosquitto, bare paho, decode, batched insert (at least 2)",
        "detail": (
            f"median of {TIMES} times {COUNT:,} windows of {length} B from {DEVICES} devices at "
            f"QoS 1, acknowledged after a synchronous commit: {best:,.0f}/s over {peer:,.0f}/s"
        ),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
