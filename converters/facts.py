"""What a .tflite file is: its ops, its precision, the memory its tensors need. Bytes in, facts out.

Read from the flatbuffer, not from what the converter was asked for.
"""

import math
from collections.abc import Iterable
from typing import Any

import msgspec
from ai_edge_litert import schema_py_generated as schema

from converters.flatbuffer import read_model
from converters.steps import Precision
from edge_sdk.ops import Op

_FLOAT = {schema.TensorType.FLOAT32, schema.TensorType.FLOAT16}
_NARROW = {schema.TensorType.INT4, schema.TensorType.INT2}
_SMALL = {schema.TensorType.INT8, *_NARROW}
_INTEGERS = {schema.TensorType.INT8, schema.TensorType.UINT8, schema.TensorType.INT16}
_BYTES = {
    schema.TensorType.FLOAT32: 4,
    schema.TensorType.FLOAT16: 2,
    schema.TensorType.INT32: 4,
    schema.TensorType.INT64: 8,
    schema.TensorType.INT16: 2,
    schema.TensorType.INT8: 1,
    schema.TensorType.UINT8: 1,
    schema.TensorType.BOOL: 1,
}
_TYPE_NAMES = {
    code: name.lower() for name, code in vars(schema.TensorType).items() if name[0] != "_"
}
_OP_NAMES = {
    code: name for name, code in vars(schema.BuiltinOperator).items() if not name.startswith("_")
}


class TfliteFacts(msgspec.Struct, frozen=True):
    """One model file.

    Attributes:
        precision: `int8` if no activation is float, `int16x8` if some of those are int16, `int8x4`
            if some weights have fewer than 8 bits; `dynamic-range` if float activations meet
            small integer weights (what TFLite Micro calls hybrid), `weight-only` or `float16` if
            such weights are dequantised before use; `mixed` if some activations are float and
            some quantised; else `float32`.
        ops: names of the operators used, sorted; a custom one as `CUSTOM:name`.
        needs: the builtin ones, each in the newest version used.
        static_shapes: whether every tensor's size is fixed.
        tensor_bytes: largest sum of tensors that are alive at the same time: what any memory
            planner needs at least for activations. The weights are not in it.
    """

    precision: Precision
    ops: tuple[str, ...]
    needs: tuple[Op, ...]
    static_shapes: bool
    tensor_bytes: int


def read_facts(model: bytes) -> TfliteFacts:
    """The facts of a model with one subgraph, as our recipes make it.

    Raises:
        NotConvertibleError: it is no .tflite file.
    """
    root = read_model(model)
    graph = root.subgraphs[0]
    weights = {i for i, tensor in enumerate(graph.tensors) if _is_constant(root, tensor)}
    return TfliteFacts(
        precision=_precision(root, graph, weights),
        ops=tuple(sorted({op_name(code) for code in _used(root)})),
        needs=_needs(_used(root)),
        static_shapes=not any(
            tensor.shapeSignature is not None and -1 in tensor.shapeSignature
            for tensor in graph.tensors
        ),
        tensor_bytes=_peak(graph, weights),
    )


def _used(root: Any) -> list[Any]:  # noqa: ANN401 - generated, untyped classes
    """Codes of the operators in all graphs; the file may list others that are in none."""
    used = {op.opcodeIndex for graph in root.subgraphs for op in graph.operators}
    return [root.operatorCodes[i] for i in sorted(used)]


def _is_constant(root: Any, tensor: Any) -> bool:  # noqa: ANN401 - generated, untyped classes
    data = root.buffers[tensor.buffer].data
    return data is not None and len(data) > 0


def _needs(codes: Iterable[Any]) -> tuple[Op, ...]:
    newest: dict[int, int] = {}
    for code in codes:
        newest[_number(code)] = max(newest.get(_number(code), 1), code.version)
    newest.pop(schema.BuiltinOperator.CUSTOM, None)
    return tuple(sorted(Op(_OP_NAMES.get(n, f"OP_{n}"), n, v) for n, v in newest.items()))


def _number(code: Any) -> int:  # noqa: ANN401
    """Old files keep it in a one-byte field, new ones in a wider field beside it."""
    return int(max(code.builtinCode, code.deprecatedBuiltinCode))


def op_name(code: Any) -> str:  # noqa: ANN401
    """Of an operator code; a custom one as `CUSTOM:name`."""
    number = _number(code)
    if number == schema.BuiltinOperator.CUSTOM:
        return f"CUSTOM:{(code.customCode or b'?').decode(errors='replace')}"
    return str(_OP_NAMES.get(number, f"OP_{number}"))


def type_name(code: int) -> str:
    """Of a tensor's elements: `int8`, `float32`, ..."""
    return str(_TYPE_NAMES.get(code, f"type {code}"))


def _precision(root: Any, graph: Any, weights: set[int]) -> Precision:  # noqa: ANN401
    kinds = {tensor.type for i, tensor in enumerate(graph.tensors) if i not in weights}
    if not kinds & _FLOAT:
        narrow = any(graph.tensors[i].type in _NARROW for i in weights)
        return "int16x8" if schema.TensorType.INT16 in kinds else "int8x4" if narrow else "int8"
    widened = {
        int(op.inputs[0])
        for op in graph.operators
        if op_name(root.operatorCodes[op.opcodeIndex]) == "DEQUANTIZE"
    }
    if kinds & _INTEGERS:
        return "mixed"
    if any(graph.tensors[i].type in _SMALL for i in weights - widened):
        return "dynamic-range"
    if any(graph.tensors[i].type in _SMALL for i in weights):
        return "weight-only"
    halves = any(graph.tensors[i].type == schema.TensorType.FLOAT16 for i in weights)
    return "float16" if halves else "float32"


def _peak(graph: Any, weights: set[int]) -> int:  # noqa: ANN401
    """A tensor lives from the op that makes it (inputs: from the start) to the last that reads."""
    last = len(graph.operators)
    born = dict.fromkeys((int(i) for i in graph.inputs), 0)
    dies = dict.fromkeys((int(i) for i in graph.outputs), last)
    for step, op in enumerate(graph.operators):
        for i in op.outputs:
            born.setdefault(int(i), step)
        for i in op.inputs:
            if i >= 0 and i not in weights and dies.get(int(i)) != last:
                dies[int(i)] = step
    sizes = {i: _size(graph.tensors[i]) for i in born}
    return max(
        sum(sizes[i] for i in born if born[i] <= step <= dies.get(i, born[i]))
        for step in range(max(last, 1))
    )


def _size(tensor: Any) -> int:  # noqa: ANN401
    shape = [] if tensor.shape is None else [max(int(n), 1) for n in tensor.shape]
    return math.prod(shape) * _BYTES.get(tensor.type, 4)
