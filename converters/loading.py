"""Models as they come: a Keras file of either Keras, a SavedModel folder, ONNX. Worker only.

tf_keras is tried first, since pruning needs its layers; Keras 3 reads what it can't.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import msgspec
import numpy as np
import tensorflow as tf
import tf_keras

from converters.bridge import BridgeError, to_tf_keras
from converters.dialogue import Rows, UnreadableModelError, first_line
from converters.recipe import SourceFacts
from edge_sdk.features import Feature

_BATCH = 256


@dataclass(frozen=True)
class Source:
    """A loaded model.

    Attributes:
        call: one TensorFlow call (n, *shape) -> (n, classes), to trace for conversion.
        original: the same of the model as it was given, which may differ: what is scored.
        keep: what owns the weights that `call` uses.
        trainable: the same model in tf_keras, for recipes that train; None if there is none.
        ranges: whether it carries its own int8 ranges, from quantisation-aware training.
        features: steps that make its input of the given model's.
        batch: rows that `original` takes at a time.
        tools: what read the model, besides TensorFlow.
    """

    facts: SourceFacts
    call: Callable[[Any], Any]
    original: Callable[[Any], Any]
    keep: Any
    trainable: Any | None
    ranges: bool = False
    features: tuple[Feature, ...] = ()
    batch: int = _BATCH
    tools: tuple[str, ...] = ()

    def score(self, rows: Rows) -> Rows:
        """The given model's scores (n, classes) of model inputs (n, *shape)."""
        starts = range(0, len(rows), self.batch)
        parts = [self.original(tf.constant(rows[i : i + self.batch])) for i in starts]
        return np.concatenate([np.asarray(part, dtype=np.float32) for part in parts])

    def traced(self, shape: tuple[int, ...]) -> Any:  # noqa: ANN401 - TensorFlow ships no types
        """A concrete function for one row of a fixed shape."""
        spec = tf.TensorSpec((1, *shape), tf.float32, name="input")
        return tf.function(self.call).get_concrete_function(spec)


def load(path: Path) -> Source:
    """The model in a file or folder.

    Raises:
        UnreadableModelError: it is none that we read, or has not one input and one output.
    """
    if path.is_dir():
        return _saved_model(path)
    if path.suffix == ".onnx":
        return _onnx(path)
    if path.suffix not in {".h5", ".hdf5", ".keras"}:
        raise UnreadableModelError(
            f"{path.suffix or 'a file without ending'} is not read; "
            "give a .keras, .h5, .onnx or float .tflite file or a SavedModel folder"
        )
    try:
        return from_tf_keras(tf_keras.models.load_model(path, compile=False))
    except UnreadableModelError:
        raise
    except Exception as first:  # noqa: BLE001 - either Keras raises whatever its layers raise
        try:
            model = keras.models.load_model(path, compile=False)
        except Exception as second:
            raise UnreadableModelError(
                f"tf_keras says {first_line(first)}; Keras 3 says {first_line(second)}"
            ) from second
    return from_keras3(model)


def from_tf_keras(model: Any) -> Source:  # noqa: ANN401
    """A tf_keras model."""
    facts = SourceFacts("tf_keras", *_shapes(model.input_shape, model.output_shape),
                        model.count_params())  # fmt: skip
    call = _inference(model)
    return Source(facts, call, call, model, model)


def _inference(model: Any) -> Callable[[Any], Any]:  # noqa: ANN401
    return lambda rows: model(rows, training=False)


def from_keras3(model: Any) -> Source:  # noqa: ANN401
    """A Keras 3 model, rebuilt in tf_keras if that can be done."""
    facts = SourceFacts("keras3", *_shapes(model.input_shape, model.output_shape),
                        model.count_params())  # fmt: skip
    original = _inference(model)
    try:
        copy = to_tf_keras(model)
    except BridgeError as error:
        why = f"the Keras 3 model can't be rebuilt in tf_keras: {error}"
        facts = msgspec.structs.replace(facts, untrainable=why)
    else:
        return Source(facts, _inference(copy), original, copy, copy)
    # tracing a Keras 3 model and converting the trace gives NaN; its own export converts well
    with tempfile.TemporaryDirectory() as folder:
        model.export(folder, verbose=False)
        exported = tf.saved_model.load(folder)
    return Source(facts, _signature(exported)[0], original, exported, None)


def _saved_model(path: Path) -> Source:
    if not (path / "saved_model.pb").is_file():
        raise UnreadableModelError("the folder holds no saved_model.pb")
    if (path / "keras_metadata.pb").is_file():
        return from_tf_keras(tf_keras.models.load_model(path, compile=False))
    loaded = tf.saved_model.load(str(path))
    call, spec, output = _signature(loaded)
    shapes = _shapes(tuple(spec.shape), tuple(output.shape))
    why = "a SavedModel without Keras layers can't be trained further"
    facts = SourceFacts("saved-model", *shapes, 0, why)
    return Source(facts, call, call, loaded, None, batch=_rows(spec))


def _onnx(path: Path) -> Source:
    from converters.from_onnx import TOOLS, check, translate  # an extra

    loaded, truth, weights = translate(path)
    call, spec, output = _signature(loaded)
    shapes = _shapes(tuple(spec.shape), tuple(output.shape))
    check(call, truth, shapes[0])
    why = "an ONNX model can't be trained further here: give the Keras model, if there is one"
    facts = SourceFacts("onnx", *shapes, weights, why)
    return Source(facts, call, truth, loaded, None, batch=_rows(spec), tools=TOOLS)


def _rows(spec: Any) -> int:  # noqa: ANN401
    """How many rows a signature takes at a time."""
    return 1 if spec.shape[0] == 1 else _BATCH


def _signature(loaded: Any) -> tuple[Callable[[Any], Any], Any, Any]:  # noqa: ANN401
    found = loaded.signatures.get("serving_default")
    if found is None:
        raise UnreadableModelError("the SavedModel has no signature 'serving_default'")
    inputs, outputs = found.structured_input_signature[1], found.structured_outputs
    if len(inputs) != 1 or len(outputs) != 1:
        raise UnreadableModelError(
            f"the model has {len(inputs)} inputs and {len(outputs)} outputs, needed is one of each"
        )
    [(name, spec)], [(out, output)] = inputs.items(), outputs.items()
    return lambda rows: found(**{name: rows})[out], spec, output


def _shapes(
    given: Any,  # noqa: ANN401
    gives: Any,  # noqa: ANN401
) -> tuple[tuple[int | None, ...], tuple[int | None, ...]]:
    """Of one row in and one row out."""
    for what, shape in (("inputs", given), ("outputs", gives)):
        if isinstance(shape, list | dict) or (shape and isinstance(shape[0], tuple)):
            raise UnreadableModelError(f"the model has {len(shape)} {what}, needed is one")
    if len(gives) < 2:
        raise UnreadableModelError(f"its output has shape {tuple(gives)}, needed is (rows, ...)")
    if given[0] not in {None, 1}:
        raise UnreadableModelError(f"its batch size is fixed at {given[0]}: save it with None")
    return tuple(given[1:]), tuple(gives[1:])
