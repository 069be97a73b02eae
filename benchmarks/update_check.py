"""What one update check costs a device when nothing is new, over two bare GETs of the same bytes.

The check asks for the next root (there is none) and the timestamp, and verifies the list that it
keeps. Both sides talk to the same static file server, in turn. Import time and memory are those of
a Python that has imported the agent's check, less one that has imported what it needs anyway.
"""

import http.client
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from device_agent.endpoint import Endpoint
from device_agent.enrol import Identity
from device_agent.trusted import Repository
from edge_sdk.files import sha256
from edge_sdk.identity import Secrets, Trust
from edge_sdk.messages import Assignment
from edge_sdk.signing import SigningKey
from fleet_server.trust.founding import create
from fleet_server.trust.roles import Target

RUNS = 300
BUNDLES = 100
PROFILE = "raspberry-pi-4"
ROOT, TIMESTAMP = "2.root.json", "timestamp.json"
IMPORTS = """
import time
from pathlib import Path
import device_agent.enrol, device_agent.store
def used():
    return time.perf_counter(), int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6
before = used()
import device_agent.trusted
after = used()
print(after[0] - before[0], after[1] - before[1], after[1])
"""


class Clock:
    """This machine's clocks."""

    wall = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)


@contextmanager
def static_server(folder: Path) -> Iterator[int]:
    """Python's own file server on a free port; any other would do."""
    command = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1"]
    with subprocess.Popen(
        [*command, "--protocol", "HTTP/1.1", "--directory", str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        try:
            yield int((process.stdout or iter(())).readline().split(" port ")[1].split()[0])
        finally:
            process.terminate()


def listed(folder: Path) -> tuple[Trust, Assignment]:
    """A repository with bundles in it, and an order for one of them."""
    made = create(
        folder / "device" / "v1" / "tuf",
        folder / "keys",
        profiles=[PROFILE],
        root_keys=1,
        threshold=1,
        now=time.time(),
    )
    chance = random.Random(1)  # noqa: S311 - any bytes
    for number in range(BUNDLES):
        data = chance.randbytes(100)
        (folder / "bundle").write_bytes(data)
        target = Target(
            name="digits", version=str(number), profile=PROFILE, digest=sha256(data), length=100
        )
        made.publish(target, folder / "bundle", time.time())
    director = SigningKey.generate().public.hex
    order = Assignment(
        device="pi-1",
        generation=1,
        model="digits",
        version=target.version,
        profile=PROFILE,
        digest=target.digest,
        length=target.length,
        rollout="r1",
        not_before=time.time(),
    )
    return Trust((), director, "", root=made.root_digest), order


def bare(port: int) -> None:
    """The same two requests, and nothing done with the answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    for name in (ROOT, TIMESTAMP):
        connection.request("GET", f"/device/v1/tuf/metadata/{name}")
        connection.getresponse().read()
    connection.close()


def milliseconds(work: Callable[[], object]) -> float:
    """Wall time of one call."""
    begun = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - begun)


def imports() -> tuple[float, float, float]:
    """Seconds and MB that the check's import adds, and the MB of the process then."""
    found = [
        tuple(
            map(
                float,
                subprocess.run(
                    [sys.executable, "-c", IMPORTS], check=True, capture_output=True, text=True
                ).stdout.split(),
            )
        )
        for _ in range(9)
    ]
    seconds, added, whole = (statistics.median(column) for column in zip(*found, strict=True))
    return seconds, added, whole


def main() -> None:
    """Both in turn, so that a noisy machine hits both alike; the median ratio counts."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        trust, order = listed(folder)
        with static_server(folder) as port:
            server = Endpoint.parse(f"http://127.0.0.1:{port}")
            identity = Identity("pi-1", trust, Secrets(b"", "", "token"), server, 0)
            device = Repository(folder / "state", folder / "stick", identity, Clock())
            device.vouched(order)  # the first one fetches everything
            pairs = [
                (milliseconds(lambda: device.vouched(order)), milliseconds(lambda: bare(port)))
                for _ in range(RUNS)
            ]
    check, gets = (statistics.median(column) for column in zip(*pairs, strict=True))
    seconds, added, whole = imports()
    result = {
        "name": "update-check",
        "value": round(statistics.median(a / b for a, b in pairs), 2),
        "unit": "x",
        "better": "lower",
        "against": "two HTTP GETs of the same bytes by http.client",
        "detail": f"median of {RUNS} pairs: {check:.1f} ms over {gets:.1f} ms, {BUNDLES} bundles "
        f"listed; its import adds {1000 * seconds:.0f} ms and {added:.1f} MB of RSS, "
        f"{whole:.0f} MB in all",
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
