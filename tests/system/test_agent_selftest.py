"""A new model is tried in a child: whatever it does there is a reason, and the agent lives on."""

import os
import signal
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import msgspec
import pytest

from device_agent.selftest import Task, Verdict, try_apart
from edge_sdk.bundle import CARD, MODEL, pack, unpack
from edge_sdk.files import sha256
from edge_sdk.messages import Assignment
from edge_sdk.signing import SigningKey
from tests.agent_world import BOARD, eventually, tiny_bundle
from tests.agent_world import MODEL as TINY

pytestmark = pytest.mark.system
KEY = SigningKey.generate()


@pytest.fixture
def trial(tmp_path):
    """Why a tiny bundle is not taken after `changes` of its manifest or another model."""

    def go(*, model: bytes | None = None, cancelled: bool = False, **changes: object) -> str | None:
        stop = threading.Event()
        if cancelled:
            stop.set()
        return try_apart(task(tmp_path, model, changes), stop)

    return go


def task(folder: Path, model: bytes | None, changes: dict[str, object]) -> Task:
    made = unpack(tiny_bundle(KEY), [KEY.public])
    members = {**made.members, CARD: b"x", MODEL: model or made.model}
    data = pack(msgspec.structs.replace(made.manifest, **changes), members, KEY)
    path = folder / "b.edge"
    path.write_bytes(data)
    order = Assignment(
        device="d", generation=1, model="quarters", version="1", profile=BOARD.name,
        digest=sha256(data), length=len(data), rollout="r", not_before=0.0,
    )  # fmt: skip
    return Task(str(path), order, (KEY.public.hex,), BOARD)


def test_a_sound_model_passes(trial):
    assert trial() is None


def test_a_model_slower_than_its_budget_is_refused_with_both_numbers(trial):
    assert "ms (median), the budget is 1e-06 ms" in trial(latency_budget_ms=1e-6)


def test_a_model_that_wants_more_memory_than_it_declares_is_refused(trial):
    shape, huge = struct.pack("<4i", 1, 8, 8, 1), struct.pack("<4i", 1, 20000, 20000, 1)
    reason = trial(model=TINY.read_bytes().replace(shape, huge))
    assert "memory" in reason


def test_an_op_version_of_a_newer_runtime_is_named_with_what_to_do(trial):
    reason = trial(model=_newer_op(TINY.read_bytes()))
    assert "needs op CONV_2D in version 99" in reason
    assert "upgrade ai-edge-litert" in reason


def test_a_child_that_crashes_is_a_reason_not_the_end_of_the_agent(trial):
    before = set(_children())  # a database or a server of other tests may be among them

    def made() -> list[int]:
        return [child for child in _children() if child not in before]

    def crash() -> None:
        for child in made():
            os.kill(child, signal.SIGSEGV)

    found: list[str | None] = []
    thread = threading.Thread(target=lambda: found.append(trial()))
    thread.start()
    eventually(made, "a child")
    crash()
    thread.join(20)
    assert "ended by SIGSEGV" in found[0]


def test_a_trial_that_is_not_wanted_any_more_ends_at_once(trial):
    begun = time.monotonic()
    assert trial(cancelled=True) in ("cancelled", None)
    assert time.monotonic() - begun < 5


def test_the_limit_leaves_room_for_what_a_tiny_model_was_measured_to_take(tmp_path):
    child = [sys.executable, "-m", "device_agent.selftest"]
    given = msgspec.json.encode(task(tmp_path, None, {}))
    answer = subprocess.run(child, input=given, capture_output=True, check=True).stdout
    verdict = msgspec.json.decode(answer, type=Verdict)
    assert verdict.reason == ""
    assert 0 <= verdict.used_bytes < verdict.limit_bytes < 100_000_000


def _children() -> list[int]:
    tasks = Path("/proc/self/task").glob("*/children")
    return [int(pid) for path in tasks for pid in path.read_text().split()]


def _newer_op(model: bytes) -> bytes:
    """The model with version 99 for its first op code, found by walking the flatbuffer."""

    def follow(at: int) -> int:
        return int(at + struct.unpack_from("<I", model, at)[0])

    def field(table: int, index: int) -> int:
        vtable = table - struct.unpack_from("<i", model, table)[0]
        return int(table + struct.unpack_from("<H", model, vtable + 4 + 2 * index)[0])

    codes = follow(field(follow(0), 1))
    version = field(follow(codes + 4), 2)
    return model[:version] + struct.pack("<i", 99) + model[version + 4 :]
