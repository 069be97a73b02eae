"""A fleet whose server and agents are killed, and whose server hangs, at random; then the count.

Real processes all: `edge server run`, and `edge simulate` with several agents each, whose links are
of the simulation's three qualities. What is checked comes from both sides: the numbers of each boot
have no gap in the server, no window is there twice, and no device still waits for an answer.
"""

import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import msgspec
import numpy as np

from edge_sdk.signing import SigningKey
from tests.agent_world import rows, tiny_bundle
from tests.server_side import ServerProcess, until

PROFILE = "raspberry-pi-4"
GROUPS = 4  # processes that the agents are spread over
QUIET = 60.0  # seconds for everything to arrive when the chaos is over


class Found(msgspec.Struct, frozen=True):
    """What came of it; all but the last four must be zero."""

    gaps: int
    doubled: int
    waiting: int
    silent: int  # devices of which no window came
    windows: int
    boots: int
    server_kills: int
    agent_kills: int


class Fleet:
    """The processes, and what happens to them."""

    def __init__(self, folder: Path, devices: int, seed: int) -> None:
        self._folder, self._random = folder, random.Random(seed)  # noqa: S311 - a simulation
        self.devices = devices
        self._each = max(2, -(-devices // GROUPS))
        publisher = SigningKey.generate()
        publisher.save(folder / "publisher.key")
        np.savez(folder / "x.npz", x=rows())
        self.server = self._serve()
        mqtt, http = self.server.where.mqtt_port, self.server.where.url.rpartition(":")[2]
        self._ports = ("--port", http, "--mqtt-port", str(mqtt))
        with self.server.client() as client:
            self._token = client.new_enrolment_key(uses=devices).token
            client.publish(tiny_bundle(publisher, profile=PROFILE))
        self.agents = {group: self._simulate(group) for group in range(self._groups)}
        until(lambda: len(self._devices()) == devices, 60)
        with self.server.client() as client:
            client.create_rollout("quarters", "1", {"name": "all-at-once"})
            until(lambda: all(r.status == "promoted" for r in client.rollouts()), 120)

    @property
    def _groups(self) -> int:
        return -(-self.devices // self._each)

    def _devices(self) -> list[object]:
        with self.server.client() as client:
            return list(client.devices())

    def _serve(self, *ports: str) -> ServerProcess:
        publisher = str(self._folder / "publisher.pub")
        return ServerProcess(self._folder / "server", "--publisher", publisher, *ports)

    def _simulate(self, group: int) -> subprocess.Popen[bytes]:
        count = min(self._each, self.devices - group * self._each)
        return subprocess.Popen(
            [sys.executable, "-m", "edge_sdk.cli", "simulate", "--devices", str(count),
             "--server", self.server.where.url, "--data", str(self._folder / "x.npz"),
             "--state-dir", str(self._folder / "agents"), "--name-prefix", f"g{group}",
             "--rows-per-second", "40", "--window", "0.5", "--seed", str(group)],
            env={**os.environ, "EDGE_ENROL_TOKEN": self._token},
            stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def kill_server(self) -> None:
        """A power cut of the server, and of the broker in it."""
        self.server.kill()
        self.server = self._serve(*self._ports)

    def hang_server(self, seconds: float) -> None:
        """It answers nobody for a while."""
        self.server.process.send_signal(signal.SIGSTOP)
        threading.Event().wait(seconds)
        self.server.process.send_signal(signal.SIGCONT)

    def kill_agents(self) -> int:
        """A power cut of some of them; how many."""
        group = self._random.randrange(self._groups)
        self.agents[group].kill()
        self.agents[group].wait(30)
        self.agents[group] = self._simulate(group)
        return min(self._each, self.devices - group * self._each)

    def chaos(self, seconds: float) -> tuple[int, int]:
        """Something every few seconds; kills of the server, and of agents."""
        begun, servers, agents = time.monotonic(), 0, 0
        nap = threading.Event()
        while time.monotonic() - begun < seconds:
            nap.wait(self._random.uniform(0.5, 3.0))
            match self._random.randrange(4):
                case 0:
                    self.kill_server()
                    servers += 1
                case 1:
                    self.hang_server(self._random.uniform(0.2, 2.0))
                case _:
                    agents += self.kill_agents()
        return servers, agents

    def quiet(self) -> None:
        """Until every agent has begun again, and nothing of before waits."""
        threading.Event().wait(1.0)  # what was on its way is in the server
        before = self._rows()
        until(lambda: all(rows > before[name] for name, rows in self._rows().items()), QUIET)
        until(lambda: not self.waiting(), QUIET)

    def _rows(self) -> dict[str, int]:
        with self.server.client() as client:
            return {device.id: device.rows for device in client.devices()}

    def waiting(self) -> int:
        """Messages of boots before the present ones that no server has confirmed."""
        found = 0
        for path in (self._folder / "agents").glob("*/outbox.sqlite"):
            with suppress(sqlite3.OperationalError):
                database = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)
                boots = [boot for (boot,) in database.execute(
                    "SELECT DISTINCT boot FROM message WHERE seq IS NOT NULL")]  # fmt: skip
                database.close()
                found += max(0, len(boots) - 1)
        return found

    def stop(self) -> None:
        """All of it."""
        for child in self.agents.values():
            child.send_signal(signal.SIGINT)
        for child in self.agents.values():
            until(lambda child=child: self._ended(child), 60)
        self.server.stop()

    def _ended(self, child: subprocess.Popen[bytes]) -> bool:
        """An interrupt amid an agent's imports may be lost there: then again."""
        with suppress(subprocess.TimeoutExpired):
            child.wait(10)
        if child.poll() is None:
            child.send_signal(signal.SIGINT)
        return child.poll() is not None

    def count(self, servers: int, agents: int) -> Found:
        """What the server has, once everything is stopped."""
        database = sqlite3.connect(self._folder / "server" / "fleet.db")
        streams = database.execute("SELECT device, boot, contiguous, ahead FROM streams").fetchall()
        windows = database.execute("SELECT device, boot, seq FROM windows").fetchall()
        database.close()
        reached = {(device, boot): contiguous for device, boot, contiguous, _ in streams}
        ahead = sum(bool(msgspec.msgpack.decode(ahead)) for *_, ahead in streams)
        beyond = sum(seq > reached.get((device, boot), 0) for device, boot, seq in windows)
        return Found(
            gaps=ahead + beyond,
            doubled=len(windows) - len(set(windows)),
            waiting=self.waiting(),
            silent=self.devices - len({device for device, *_ in windows}),
            windows=len(windows),
            boots=len(streams),
            server_kills=servers,
            agent_kills=agents,
        )


def chaos(folder: Path, devices: int, seconds: float, seed: int = 1) -> Found:
    """A fleet, its bad time, the quiet after it, and the count."""
    fleet = Fleet(folder, devices, seed)
    try:
        servers, agents = fleet.chaos(seconds)
        fleet.quiet()
    finally:
        fleet.stop()
    return fleet.count(servers, agents)
