"""How far each layer of a converted model is from the same layer of its float model."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from ai_edge_litert import interpreter as litert
from numpy.typing import NDArray

from converters.layers import Layer, LayerError, read_layers
from edge_sdk.bundle import TensorSpec
from edge_sdk.channels import Array, Preprocessing
from edge_sdk.errors import NotConvertibleError
from edge_sdk.interpreter import LiteRt, Scores, dequantise, quantise

ROWS = 16
_BETWEEN = {"QUANTIZE", "DEQUANTIZE"}  # they compute nothing, and each model has others


def layer_errors(
    reference: bytes, other: bytes, rows: Array, preprocessing: Preprocessing
) -> tuple[LayerError, ...]:
    """The error of each layer over some rows, in the order of the graph.

    Raises:
        NotConvertibleError: the two are not the same chain of operators.
    """
    ours, theirs = _computing(reference), _computing(other)
    if [(one.op, one.shape) for one in ours] != [(one.op, one.shape) for one in theirs]:
        raise NotConvertibleError(
            f"layers can't be paired: {len(ours)} operators here, {len(theirs)} there, "
            "not the same or not of one size"
        )
    given = preprocessing.apply(rows[:ROWS])
    wanted, found = _run(reference, ours, given), _run(other, theirs, given)
    return tuple(
        LayerError(layer.name, layer.op, _relative(a, b))
        for layer, a, b in zip(ours, wanted, found, strict=True)
    )


def _computing(model: bytes) -> list[Layer]:
    return [layer for layer in read_layers(model) if layer.op not in _BETWEEN]


def _run(model: bytes, layers: list[Layer], rows: NDArray[np.float32]) -> list[Scores]:
    """What each layer makes of the rows, as real values, one array a layer."""
    made: list[list[Scores]] = [[] for _ in layers]
    for interpreter in _each_row(model, rows):
        for values, layer in zip(made, layers, strict=True):
            values.append(_real(interpreter.get_tensor(layer.tensor), layer))
    return [np.stack(values) for values in made]


def every_tensor(model: bytes, rows: NDArray[np.float32]) -> Iterator[tuple[str, Array]]:
    """Names and values of what each operator of a model makes, and of its input, row by row."""
    names = {layer.tensor: layer.name for layer in read_layers(model)}
    for interpreter in _each_row(model, rows):
        given = interpreter.get_input_details()[0]
        yield given["name"], interpreter.get_tensor(given["index"])
        for tensor, name in names.items():
            yield name, interpreter.get_tensor(tensor)


def _each_row(model: bytes, rows: NDArray[np.float32]) -> Iterator[Any]:
    """An interpreter that keeps all tensors, after each row that it ran."""
    interpreter = _keeping_all(model)
    spec, at = LiteRt(model, Preprocessing()).input, interpreter.get_input_details()[0]["index"]
    for row in rows:
        interpreter.set_tensor(at, quantise(row[np.newaxis], spec))
        interpreter.invoke()
        yield interpreter


def _real(stored: Array, layer: Layer) -> Scores:
    spec = TensorSpec(
        name=layer.name, dtype=layer.dtype, shape=layer.shape, scale=layer.scale,
        zero_point=layer.zero_point,
    )  # fmt: skip
    return dequantise(stored, spec)


def _keeping_all(model: bytes) -> Any:  # noqa: ANN401 - LiteRT ships no types
    kept = litert.Interpreter(
        model_content=model,
        experimental_preserve_all_tensors=True,
        experimental_op_resolver_type=litert.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    kept.allocate_tensors()
    return kept


def _relative(wanted: Scores, found: Scores) -> float:
    power = float((wanted.astype(np.float64) ** 2).mean())
    return float(np.sqrt(((wanted - found) ** 2).mean() / power)) if power else 0.0
