"""What a .tflite file is, read from its own bytes."""

import flatbuffers
from ai_edge_litert import schema_py_generated as schema

from converters.facts import read_facts

T = schema.TensorType


def model(activation, weight, *, signature=None, custom=None):
    """input (1, 4) -> dense, weights (8, 4) -> hidden (1, 8) -> softmax -> output (1, 8)."""
    whole, graph = schema.ModelT(), schema.SubGraphT()
    shapes = [([1, 4], activation, 0), ([8, 4], weight, 1), ([1, 8], activation, 0),
              ([1, 8], activation, 0)]  # fmt: skip
    graph.tensors = []
    for shape, kind, buffer in shapes:
        tensor = schema.TensorT()
        tensor.shape, tensor.type, tensor.buffer = shape, kind, buffer
        tensor.shapeSignature = signature
        graph.tensors.append(tensor)
    graph.inputs, graph.outputs, graph.operators = [0], [3], []
    for code, given, made in ((0, [0, 1, -1], [2]), (1, [2], [3])):
        op = schema.OperatorT()
        op.opcodeIndex, op.inputs, op.outputs = code, given, made
        graph.operators.append(op)
    whole.operatorCodes = []
    names = [schema.BuiltinOperator.FULLY_CONNECTED, schema.BuiltinOperator.SOFTMAX]
    for number in names if custom is None else [names[0], schema.BuiltinOperator.CUSTOM]:
        code = schema.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = number
        if number == schema.BuiltinOperator.CUSTOM:
            code.customCode = custom
        whole.operatorCodes.append(code)
    empty, weights = schema.BufferT(), schema.BufferT()
    weights.data = list(range(32))
    whole.version, whole.subgraphs, whole.buffers = 3, [graph], [empty, weights]
    builder = flatbuffers.Builder(1024)
    builder.Finish(whole.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def test_precision_is_told_from_activations_and_weights():
    assert read_facts(model(T.FLOAT32, T.FLOAT32)).precision == "float32"
    assert read_facts(model(T.FLOAT32, T.INT8)).precision == "dynamic-range"
    assert read_facts(model(T.INT8, T.INT8)).precision == "int8"
    assert read_facts(model(T.INT8, T.INT4)).precision == "int8x4"
    assert read_facts(model(T.INT16, T.INT8)).precision == "int16x8"


def test_ops_have_the_names_that_profiles_use():
    assert read_facts(model(T.INT8, T.INT8)).ops == ("FULLY_CONNECTED", "SOFTMAX")
    found = read_facts(model(T.INT8, T.INT8, custom="Mine"))
    assert found.ops == ("CUSTOM:Mine", "FULLY_CONNECTED")


def test_memory_counts_what_lives_at_once_without_weights():
    # hidden and output, 8 values each, live together; the input is gone by then
    assert read_facts(model(T.INT8, T.INT8)).tensor_bytes == 16
    assert read_facts(model(T.FLOAT32, T.FLOAT32)).tensor_bytes == 64


def test_an_open_size_is_seen():
    assert read_facts(model(T.INT8, T.INT8)).static_shapes
    assert not read_facts(model(T.INT8, T.INT8, signature=[-1, 8])).static_shapes
