"""The runtimes beside LiteRT: tflite-runtime in an environment of its own, and an Edge TPU that is
not here, or whose library crashes.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from device_agent.accelerator import why_no_edge_tpu
from device_agent.runtime import prepare
from edge_sdk.bundle import GOLDEN, Golden, contents, decode_golden, unpack
from edge_sdk.channels import Preprocessing
from edge_sdk.interpreter import LiteRt
from edge_sdk.messages import Assignment
from edge_sdk.signing import SigningKey
from tests.agent_world import BOARD, LABELS, MODEL, rows, tiny_bundle
from tests.bundles import make_bundle

pytestmark = pytest.mark.system
ROOT = Path(__file__).parents[2]
KEY = SigningKey.generate()
OLD = ["tflite-runtime==2.14.0", "numpy<2", "msgspec", "cryptography", "securesystemslib", "click"]
THERE = """
import json, sys
from pathlib import Path
import msgspec, numpy
from device_agent.runtime import prepare
from edge_sdk.bundle import unpack
from edge_sdk.messages import Assignment
from edge_sdk.profiles import HardwareProfile
from edge_sdk.signing import PublicKey
task = json.loads(Path(sys.argv[1]).read_text())
bundle = unpack(Path(task["bundle"]).read_bytes(), [PublicKey.from_hex(task["key"])])
order = msgspec.convert(task["order"], Assignment)
model = prepare(bundle, order, msgspec.convert(task["profile"], HardwareProfile))
rows = bundle.golden.inputs
stored = [model.interpreter.infer(row) for row in model.interpreter.prepare(rows)]
scores = model.interpreter.scores(numpy.concatenate(stored))
print(json.dumps([model.description, numpy.__version__, scores.tolist()]))
"""


def order(data: bytes) -> Assignment:
    bundle = unpack(data, [KEY.public])
    return Assignment(
        device="d", generation=1, model="quarters", version="1", profile=BOARD.name,
        digest=bundle.digest, length=len(data), rollout="r", not_before=0.0,
    )  # fmt: skip


def both_families() -> bytes:
    """A bundle with the golden answers of both kernel families, as the converter makes them."""
    data, x = MODEL.read_bytes(), rows()[:4]
    answers = {
        family: LiteRt(data, Preprocessing(scale=1 / 16), family=family).run_rows(x)
        for family in ("xnnpack", "builtin")
    }
    return make_bundle(
        KEY, name="quarters", profile=BOARD.name, labels=LABELS, x=rows(), model=data,
        golden=Golden(x, answers), tolerance=1 / 256 + 1e-6,
    )  # fmt: skip


def python_3_11() -> bool:
    found = subprocess.run(
        [uv(), "python", "find", "--no-project", "3.11"], capture_output=True, check=False
    )
    return found.returncode == 0


def uv() -> str:
    return os.environ.get("UV") or shutil.which("uv") or str(ROOT / ".tools" / "bin" / "uv")


@pytest.mark.skipif(not python_3_11(), reason="tflite-runtime needs a Python 3.11, none is here")
def test_tflite_runtime_loads_a_bundle_and_passes_its_golden_samples(tmp_path):
    data = both_families()
    (tmp_path / "x.edge").write_bytes(data)
    board = msgspec.structs.replace(BOARD, runtime="tflite-runtime")
    task = {
        "bundle": str(tmp_path / "x.edge"),
        "key": KEY.public.hex,
        "order": msgspec.to_builtins(order(data)),
        "profile": msgspec.to_builtins(board),
    }
    (tmp_path / "task.json").write_text(json.dumps(task))
    (tmp_path / "there.py").write_text(THERE)
    done = subprocess.run(
        [uv(), "run", "--no-project", "--isolated", "--quiet", "--python", "3.11",
         *(word for package in OLD for word in ("--with", package)),
         "python", str(tmp_path / "there.py"), str(tmp_path / "task.json")],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=250,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    description, numpy_version, scores = json.loads(done.stdout.splitlines()[-1])
    assert description == "tflite-runtime/builtin/cpu"
    assert numpy_version.startswith("1.")
    golden = decode_golden(contents(data)[GOLDEN]).expected["builtin"]
    assert scores == pytest.approx(golden, abs=1 / 256 + 1e-6)


@pytest.fixture
def board():
    why_no_edge_tpu.cache_clear()
    yield msgspec.structs.replace(BOARD, runtime="edgetpu")
    why_no_edge_tpu.cache_clear()


def test_without_an_edge_tpu_the_cpu_answers_and_says_so(board):
    data = tiny_bundle(KEY)
    model = prepare(unpack(data, [KEY.public]), order(data), board)
    assert model.description.startswith("litert/xnnpack/cpu (no Edge TPU: ")
    assert "libedgetpu.so.1" in model.description


@pytest.mark.skipif(not shutil.which("gcc"), reason="needs a C compiler to make a library")
def test_an_edge_tpu_library_that_crashes_takes_nothing_down(board, tmp_path, monkeypatch):
    source = tmp_path / "crash.c"
    source.write_text("#include <stdlib.h>\n__attribute__((constructor)) void f() { abort(); }\n")
    library = str(tmp_path / "libedgetpu.so.1")
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, str(source)], check=True)
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    data = tiny_bundle(KEY)
    model = prepare(unpack(data, [KEY.public]), order(data), board)
    assert "crashed its probe by signal 6" in model.description
    assert sys.executable  # still here
