"""Which operators of a model the Edge TPU takes, and why not the others; its compiler, if there.

The rules are those of coral.ai, "TensorFlow models on the Edge TPU" (model requirements and the
table of supported operations). Once one operator is left to the CPU, so are all that follow it.
"""

import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import msgspec

from converters.findings import Fallback
from converters.layers import Layer, read_layers

COMPILER = "edgetpu_compiler"
_INTEGERS = {"int8", "uint8", "int32"}
_SECONDS = 300
_SOFTMAX_MOST = 16_000
_MAPPED = re.compile(r"Number of operations that will run on (Edge TPU|CPU): (\d+)")


class Compiled(msgspec.Struct, frozen=True):
    """What edgetpu_compiler made; `problem` is empty if every operator is on the Edge TPU."""

    model: bytes
    on_tpu: int
    on_cpu: int
    problem: str


def fallbacks(model: bytes, ops: Sequence[str]) -> tuple[Fallback, ...]:
    """The operators that would not run on the Edge TPU, in the order of the graph.

    Args:
        model: of a .tflite file.
        ops: operators that it knows.

    Raises:
        NotConvertibleError: it is no .tflite file.
    """
    found: list[Fallback] = []
    for layer in read_layers(model):
        reason = _reason(layer, ops)
        if not reason and found:
            reason = f"comes after {found[0].op}, which is on the CPU"
        if reason:
            found.append(Fallback(layer.op, layer.name.partition(";")[0], reason))
    return tuple(found)


def _reason(layer: Layer, ops: Sequence[str]) -> str:
    large = [n for n in layer.shape[:-3] if n > 1]
    if layer.op not in ops:
        return "the Edge TPU has no such operator"
    if layer.dtype not in _INTEGERS:
        return f"makes {layer.dtype}, needed is int8"
    if layer.weight_dtype and layer.weight_dtype not in _INTEGERS:
        return f"has weights of {layer.weight_dtype}, needed is int8"
    if layer.open_shape:
        return "its size is open, needed is a fixed one"
    if large:
        return f"makes {layer.shape}: only the three innermost sizes may be above 1"
    if layer.op == "SOFTMAX" and (layer.shape[-1] > _SOFTMAX_MOST or _rows(layer) > 1):
        return f"softmax of {layer.shape}: one row of at most {_SOFTMAX_MOST:,} is taken"
    if layer.weights_missing:
        return "its weights are computed, needed are constants"
    return ""


def _rows(layer: Layer) -> int:
    count = 1
    for n in layer.shape[:-1]:
        count *= n
    return count


def compiler() -> str | None:
    """The path of edgetpu_compiler, if it is on this machine."""
    return shutil.which(COMPILER)


def compiled(model: Path, path: str) -> Compiled:
    """The model compiled for the Edge TPU, beside its file.

    Args:
        model: a .tflite file.
        path: of edgetpu_compiler.
    """
    out = model.parent
    try:
        done = subprocess.run(  # noqa: S603 - the user's own compiler
            [path, "-s", "-a", "-o", str(out), str(model)],
            capture_output=True, text=True, errors="replace", check=False, timeout=_SECONDS,
        )  # fmt: skip
    except (subprocess.TimeoutExpired, OSError) as error:
        return Compiled(b"", 0, 0, f"{COMPILER} did not end well: {type(error).__name__}")
    made = out / f"{model.stem}_edgetpu.tflite"
    counts = {where: int(count) for where, count in _MAPPED.findall(done.stdout)}
    on_tpu, on_cpu = counts.get("Edge TPU", 0), counts.get("CPU", 0)
    if done.returncode or not made.exists():
        lines = (done.stderr + done.stdout).strip().splitlines() or ["no word"]
        return Compiled(b"", on_tpu, on_cpu, f"{COMPILER} says: {lines[-1][:200]}")
    problem = f"{COMPILER} leaves {on_cpu} of {on_cpu + on_tpu} operators to the CPU"
    return Compiled(made.read_bytes(), on_tpu, on_cpu, problem if on_cpu else "")
