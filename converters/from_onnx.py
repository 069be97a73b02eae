"""ONNX models: onnx2tf translates them, ONNX Runtime says what they really answer. Worker only.

onnx2tf puts channels last, as TFLite wants them: rows of pictures are (height, width, channels)
here, of series (steps, channels), whatever the order in the file.
"""

import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx2tf
import onnx2tf.onnx2tf as translator
import onnxruntime
import tensorflow as tf

from converters.dialogue import Rows, UnreadableModelError, first_line

TOOLS = ("onnx", "onnx2tf", "onnxruntime")
_TOLERANCE = 1e-3
_ROWS = 4
_ORDERS = {3: (0, 2, 1), 4: (0, 3, 1, 2), 5: (0, 4, 1, 2, 3)}  # channels last to channels first


def translate(path: Path) -> tuple[Any, Callable[[Any], Rows], int]:
    """A loaded SavedModel, what the ONNX model itself answers to the same rows, and its weights.

    Raises:
        UnreadableModelError: it is no ONNX model of one file, one input and one output, or onnx2tf
            can't translate it, or what it makes answers otherwise.
    """
    session, weights = _session(path)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "model.onnx")  # onnx2tf writes into the file that it is given
        copy.write_bytes(path.read_bytes())
        loaded = _translated(copy, Path(folder, "saved"))
    return loaded, _asked(session), weights


def check(call: Callable[[Any], Any], truth: Callable[[Any], Rows], shape: Any) -> None:  # noqa: ANN401
    """Raises UnreadableModelError if a translation answers otherwise than the model itself.

    `shape` is of one row.
    """
    if None in shape:
        raise UnreadableModelError(
            f"a row has the shape {tuple(shape)}: export it with fixed sizes, but for the batch"
        )
    rows = np.random.default_rng(0).random((_ROWS, *shape), dtype=np.float32)
    for row in rows:
        true, found = truth(row[np.newaxis]), np.asarray(call(tf.constant(row[np.newaxis])))
        if true.shape != found.shape:
            raise UnreadableModelError(
                f"onnx2tf's translation of it gives {found.shape}, the model itself {true.shape}"
            )
        difference = float(np.abs(true - found).max())
        if not difference <= _TOLERANCE * max(1.0, float(np.abs(true).max())):
            raise UnreadableModelError(
                f"onnx2tf's translation of it answers otherwise, by {difference:.3g}"
            )


def _session(path: Path) -> tuple[Any, int]:
    try:
        model = onnx.load(path, load_external_data=False)
        if any(onnx.external_data_helper.uses_external_data(t) for t in model.graph.initializer):
            raise UnreadableModelError(
                "its weights are in another file: export it with external_data=False"
            )
        onnx.checker.check_model(model)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    except UnreadableModelError:
        raise
    except Exception as error:
        raise UnreadableModelError(f"ONNX says {first_line(error)}") from error
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if len(inputs) != 1 or len(outputs) != 1:
        raise UnreadableModelError(
            f"the model has {len(inputs)} inputs and {len(outputs)} outputs, needed is one of each"
        )
    if inputs[0].type != "tensor(float)":
        raise UnreadableModelError(f"its input is {inputs[0].type}, needed is tensor(float)")
    return session, sum(math.prod(t.dims) for t in model.graph.initializer)


def _translated(model: Path, out: Path) -> Any:  # noqa: ANN401
    """Its progress goes to stdout, which a worker has sent elsewhere."""
    translator.download_test_image_data = _pictures
    try:
        onnx2tf.convert(
            str(model), output_folder_path=str(out), not_use_onnxsim=True,
            output_signaturedefs=True, non_verbose=True,
        )  # fmt: skip
        return tf.saved_model.load(str(out))
    except (Exception, SystemExit) as error:
        raise UnreadableModelError(f"onnx2tf can't translate it: {first_line(error)}") from error


def _pictures() -> Rows:
    """In place of onnx2tf's own, which it fetches from the net to look at the model with."""
    return np.random.default_rng(0).random((20, 128, 128, 3), dtype=np.float32)


def _asked(session: Any) -> Callable[[Any], Rows]:  # noqa: ANN401
    """Rows with channels last in, answers with channels last out."""
    [given] = session.get_inputs()

    def answers(rows: Any) -> Rows:  # noqa: ANN401
        first = np.asarray(rows, np.float32)
        order = _ORDERS.get(first.ndim)
        if order is not None:
            first = np.ascontiguousarray(first.transpose(order))
        [found] = session.run(None, {given.name: first})
        order = _ORDERS.get(found.ndim)
        return found if order is None else np.ascontiguousarray(np.moveaxis(found, 1, -1))

    return answers
