"""The operators of a .tflite file one by one: what they make, how large their weights are."""

import math
from typing import Any

import msgspec

from converters.facts import op_name, type_name
from converters.flatbuffer import read_model


class Layer(msgspec.Struct, frozen=True, kw_only=True):
    """One operator.

    Attributes:
        name, tensor: of what it makes (the first, if several), and its number.
        shape, dtype: of that tensor.
        scale, zero_point: of that tensor if quantised, else 0.
        weights: how many constants it reads that are no biases or shapes.
        weight_dtype: their type; empty if there are none.
        constant_bytes: what all its constants take in the file, without their quantisation.
        open_shape: whether a size of what it makes is not fixed.
        weights_missing: whether it takes weights that are computed, not constant.
    """

    name: str
    tensor: int
    op: str
    shape: tuple[int, ...]
    dtype: str
    scale: float
    zero_point: int
    weights: int
    weight_dtype: str
    constant_bytes: int
    open_shape: bool = False
    weights_missing: bool = False


class LayerError(msgspec.Struct, frozen=True):
    """One layer; `error` is the root mean square difference over that of the float layer itself."""

    name: str
    op: str
    error: float


_WEIGHT_INPUT = {"CONV_2D": 1, "DEPTHWISE_CONV_2D": 1, "FULLY_CONNECTED": 1, "TRANSPOSE_CONV": 1}


def read_layers(model: bytes) -> tuple[Layer, ...]:
    """The operators of a model's first graph, in order.

    Raises:
        NotConvertibleError: it is no .tflite file.
    """
    root = read_model(model)
    graph = root.subgraphs[0]
    sources = {
        int(op.outputs[0]): int(op.inputs[0])
        for op in graph.operators
        if op_name(root.operatorCodes[op.opcodeIndex]) == "DEQUANTIZE"
    }
    return tuple(_layer(root, graph, op, sources) for op in graph.operators)


def _layer(root: Any, graph: Any, op: Any, sources: dict[int, int]) -> Layer:  # noqa: ANN401
    made = graph.tensors[int(op.outputs[0])]
    kind = op_name(root.operatorCodes[op.opcodeIndex])
    inputs = [sources.get(int(i), int(i)) for i in op.inputs if i >= 0]
    constants = {i: size for i in inputs if (size := _bytes(root, graph.tensors[i]))}
    at = _WEIGHT_INPUT.get(kind)
    weights = None if at is None or inputs[at] not in constants else graph.tensors[inputs[at]]
    scale, zero_point = _quantisation(made)
    return Layer(
        name=(made.name or b"").decode(errors="replace"),
        tensor=int(op.outputs[0]),
        op=kind,
        shape=() if made.shape is None else tuple(int(n) for n in made.shape),
        dtype=type_name(made.type),
        scale=scale,
        zero_point=zero_point,
        weights=0 if weights is None else math.prod(int(n) for n in weights.shape),
        weight_dtype="" if weights is None else type_name(weights.type),
        constant_bytes=0 if kind == "DEQUANTIZE" else sum(constants.values()),
        open_shape=made.shapeSignature is not None and -1 in made.shapeSignature,
        weights_missing=at is not None and weights is None,
    )


def _bytes(root: Any, tensor: Any) -> int:  # noqa: ANN401
    data = root.buffers[tensor.buffer].data
    return 0 if data is None else len(data)


def _quantisation(tensor: Any) -> tuple[float, int]:  # noqa: ANN401
    found = tensor.quantization
    if found is None or found.scale is None or not len(found.scale):
        return 0.0, 0
    return float(found.scale[0]), int(found.zeroPoint[0])
