"""A converted model on the runtime of a board that is not LiteRT: does it answer the same there?

LiteRT on the host says nothing about TFLite Micro, which ignores weights that lie outside of the
flatbuffer, or about tflite-runtime, which computes some newer operators wrongly. So candidates run
there too, each in a process of its own, and one that answers otherwise is refused.
"""

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from converters.accuracy import agreement
from converters.findings import Elsewhere
from edge_sdk.bundle import Task, TensorSpec
from edge_sdk.channels import Array, Preprocessing, reconstruction_error
from edge_sdk.interpreter import Scores, dequantise, quantise
from edge_sdk.profiles import Runtime

PYTHON = "EDGE_TFLITE_RUNTIME_PYTHON"
ROWS = 200
_SECONDS = 120
_ARENA = re.compile(r"Arena allocation total (\d+) bytes")


class Trial(msgspec.Struct, frozen=True):
    """A model to run elsewhere, and what LiteRT answered.

    Attributes:
        model: its file; others are written beside it.
        rows: raw rows (n, *shape).
        scores: of LiteRT for them (n, k).
    """

    model: Path
    rows: Array
    scores: Scores
    input: TensorSpec
    output: TensorSpec
    preprocessing: Preprocessing
    task: Task


def run_elsewhere(trial: Trial, runtime: Runtime) -> Elsewhere | None:
    """What the model does on a board's runtime; None where that is LiteRT itself."""
    match runtime:
        case "litert" | "edgetpu":
            return None
        case "tflite-micro":
            if importlib.util.find_spec("tflite_micro") is None:
                return Elsewhere(unchecked="tflite-micro is not installed here (x86-64 Linux only)")
            return _run(trial, (sys.executable, "-P", "-m", "converters.on_micro"))
        case "tflite-runtime":
            python = os.environ.get(PYTHON, "")
            if not python:
                return Elsewhere(unchecked=f"{PYTHON} names no Python with tflite-runtime; {_HOW}")
            script = Path(__file__).with_name("on_tflite_runtime.py")
            return _run(trial, (python, "-P", str(script)))


_HOW = (
    "make one: python3.11 -m venv DIR && DIR/bin/pip install tflite-runtime==2.14.0 'numpy<2'; "
    f"then set {PYTHON}=DIR/bin/python"
)


def _run(trial: Trial, command: Sequence[str]) -> Elsewhere:
    some = np.linspace(0, len(trial.rows) - 1, min(ROWS, len(trial.rows))).astype(np.intp)
    given = trial.preprocessing.apply(np.asarray(trial.rows)[some])
    rows, out = trial.model.with_suffix(".rows.npy"), trial.model.with_suffix(".answers.npy")
    np.save(rows, quantise(given, trial.input))
    try:
        done = subprocess.run(  # noqa: S603 - our own scripts
            [*command, str(trial.model), str(rows), str(out)],
            capture_output=True, text=True, errors="replace", check=False, timeout=_SECONDS,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return Elsewhere(problem=f"takes over {_SECONDS} s for {len(some)} rows")
    except OSError as error:
        return Elsewhere(problem=f"{command[0]} can't be started: {error.strerror}")
    if done.returncode:
        return Elsewhere(problem=_last_words(done.stderr, done.returncode))
    found = dequantise(np.load(out), trial.output)
    if trial.task == "anomaly":
        found = reconstruction_error(given, found)
    arena = _ARENA.search(done.stderr)
    return Elsewhere(
        agreement=agreement(trial.scores[some], found, trial.task),
        arena_bytes=int(arena[1]) if arena else None,
    )


def _last_words(stderr: str, code: int) -> str:
    lines = [line for line in stderr.strip().splitlines() if line.strip()]
    said = next((line for line in reversed(lines) if _TELLS.search(line)), "")
    how = f"died of signal {-code}" if code < 0 else "failed"
    return f"{how}: {(said or (lines or ['no word'])[-1]).strip()[:200]}"


_TELLS = re.compile(r"not supported|Didn't find op|Error|Failed|failed|missing")
