"""How a model is run: the one door to LiteRT, for the converter that validates and the agent.

Raw rows in, real-valued scores out: preprocessing, quantising, invoking and dequantising are the
same code on both sides. Importing this module does not import LiteRT; making an interpreter does.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edge_sdk.bundle import Golden, KernelFamily, Manifest, TensorSpec
from edge_sdk.channels import Array, Preprocessing, reconstruction_error
from edge_sdk.errors import EdgeError, NotConvertibleError
from edge_sdk.ops import Op, asking_for

Scores = NDArray[np.float32]


class Interpreter(Protocol):
    """Runs one model; `run` takes one raw row (*shape) and gives scores (classes,)."""

    @property
    def description(self) -> str: ...
    @property
    def family(self) -> KernelFamily: ...
    def run(self, raw: Array) -> Scores: ...


class LiteRt:
    """A .tflite model in LiteRT, with XNNPACK kernels or the built-in ones.

    One that reconstructs its input answers with the error of that, (1,).

    Raises:
        NotConvertibleError: LiteRT does not load the model (an unknown op, a damaged file).
        EdgeError: ai-edge-litert is not installed.
    """

    def __init__(
        self,
        model: bytes | Path,
        preprocessing: Preprocessing,
        *,
        family: KernelFamily = "xnnpack",
        threads: int = 1,
        reconstructs: bool = False,
    ) -> None:
        litert = _litert()
        resolver = litert.OpResolverType
        kernels = {
            "xnnpack": resolver.AUTO,
            "builtin": resolver.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        }
        source: dict[str, Any] = (
            {"model_path": str(model)} if isinstance(model, Path) else {"model_content": model}
        )
        try:
            self._interpreter = litert.Interpreter(
                **source, num_threads=threads, experimental_op_resolver_type=kernels[family]
            )
            self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise NotConvertibleError(f"LiteRT does not load the model: {error}") from error
        self.family: KernelFamily = family
        self._preprocessing, self._reconstructs = preprocessing, reconstructs
        self.input = _tensor(self._interpreter.get_input_details())
        self.output = _tensor(self._interpreter.get_output_details())
        self._in = self._interpreter.get_input_details()[0]["index"]
        self._out = self._interpreter.get_output_details()[0]["index"]

    @property
    def description(self) -> str:
        return f"litert/{self.family}/cpu"

    def run(self, raw: Array) -> Scores:
        """Scores (classes,) of one raw row (*shape)."""
        values = self._preprocessing.apply(raw[np.newaxis])
        self._interpreter.set_tensor(self._in, quantise(values, self.input))
        self._interpreter.invoke()
        scores: Scores = dequantise(self._interpreter.get_tensor(self._out), self.output)
        if self._reconstructs:
            scores = reconstruction_error(values, scores)
        answer: Scores = scores[0]
        return answer

    def run_rows(self, rows: Array) -> Scores:
        """Scores (n, classes) of raw rows (n, *shape), one by one as a device does."""
        return np.stack([self.run(row) for row in rows])


def lacking(ops: Iterable[Op]) -> list[Op]:
    """Those of `ops` that LiteRT, as installed here, does not have."""
    return [op for op in ops if not _knows(op)]


def _knows(op: Op) -> bool:
    try:
        _litert().Interpreter(model_content=asking_for(op))
    except (ValueError, RuntimeError):
        return False
    return True


def quantise(values: Scores, spec: TensorSpec) -> Array:
    """Real values as the tensor stores them."""
    if not spec.scale:
        return values.astype(spec.dtype)
    limits = np.iinfo(spec.dtype)
    stored = np.round(values / np.float32(spec.scale)) + spec.zero_point
    clipped: Array = np.clip(stored, limits.min, limits.max).astype(spec.dtype)
    return clipped


def dequantise(stored: Array, spec: TensorSpec) -> Scores:
    """Stored values as real ones."""
    if not spec.scale:
        return stored.astype(np.float32)
    return (stored.astype(np.float32) - np.float32(spec.zero_point)) * np.float32(spec.scale)


def self_test(interpreter: Interpreter, golden: Golden, manifest: Manifest) -> str | None:
    """Why the golden samples do not come out as signed, in words; None if they do.

    The answers are compared with those of the interpreter's own kernel family, within the
    manifest's tolerance for it.
    """
    expected = golden.expected.get(interpreter.family)
    if expected is None:
        return f"the bundle has no golden answers for {interpreter.family} kernels"
    got = np.stack([interpreter.run(row) for row in golden.inputs])
    if got.shape != expected.shape:
        return f"golden answers have shape {expected.shape}, the model gives {got.shape}"
    worst = float(np.abs(got - expected).max())
    limit = manifest.golden_tolerance.get(interpreter.family, 0.0)
    if not worst <= limit:
        return f"golden answers differ by {worst:.4g}, allowed is {limit:.4g}"
    return None


def _tensor(details: list[dict[str, Any]]) -> TensorSpec:
    if len(details) != 1:
        raise NotConvertibleError(f"the model has {len(details)} inputs or outputs, not one")
    [found] = details
    scale, zero_point = found["quantization"]
    return TensorSpec(
        name=str(found["name"]),
        dtype=np.dtype(found["dtype"]).name,
        shape=tuple(int(n) for n in found["shape"]),
        scale=float(scale),
        zero_point=int(zero_point),
    )


def _litert() -> Any:  # noqa: ANN401 - LiteRT ships no types
    try:
        from ai_edge_litert import interpreter
    except ModuleNotFoundError as error:
        raise EdgeError(
            "running a model needs ai-edge-litert: pip install 'edge-deployment-sdk[agent]'"
        ) from error
    return interpreter
