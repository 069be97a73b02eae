"""An agent whose power is cut at the N-th step of an update, as a child of the power-cut test.

`python -m tests.power_cut` reads a Plan on stdin. It imports everything once and then forks for
each cut, so that a cut costs a fork and not an interpreter start; it has no threads itself.

A step is the begin or the end of a call that touches the disk, the network or SQLite, on any
thread. They are counted by the interpreter's profiler, which sees calls into C that audit hooks do
not: write, flush, fsync, commit, recv.
"""

import mmap
import os
import shutil
import signal
import struct
import sys
import threading
import time
from collections.abc import Callable
from http.client import HTTPResponse
from pathlib import Path

import ai_edge_litert.interpreter  # noqa: F401 - once, before the forks
import msgspec

from device_agent import download
from device_agent.agent import Agent
from device_agent.config import TelemetryConfig, TrialConfig
from device_agent.download import CHUNK
from device_agent.link import Address, Arrived, LinkEvent, Up
from device_agent.store import Store
from device_agent.update_states import candidate, confirmed
from edge_sdk import messages
from edge_sdk.bundle import unpack
from edge_sdk.files import sha256
from edge_sdk.identity import Token, shared_secrets
from edge_sdk.messages import seal_ack, unseal_upward
from edge_sdk.signing import PublicKey
from tests.agent_world import config, eventually, setup

STEPS = {
    "open", "fdopen", "write", "writelines", "flush", "fsync", "close", "rename", "replace",
    "unlink", "remove", "mkdir", "scandir", "listdir", "stat", "fstat", "truncate", "seek", "flock",
    "connect", "execute", "commit", "send", "sendall", "recv", "recv_into", "read1", "read",
}  # fmt: skip
MODULES = {"posix", "io", "_io", "fcntl", "sqlite3", "_sqlite3", "socket", "_socket", None}


class Plan(msgspec.Struct, frozen=True):
    """What to do: `cuts` are step numbers; negative ones are microseconds after the start."""

    folder: str  # with `template`, the state folder before the update
    url: str
    order: bytes  # signed
    digest: str
    safe: str  # digest of what is confirmed before
    length: int
    publisher: str
    cuts: list[int]
    token: str


class Result(msgspec.Struct, frozen=True):
    """What one cut led to; `problem` is empty if all held."""

    cut: int
    killed: bool
    state: str  # as it was found on the disk
    problem: str = ""


class ServerLink:
    """A server that gives its order at once and confirms what it is sent."""

    def __init__(
        self, address: Address, post: Callable[[LinkEvent], None], order: bytes, key: bytes
    ) -> None:
        self.address, self.post, self.order, self.key = address, post, order, key
        self.reports: list[messages.Report] = []

    def start(self) -> None:
        self.post(Up())
        self.post(Arrived("desired", self.order))

    def publish(self, kind: str, payload: bytes) -> None:
        sealed = unseal_upward(payload, kind, self.address.device, self.key)
        if kind == "report":
            self.reports.append(messages.body(sealed, kind))
        ack = seal_ack(sealed.boot, sealed.seq, self.address.device, self.key)
        self.post(Arrived("ack", ack))

    def stop(self) -> None: ...


def run_agent(plan: Plan, folder: Path, received: mmap.mmap) -> list[messages.Report]:
    """Until the order is confirmed; its reports."""
    given = config(
        folder,
        plan.url,
        telemetry=TelemetryConfig(window_seconds=0.02),
        trial=TrialConfig(windows=1),
    )
    count_received(received)
    links: list[ServerLink] = []
    store = Store(folder / "state")
    key, enrolment = store.key(), store.enrolment()
    trust = msgspec.json.decode(enrolment.trust)
    mac = shared_secrets(bytes.fromhex(key.private), trust["exchange"], key.device).mac

    def make(address, post, _chance):
        links.append(ServerLink(address, post, plan.order, mac))
        return links[0]

    prepared = msgspec.structs.replace(setup(given, Token.parse(plan.token)), make_link=make)
    agent = Agent(prepared)
    thread = threading.Thread(target=agent.run, args=(threading.Event(),), daemon=True)
    thread.start()

    def confirmed_by_report() -> bool:
        found = links[0].reports if links else []
        return any(r.phase == "confirmed" and r.running.digest == plan.digest for r in list(found))

    eventually(confirmed_by_report, "confirmed")
    return links[0].reports  # it is left running: this process ends now


def count_received(received: mmap.mmap) -> None:
    """Add up the bytes of all bundles, in memory that outlives a killed process."""
    plain = HTTPResponse.read1

    def counting(self: HTTPResponse, n: int = -1) -> bytes:
        data = plain(self, n)
        if sys._getframe(1).f_globals["__name__"] != download.__name__:
            return data  # metadata, not a bundle
        [so_far] = struct.unpack_from("q", received)
        struct.pack_into("q", received, 0, so_far + len(data))
        return data

    HTTPResponse.read1 = counting


def cut_at(step: int, counter: mmap.mmap) -> None:
    """SIGKILL this process at the given step, whichever thread makes it."""

    def profile(_frame: object, event: str, called: object) -> None:
        if event not in ("c_call", "c_return", "c_exception"):
            return
        if called.__name__ in STEPS and getattr(called, "__module__", None) in MODULES:
            [so_far] = struct.unpack_from("q", counter, 8)
            struct.pack_into("q", counter, 8, so_far + 1)
            if so_far + 1 == step:
                os.kill(os.getpid(), signal.SIGKILL)

    threading.setprofile(profile)
    sys.setprofile(profile)


def one_cut(plan: Plan, cut: int, folder: Path) -> Result:
    shutil.copytree(folder.parent / "template", folder / "state")
    shared = mmap.mmap(-1, 16)  # bytes received, steps made

    def update() -> None:
        if cut >= 0:
            cut_at(cut, shared)
        run_agent(plan, folder, shared)

    killed = in_child(update, -cut if cut < 0 else 0)
    memory, trouble = Store(folder / "state").load()
    state = type(memory.state).__name__
    problem = trouble or broken(plan, folder)
    if not problem:
        again = in_child(lambda: check_restart(plan, folder, shared), 0)
        problem = "it did not come to a confirmed model after the restart" if again else ""
    problem = problem or broken(plan, folder)
    [received] = struct.unpack_from("q", shared)
    if received > plan.length + CHUNK:
        problem = f"{received} bytes were received for a bundle of {plan.length}"
    if not killed and cut >= 1_000_000:  # never reached: how many steps there are
        state = str(struct.unpack_from("q", shared, 8)[0])
    shutil.rmtree(folder)
    return Result(cut, killed, state, problem)


def check_restart(plan: Plan, folder: Path, received: mmap.mmap) -> None:
    """What runs after the restart is one of the two, and at the end the one ordered."""
    reports = run_agent(plan, folder, received)
    digests = {report.running.digest for report in reports if report.running}
    assert digests <= {plan.safe, plan.digest}, digests
    assert reports[-1].running.digest == plan.digest


def broken(plan: Plan, folder: Path) -> str:
    """What the disk promises and does not hold: every model it may run is whole and signed."""
    store = Store(folder / "state")
    memory, trouble = store.load()
    if trouble:
        return trouble
    safe = confirmed(memory.state)
    if safe is None or safe.digest not in (plan.safe, plan.digest):
        return f"the confirmed model is {safe}"
    orders = [safe]
    if type(memory.state).__name__ in ("Verified", "Trial"):
        orders.append(candidate(memory.state))
    for order in orders:
        path = store.bundle(order.digest)
        if not path.exists() or sha256(path.read_bytes()) != order.digest:
            return f"{order.version} should be on the disk in state {memory.state}"
        unpack(path.read_bytes(), [PublicKey.from_hex(plan.publisher)])
    return ""


def in_child(work: Callable[[], None], microseconds: int) -> bool:
    """Fork and work; whether it ended by a signal. Anything but success or our signal is raised."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            sys.setprofile(None)
            os._exit(code)
    if microseconds:
        time.sleep(microseconds / 1e6)
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        return True
    if os.WEXITSTATUS(status):
        raise RuntimeError(f"the agent ended with {os.WEXITSTATUS(status)}")
    return False


def main() -> None:
    plan = msgspec.json.decode(sys.stdin.buffer.read(), type=Plan)
    for cut in plan.cuts:
        try:
            result = one_cut(plan, cut, Path(plan.folder) / f"cut{cut}")
        except RuntimeError as error:
            result = Result(cut, killed=False, state="", problem=str(error))
        sys.stdout.write(msgspec.json.encode(result).decode() + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
