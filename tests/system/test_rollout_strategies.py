"""Every strategy over real agents and the server's own broker, which is killed in the middle.

Eight agents run a real interpreter; the server is another process, ended by SIGKILL once in each
rollout and started again on the same ports. Nothing that happened may be lost, or happen twice.
"""

import itertools
import socket
import threading
import time
from contextlib import ExitStack

import msgspec
import numpy as np
import pytest

from device_agent.agent import Setup
from device_agent.config import DeviceConfig, LinkConfig, TelemetryConfig
from device_agent.selftest import in_this_process
from device_agent.sources import NpzReplay, Paced
from edge_sdk.identity import Token
from edge_sdk.profiles import load_profile
from edge_sdk.signing import SigningKey
from fleet_server.data_dir import DATABASE
from fleet_server.rollout.strategies import shipped
from fleet_server.store import Store
from tests.agent_world import SystemClock, at_work, config, rows, tiny_bundle
from tests.server_side import ServerProcess, until

pytestmark = pytest.mark.system
PROFILE, AGENTS = "raspberry-pi-4", 8
PUBLISHER = SigningKey.generate()
# Latency is left out: agents of one process time each other.
JUDGED = [{"metric": "confidence", "margin": 0.1}, {"metric": "errors", "margin": 0.05}]
ALONE = [{"metric": "errors", "margin": 0.05, "against": "past"}]
BESIDE = [
    {"metric": "disagreement", "margin": 0.1},
    {"metric": "shadow confidence", "margin": 0.1},
]
STORY = (
    ("all-at-once", [], 0),
    ("canary", JUDGED, 1),
    ("staged", JUDGED, 2),
    ("blue-green", ALONE, 1),
    ("shadow", [*BESIDE, *JUDGED], 1),
)


class Site:
    """A server on fixed ports that can be killed, and the agents that stay."""

    def __init__(self, folder):
        PUBLISHER.save(folder / "signing.key")
        self.folder, self.data = folder, folder / "data"
        with (
            socket.create_server(("127.0.0.1", 0)) as a,
            socket.create_server(("127.0.0.1", 0)) as b,
        ):
            self.ports = (a.getsockname()[1], b.getsockname()[1])
        self.start()

    def start(self):
        web, mqtt = (str(port) for port in self.ports)
        self.server = ServerProcess(
            self.data, "--publisher", str(self.folder / "signing.pub"), "--port", web,
            "--mqtt-port", mqtt,
        )  # fmt: skip

    def restart(self):
        self.server.kill()
        self.start()

    def agents(self, stack):
        np.savez(self.folder / "x.npz", x=rows())
        with self.server.client() as client:
            token = Token.parse(client.new_enrolment_key(uses=AGENTS).token)
        for number in range(AGENTS):
            folder = self.folder / f"dev-{number}"
            folder.mkdir()
            given = config(
                folder,
                self.server.where.url,
                device=DeviceConfig(
                    id=f"dev-{number}", profile=PROFILE, labels={"site": "ns"[number % 2]}
                ),
                link=LinkConfig(server=self.server.where.url),
                telemetry=TelemetryConfig(window_seconds=0.5),
            )
            clock = SystemClock()
            stack.enter_context(
                at_work(
                    Setup(
                        config=given,
                        profile=load_profile(PROFILE),
                        source=Paced(NpzReplay(rows(), number), 100, clock.monotonic),
                        clock=clock,
                        token=lambda: token,
                        trial=in_this_process,
                    )
                )
            )

    def row(self, rollout):
        with self.server.client() as client:
            return client.rollout(rollout).rollout

    def ended(self, rollout, seconds=90.0):
        deadline = time.monotonic() + seconds
        nap = threading.Event()
        while (row := self.row(rollout)).ended_at is None:
            assert time.monotonic() < deadline, f"{row.status}: {row.reason} {row.gates}"
            nap.wait(0.1)
        return row

    def begin(self, version, name, gates):
        with self.server.client() as client:
            client.publish(tiny_bundle(PUBLISHER, version=version, profile=PROFILE))
            document = {"name": name, "gates": gates} if gates else {"name": name}
            return client.create_rollout("quarters", version, document)

    def running(self):
        with self.server.client() as client:
            return [d.running for d in client.devices()]


def test_every_strategy_promotes_a_good_version_though_its_server_is_killed(tmp_path):
    site = Site(tmp_path)
    with ExitStack() as stack:
        stack.callback(lambda: site.server.kill())
        site.agents(stack)
        rollouts = []
        for number, (name, gates, phase) in enumerate(STORY, start=1):
            rollout = site.begin(str(number), name, gates)
            rollouts.append(rollout)
            until(lambda r=rollout, p=phase: _entered(site.row(r), p), 60)
            site.restart()
            row = site.ended(rollout)
            assert row.status == "promoted", f"{name}: {row.reason}"
            version = str(number)
            until(lambda v=version: site.running() == [v] * AGENTS, 60)
        site.server.stop()
        with Store(site.data / DATABASE) as store:
            for rollout, (name, _, _) in zip(rollouts, STORY, strict=True):
                nothing_lost_nothing_doubled(store, rollout, name)
            each_order_is_new(store)


def _entered(row, phase):
    return row.ended_at is not None or [p.state for p in row.phases].index("now") >= phase


def nothing_lost_nothing_doubled(store, rollout, name):
    """One decision a phase, one way through the standings a device, one run of the version."""
    made = [msgspec.json.decode(d.document) for d in reversed(store.decisions(rollout))]
    actions = [d["action"] for d in made if d["action"] != "hold"]
    widened = len(shipped(name).phases) - 1
    assert actions == ["start", *["widen"] * widened, "promote"], name
    for device in (f"dev-{n}" for n in range(AGENTS)):
        told = [t.standing for t in store.transitions(rollout, device)]
        kept = [where for where in told if where != "superseded"]  # by the next one, later
        assert kept[-1] == "confirmed", (name, device, told)
        assert all(a != b for a, b in itertools.pairwise(told)), (name, device, told)
        version = store.rollout(rollout).version
        runs = [run for run in store.runs(device) if run.version == version]
        began = [run for run in runs if not run.beside]
        assert len(began) == 1, (name, device, store.runs(device))


def each_order_is_new(store):
    """No device was ever told twice in a row to do the same with the same bundle."""
    for seat in store.seats():
        told = store.orders_of(seat.device)
        assert [g for g, _, _ in told] == list(range(1, len(told) + 1))
        assert all(a[1:] != b[1:] for a, b in itertools.pairwise(told)), told
