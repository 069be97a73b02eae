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
EMBEDDING = "embedding"  # the name of a second output


class Interpreter(Protocol):
    """Runs one model. In three steps, since the first and the last are cheap for many rows at once.

    `prepare` turns raw rows (n, *shape) into input tensors (n, 1, *shape), `infer` gives the stored
    answer (1, classes) of one of them, `scores` the real values (n, classes) of stored answers.
    Where there is an `embedding`, `embedded` is its stored value (1, *) for the last one inferred.
    """

    @property
    def description(self) -> str: ...
    @property
    def family(self) -> KernelFamily: ...
    @property
    def embedding(self) -> TensorSpec | None: ...
    def embedded(self) -> Array: ...
    def prepare(self, rows: Array) -> Array: ...
    def infer(self, prepared: Array) -> Array: ...
    def scores(self, stored: Array) -> Scores: ...


def run(interpreter: Interpreter, raw: Array) -> Scores:
    """Scores (classes,) of one raw row (*shape)."""
    [prepared] = interpreter.prepare(raw[np.newaxis])
    scores: Scores = interpreter.scores(interpreter.infer(prepared))[0]
    return scores


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
        delegate: str = "",
    ) -> None:
        litert = self._library()
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
                **source,
                num_threads=threads,
                experimental_op_resolver_type=kernels[family],
                experimental_delegates=[litert.load_delegate(delegate)] if delegate else None,
            )
            self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            said = " ".join(str(error).split())
            raise NotConvertibleError(f"LiteRT does not load the model: {said}") from error
        self.family: KernelFamily = family
        self._delegate = delegate
        self._preprocessing, self._reconstructs = preprocessing, reconstructs
        inputs = self._interpreter.get_input_details()
        outputs: list[dict[str, Any]] = []
        inside: list[dict[str, Any]] = []
        for found in self._interpreter.get_output_details():
            (inside if found["name"] == EMBEDDING else outputs).append(found)
        self.input, self.output = _tensor(inputs), _tensor(outputs)
        self.embedding = _tensor(inside) if inside else None
        self._prepared = Prepared(preprocessing, self.input)
        self._in, self._out = inputs[0]["index"], outputs[0]["index"]
        self._inside = inside[0]["index"] if inside else -1

    name = "litert"

    @staticmethod
    def _library() -> Any:  # noqa: ANN401 - LiteRT ships no types
        return _litert()

    @property
    def description(self) -> str:
        return f"{self.name}/{self._delegate or f'{self.family}/cpu'}"

    def prepare(self, rows: Array) -> Array:
        """Input tensors (n, 1, *shape) of raw rows (n, *shape); real values if it reconstructs."""
        if self._reconstructs:
            return self._preprocessing.apply(rows)[:, np.newaxis]
        return self._prepared(rows)[:, np.newaxis]

    def infer(self, prepared: Array) -> Array:
        """The stored answer (1, classes) of one input tensor (1, *shape)."""
        given = prepared
        if self._reconstructs:
            given = quantise(prepared.astype(np.float32), self.input)
        self._interpreter.set_tensor(self._in, given)
        self._interpreter.invoke()
        stored: Array = self._interpreter.get_tensor(self._out)
        if self._reconstructs:
            return reconstruction_error(prepared, dequantise(stored, self.output))
        return stored

    def embedded(self) -> Array:
        """The stored embedding (1, *) of what was inferred last."""
        inside: Array = self._interpreter.get_tensor(self._inside)
        return inside

    def scores(self, stored: Array) -> Scores:
        """Real scores (n, classes) of stored answers (n, classes)."""
        return stored.astype(np.float32) if self._reconstructs else dequantise(stored, self.output)

    def run(self, raw: Array) -> Scores:
        """Scores (classes,) of one raw row (*shape)."""
        return run(self, raw)

    def run_rows(self, rows: Array) -> Scores:
        """Scores (n, classes) of raw rows (n, *shape), one by one as a device does."""
        return np.stack([self.run(row) for row in rows])

    def embed_rows(self, rows: Array) -> Scores:
        """Real embeddings (n, d) of raw rows (n, *shape)."""
        if self.embedding is None:
            raise ValueError("the model has no embedding")
        found = []
        for prepared in self.prepare(rows):
            self.infer(prepared)
            found.append(self.embedded())
        return flat_embeddings(np.concatenate(found), self.embedding)


def flat_embeddings(stored: Array, spec: TensorSpec) -> Scores:
    """Real embeddings (n, d) of stored ones (n, *)."""
    return dequantise(stored, spec).reshape(len(stored), -1)


def lacking(ops: Iterable[Op]) -> list[Op]:
    """Those of `ops` that LiteRT, as installed here, does not have."""
    return [op for op in ops if not _knows(op)]


def _knows(op: Op) -> bool:
    try:
        _litert().Interpreter(model_content=asking_for(op))
    except (ValueError, RuntimeError):
        return False
    return True


class TfliteRuntime(LiteRt):
    """The same in tflite-runtime 2.14, which has what LiteRT had then and needs numpy < 2.

    By default it gives the built-in kernels' answers, also where XNNPACK is asked for.

    Raises:
        EdgeError: tflite-runtime is not installed.
    """

    name = "tflite-runtime"

    @staticmethod
    def _library() -> Any:  # noqa: ANN401 - it ships no types
        try:
            from tflite_runtime import interpreter
        except ModuleNotFoundError as error:
            raise EdgeError(
                "this runtime needs tflite-runtime 2.14 and numpy < 2 (Python 3.11 or older)"
            ) from error
        return interpreter


class Prepared:
    """Preprocessing and quantisation of raw rows, by table where a raw value is one byte."""

    def __init__(self, preprocessing: Preprocessing, spec: TensorSpec) -> None:
        self._preprocessing, self._spec = preprocessing, spec
        self._table: bytes | None = None
        self._shift: np.uint8 | None = None
        if spec.dtype in ("int8", "uint8") and not preprocessing.steps:
            every = np.arange(256, dtype=np.uint8)
            stored = self._plainly(every).view(np.uint8)
            self._table = stored.tobytes()
            if (stored - every == stored[0]).all():  # as for x / 255 on a scale of 1 / 255
                self._shift = stored[0]

    def __call__(self, rows: Array) -> Array:
        """What the model's input tensor stores for raw rows (n, *shape)."""
        if rows.dtype != np.uint8 or self._table is None:
            return self._plainly(rows)
        if self._shift == 0:
            return rows.view(self._spec.dtype)
        if self._shift is not None:
            shifted: Array = np.add(rows, self._shift).view(self._spec.dtype)
            return shifted
        flat = np.frombuffer(rows.tobytes().translate(self._table), self._spec.dtype)
        return flat.reshape(rows.shape)

    def _plainly(self, rows: Array) -> Array:
        return quantise(self._preprocessing.apply(rows), self._spec)


def quantise(values: Scores, spec: TensorSpec) -> Array:
    """Real values as the tensor stores them."""
    if not spec.scale:
        return np.asarray(values, spec.dtype)
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
    got = np.stack([run(interpreter, row) for row in golden.inputs])
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
