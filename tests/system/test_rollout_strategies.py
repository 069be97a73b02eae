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
from msgspec.structs import replace

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
from tests.server_side import ServerProcess

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]
PROFILE, AGENTS = "raspberry-pi-4", 8
PUBLISHER = SigningKey.generate()
# Latency is left out: agents of one process time each other.
JUDGED = [{"metric": "confidence", "margin": 0.1}, {"metric": "errors", "margin": 0.05}]
ALONE = [{"metric": "errors", "margin": 0.05, "against": "past"}]
BESIDE = [
    {"metric": "disagreement", "margin": 0.1},
    {"metric": "shadow confidence", "margin": 0.1},
]
# strategy, gates, the phase in which the server is killed, how it ends
STORY = (
    ("all-at-once", [], 0, "promoted"),
    ("canary", JUDGED, 1, "promoted"),
    ("staged", JUDGED, 2, "promoted"),
    ("blue-green", ALONE, 1, "promoted"),
    ("shadow", [*BESIDE, *JUDGED], 1, "promoted"),
    ("ab", [{"metric": "confidence", "margin": -0.2}], 1, "rolled back"),
)


class Site:
    """A server on fixed ports that can be killed, and the agents that stay."""

    def __init__(self, folder, database):
        PUBLISHER.save(folder / "signing.key")
        self.database = database
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
            "--mqtt-port", mqtt, database=self.database,
        )  # fmt: skip
        self.client = self.server.client()

    def restart(self):
        self.stop()
        self.start()

    def stop(self):
        self.client.__exit__(None, None, None)
        self.server.kill()

    def agents(self, stack):
        np.savez(self.folder / "x.npz", x=rows())
        token = Token.parse(self.client.new_enrolment_key(uses=AGENTS).token)
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
                telemetry=TelemetryConfig(window_seconds=0.25),
            )
            clock = SystemClock()
            stack.enter_context(
                at_work(
                    Setup(
                        config=given,
                        profile=load_profile(PROFILE),
                        source=Paced(NpzReplay(rows(), number), 60, clock.monotonic),
                        clock=clock,
                        token=lambda: token,
                        trial=in_this_process,
                    )
                )
            )

    def row(self, rollout):
        return self.client.rollout(rollout).rollout

    def when(self, truth, what, seconds=90.0):
        """Ask a few times a second until `truth()`; what it is then."""
        deadline, nap = time.monotonic() + seconds, threading.Event()
        while not (found := truth()):
            assert time.monotonic() < deadline, what()
            nap.wait(0.2)
        return found

    def ended(self, rollout):
        def over():
            row = self.row(rollout)
            return row if row.ended_at is not None else None

        return self.when(over, lambda: self.row(rollout))

    def begin(self, version, name, gates):
        self.client.publish(tiny_bundle(PUBLISHER, version=version, profile=PROFILE))
        return self.client.create_rollout("quarters", version, quick(name, gates))

    def running(self):
        return [d.running for d in self.client.devices()]


def quick(name, gates):
    """A shipped strategy with these gates and short phases."""
    strategy = shipped(name)
    phases = [replace(p, min_windows=4) for p in strategy.phases]
    document = msgspec.to_builtins(replace(strategy, phases=tuple(phases)))
    return document | {"gates": gates}


def test_every_strategy_comes_to_its_end_though_its_server_is_killed(tmp_path, database):
    site = Site(tmp_path, database)
    with ExitStack() as stack:
        stack.callback(site.stop)
        site.agents(stack)
        rollouts = []
        served = "0"
        for number, (name, gates, phase, ending) in enumerate(STORY, start=1):
            rollout = site.begin(str(number), name, gates)
            rollouts.append(rollout)
            site.when(
                lambda r=rollout, p=phase: _entered(site.row(r), p), lambda r=rollout: site.row(r)
            )
            site.restart()
            row = site.ended(rollout)
            assert row.status == ending, f"{name}: {row.reason}"
            served = str(number) if ending == "promoted" else served
            site.when(lambda v=served: site.running() == [v] * AGENTS, site.running)
        site.stop()
        with Store(database if isinstance(database, str) else site.data / DATABASE) as store:
            for rollout, (name, _, _, ending) in zip(rollouts, STORY, strict=True):
                nothing_lost_nothing_doubled(store, rollout, name, ending)
            each_device_ran_each_version_once(store, store.standings(rollouts[-1]))
            each_order_is_new(store)


def _entered(row, phase):
    return row.ended_at is not None or [p.state for p in row.phases].index("now") >= phase


def nothing_lost_nothing_doubled(store, rollout, name, ending):
    """One decision a phase, one way through the standings a device, one run of the version."""
    made = [msgspec.json.decode(d.document) for d in reversed(store.decisions(rollout))]
    actions = [d["action"] for d in made if d["action"] != "hold"]
    widened = len(shipped(name).phases) - 1
    wanted = ["start", *["widen"] * widened, "promote"]
    assert actions == (wanted if ending == "promoted" else [*wanted[:-2], "roll back"]), name
    reached = AGENTS if ending == "promoted" else AGENTS // 2
    assert len(store.standings(rollout)) == reached
    for device in store.standings(rollout):
        told = [t.standing for t in store.transitions(rollout, device)]
        kept = [where for where in told if where != "superseded"]  # by the next one, later
        assert kept[-1] == "confirmed" or ending != "promoted", (name, device, told)
        assert all(a != b for a, b in itertools.pairwise(told)), (name, device, told)
    if ending != "promoted":
        return
    version = store.rollout(rollout).version
    for device in (f"dev-{n}" for n in range(AGENTS)):
        assert version in [run.version for run in store.runs(device)]


def each_device_ran_each_version_once(store, tried):
    """What ran, in the order in which it did; `tried` had the version that was not promoted."""
    for device in (f"dev-{n}" for n in range(AGENTS)):
        ran = [version for version, _ in itertools.groupby(r.version for r in store.runs(device))]
        promoted = ["1", "2", "3", "4", "5"]
        allowed = [promoted, [*promoted, "6", "5"]] if device in tried else [promoted]
        assert ran[::-1] in allowed, device


def each_order_is_new(store):
    """No device was ever told twice in a row to do the same with the same bundle."""
    for seat in store.seats():
        told = store.orders_of(seat.device)
        assert [g for g, _, _ in told] == list(range(1, len(told) + 1))
        assert all(a[1:] != b[1:] for a, b in itertools.pairwise(told)), told
