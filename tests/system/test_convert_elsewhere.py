"""Models on runtimes that are not LiteRT: silent wrong answers are caught, and repaired."""

import os
import subprocess
import sys
import venv
from pathlib import Path

import numpy as np
import pytest

from converters import edgetpu
from converters.elsewhere import PYTHON, Trial, run_elsewhere
from converters.flatbuffer import slim, with_signature
from converters.gate import MIN_KERNEL_AGREEMENT
from converters.rewrite import rewrite
from converters.steps import Quantise
from edge_sdk.channels import Preprocessing
from edge_sdk.interpreter import LiteRt
from edge_sdk.profiles import load_profile
from tests.micro_models import dense_net

pytestmark = pytest.mark.system
ROWS = np.random.default_rng(3).normal(0, 1, (60, 16)).astype(np.float32)
WIDE = dense_net(20_000)  # its first weights are 312 KiB in int8


def trial(tmp_path, model):
    path = tmp_path / "model.tflite"
    path.write_bytes(model)
    here = LiteRt(model, Preprocessing())
    return Trial(
        path, ROWS, here.run_rows(ROWS), here.input, here.output, Preprocessing(), "classification"
    )


def as_the_library_makes_it(model, recipe_name):
    from ai_edge_quantizer import quantizer, recipe

    made = quantizer.Quantizer(with_signature(model), getattr(recipe, recipe_name)())
    ranges = None
    if made.need_calibration:
        [(key, runner)] = [("serving_default", [{"input": row[np.newaxis]} for row in ROWS])]
        ranges = made.calibrate({key: runner})
    return bytes(made.quantize(ranges).quantized_model)


@pytest.mark.filterwarnings("ignore")
def test_weights_outside_of_the_flatbuffer_are_nothing_to_tflite_micro_until_brought_in(tmp_path):
    """ai-edge-quantizer puts 256 KiB and more behind it; tflite-micro#3196."""
    raw = as_the_library_makes_it(WIDE, "static_wi8_ai8")
    wrong = run_elsewhere(trial(tmp_path, raw), "tflite-micro")
    assert wrong.problem or wrong.agreement < MIN_KERNEL_AGREEMENT
    right = run_elsewhere(trial(tmp_path, slim(raw)), "tflite-micro")
    assert right.problem == ""
    assert right.agreement >= MIN_KERNEL_AGREEMENT
    assert 16_000 < right.arena_bytes < 200_000


def test_tflite_micro_says_what_it_does_not_run(tmp_path):
    hybrid = rewrite(dense_net(200), Quantise("dynamic-range"), ROWS)
    found = run_elsewhere(trial(tmp_path, hybrid), "tflite-micro")
    assert "Hybrid" in found.problem or "failed" in found.problem


def test_litert_is_not_elsewhere(tmp_path):
    assert run_elsewhere(trial(tmp_path, dense_net(8)), "litert") is None


@pytest.fixture(scope="session")
def old_python(tmp_path_factory):
    """An environment with tflite-runtime 2.14 from the package index."""
    if sys.version_info[:2] != (3, 11):
        pytest.skip("tflite-runtime 2.14 has no package for this Python")
    folder = tmp_path_factory.mktemp("tflite-runtime")
    venv.create(folder, with_pip=True)
    pip = [folder / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run([*pip, "tflite-runtime==2.14.0", "numpy<2"], check=False)
    if done.returncode:
        pytest.skip("tflite-runtime can't be installed here: no package index")
    return folder / "bin" / "python"


@pytest.mark.filterwarnings("ignore")
def test_dynamic_range_with_scales_for_each_channel_goes_wrong_in_tflite_runtime_and_ours_not(
    tmp_path, old_python, monkeypatch
):
    monkeypatch.setenv(PYTHON, str(old_python))
    net = dense_net(200)
    raw = as_the_library_makes_it(net, "dynamic_wi8_afp32")
    wrong = run_elsewhere(trial(tmp_path, slim(raw)), "tflite-runtime")
    assert wrong.problem or wrong.agreement < MIN_KERNEL_AGREEMENT
    ours = run_elsewhere(
        trial(tmp_path, slim(rewrite(net, Quantise("dynamic-range"), ROWS))), "tflite-runtime"
    )
    assert (ours.problem, ours.unchecked) == ("", "")
    assert ours.agreement >= MIN_KERNEL_AGREEMENT
    full = run_elsewhere(
        trial(tmp_path, slim(rewrite(net, Quantise("int8"), ROWS))), "tflite-runtime"
    )
    assert full.agreement >= MIN_KERNEL_AGREEMENT


def test_without_that_environment_the_way_to_it_is_told(tmp_path, monkeypatch):
    monkeypatch.delenv(PYTHON, raising=False)
    found = run_elsewhere(trial(tmp_path, dense_net(8)), "tflite-runtime")
    assert "pip install tflite-runtime==2.14.0 'numpy<2'" in found.unchecked
    monkeypatch.setenv(PYTHON, str(tmp_path / "none"))
    assert (
        "can't be started" in run_elsewhere(trial(tmp_path, dense_net(8)), "tflite-runtime").problem
    )


def test_what_the_edge_tpu_leaves_to_the_cpu_is_named_with_its_reason():
    ops = load_profile("coral-usb").ops
    assert edgetpu.fallbacks(rewrite(dense_net(96), Quantise("int8"), ROWS), ops) == ()
    first, second = edgetpu.fallbacks(dense_net(96), ops)
    assert (first.op, first.reason) == ("FULLY_CONNECTED", "makes float32, needed is int8")
    assert second.reason == "makes float32, needed is int8"
    [_, after] = edgetpu.fallbacks(
        rewrite(dense_net(96), Quantise("int8"), ROWS),
        [op for op in ops if op != "FULLY_CONNECTED"],
    )
    assert after.reason == "the Edge TPU has no such operator"


# The real compiler can't be had here: this stands in for it, with its words (version 16.0).
COMPILER = """#!/bin/sh
while [ $# -gt 1 ]; do [ "$1" = -o ] && out=$2; shift; done
name=$(basename "$1" .tflite)
{act}
"""
WORDS = """cat <<END
Edge TPU Compiler version 16.0.384591198
Model compiled successfully in 21 ms.
Number of operations that will run on Edge TPU: {tpu}
Number of operations that will run on CPU: {cpu}
END
cp "$1" "$out/${{name}}_edgetpu.tflite"
"""


@pytest.mark.parametrize(
    ("act", "problem"),
    [
        (WORDS.format(tpu=2, cpu=0), ""),
        (WORDS.format(tpu=1, cpu=1), "edgetpu_compiler leaves 1 of 2 operators to the CPU"),
        ("echo 'Internal compiler error. Aborting!' >&2; exit 1", "Internal compiler error"),
    ],
)
def test_the_compiler_s_own_words_decide(tmp_path, act, problem):
    script = tmp_path / "edgetpu_compiler"
    script.write_text(COMPILER.format(act=act))
    script.chmod(0o755)
    (tmp_path / "model.tflite").write_bytes(dense_net(8))
    found = edgetpu.compiled(tmp_path / "model.tflite", str(script))
    assert problem in found.problem
    assert bool(found.problem) == bool(problem)
    assert bool(found.model) == ("Internal" not in problem)


def test_it_is_found_on_the_path(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert edgetpu.compiler() is None
    script = tmp_path / "edgetpu_compiler"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    assert edgetpu.compiler() == str(script)
    assert Path(os.environ["PATH"]) == tmp_path
