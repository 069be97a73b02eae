"""A new model is tried in a process of its own first: what it breaks there, it can't break here.

The child may use as much memory as the manifest declares, over what the interpreter and numpy took
by then; it runs the golden samples and times them against the manifest's budget. Only a model that
passed is loaded by the agent. `python -m device_agent.selftest` is the child.
"""

import re
import resource
import signal
import statistics
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

import msgspec

from device_agent.runtime import Model, prepare, verified
from edge_sdk.channels import Array
from edge_sdk.errors import EdgeError, NotConvertibleError
from edge_sdk.interpreter import run
from edge_sdk.messages import Assignment
from edge_sdk.ops import Op, why_lacking
from edge_sdk.profiles import HardwareProfile
from edge_sdk.signing import PublicKey

TIMEOUT = 120.0  # seconds for the whole child
STOPPED = (-signal.SIGTERM, -signal.SIGINT)
STOPPING = 5.0  # seconds between the two
RUNS, WARM_UP, SECONDS = 30, 3, 3.0  # of the timing: whichever ends first
# What LiteRT takes beyond the model: 24.5 MB were measured for a model of 3.6 kB with 4 threads,
# nearly all of it the threads' stacks of 8 MiB, which count as soon as they are reserved.
STACK = 8 * 1024 * 1024
FLOOR = 32 * 1024 * 1024


class Task(msgspec.Struct, frozen=True):
    """What to try: the bundle's file, its order, whom to trust (hex), on which board, how often."""

    path: str
    order: Assignment
    publishers: tuple[str, ...]
    profile: HardwareProfile
    runs: int = RUNS


class Verdict(msgspec.Struct, frozen=True):
    """What came of it; `reason` is empty if the model passed.

    Attributes:
        latency_ms, p90_ms: of `runs` answers, one after the other; 0 if it came to none.
    """

    reason: str = ""
    latency_ms: float = 0.0
    p90_ms: float = 0.0
    runs: int = 0
    limit_bytes: int = 0
    used_bytes: int = 0


Trial = Callable[[Task, threading.Event], str | None]  # why a model may not run; None if it may


def try_apart(task: Task, cancelled: threading.Event) -> str | None:
    """Run the child; why the model may not run, in words, and None if it passed."""
    return judged_apart(task, cancelled).reason or None


def judged_apart(task: Task, cancelled: threading.Event) -> Verdict:
    """What the child found; a reason alone if it did not get that far."""
    command = [sys.executable, "-P", "-m", "device_agent.selftest"]
    pipe = subprocess.PIPE
    try:
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe) as child:  # noqa: S603
            try:
                said = _ask(child, msgspec.json.encode(task), cancelled)
            finally:
                child.kill()
    except OSError as error:
        return Verdict(f"its self-test can't be started: {error}")
    if child.returncode in STOPPED:  # whoever stops the agent may have told its child first
        cancelled.wait(STOPPING)
    if said is None:
        late = f"its self-test took over {TIMEOUT:.0f} s"
        return Verdict("cancelled" if cancelled.is_set() else late)
    answer, words = said
    try:
        return msgspec.json.decode(answer, type=Verdict)
    except msgspec.DecodeError:
        return Verdict(_ended(child.returncode, words))


def in_this_process(_task: Task, _cancelled: threading.Event) -> str | None:
    """No child: for many simulated devices in one process, which would time each other."""
    return None


def _ask(
    child: subprocess.Popen[bytes], task: bytes, cancelled: threading.Event
) -> tuple[bytes, bytes] | None:
    """What the child wrote; None if it took too long, or was not wanted any more."""
    given: bytes | None = task
    for _ in range(int(TIMEOUT / 0.2)):
        try:
            return child.communicate(given, timeout=0.2)
        except subprocess.TimeoutExpired:
            given = None  # it is on its way already
            if cancelled.is_set():
                return None
    return None


def _ended(code: int, words: bytes) -> str:
    lines = words.decode(errors="replace").strip().splitlines() or [""]
    said = f": {lines[-1][:200]}" if lines[-1] else ""
    if code < 0:
        return f"its self-test was ended by {signal.Signals(-code).name}{said}"
    return f"its self-test ended with exit code {code}{said}"


def judge(task: Task) -> Verdict:
    """In the child: verify, limit memory, load, run the golden samples, time them."""
    keys = [PublicKey.from_hex(text) for text in task.publishers]
    limit = 0
    try:
        bundle = verified(Path(task.path), task.order, keys)
        before = _data_bytes()
        limit = 2 * bundle.manifest.ram_bytes + STACK * task.profile.threads + FLOOR
        resource.setrlimit(resource.RLIMIT_DATA, (before + limit, before + limit))
        model = prepare(bundle, task.order, task.profile)
        times = latencies(model, bundle.golden.inputs, task.runs)
    except NotConvertibleError as error:
        return Verdict(_plainly(str(error), limit), limit_bytes=limit)
    except EdgeError as error:
        return Verdict(str(error), limit_bytes=limit)
    except MemoryError:
        return Verdict(_too_much(limit), limit_bytes=limit)
    budget, latency = bundle.manifest.latency_budget_ms, statistics.median(times)
    slow = f"answers take {latency:.3g} ms (median), the budget is {budget:.3g} ms"
    return Verdict(
        f"self-test failed: {slow}" if latency > budget else "",
        latency,
        statistics.quantiles(times, n=10)[-1] if len(times) > 1 else latency,
        len(times),
        limit,
        _data_bytes() - before,
    )


def latencies(model: Model, rows: Array, runs: int) -> list[float]:
    """Milliseconds of single answers, preprocessing included; fewer than `runs` of a slow model."""
    begun, times = perf_counter(), list[float]()
    for index in range(WARM_UP + runs):
        start = perf_counter()
        run(model.interpreter, rows[index % len(rows)])
        times.append((perf_counter() - start) * 1000)
        if perf_counter() - begun > SECONDS:
            break
    return times[WARM_UP:] or times


def _plainly(words: str, limit: int) -> str:
    """LiteRT's words for an op it does not know, as what to do; it has none for lack of memory."""
    found = re.search(r"Didn't find op for builtin opcode '(\w+)' version '(\d+)'", words)
    if found is None:
        return f"{words} (it may take {limit:,} bytes of memory)"
    return why_lacking([Op(found[1], 0, int(found[2]))])


def _too_much(limit: int) -> str:
    return f"self-test failed: the model needs more than the {limit:,} bytes of memory allowed"


def _data_bytes() -> int:
    """Private writable memory of this process, which is what RLIMIT_DATA counts."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmData:"):
            return int(line.split()[1]) * 1024
    return 0


def main() -> None:
    """The child: a Task on stdin, a Verdict on stdout."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    from ai_edge_litert import interpreter  # noqa: F401 - counts before the limit is set

    task = msgspec.json.decode(sys.stdin.buffer.read(), type=Task)
    sys.stdout.buffer.write(msgspec.json.encode(judge(task)))


if __name__ == "__main__":
    main()
