"""Bundles around any .tflite for the agent's benchmarks, signed by nobody: only their parts."""

import numpy as np

from device_agent.runtime import Model
from edge_sdk.bundle import Lineage, Manifest, Metrics, Recipe
from edge_sdk.channels import (
    Array,
    InputSchema,
    Preprocessing,
    input_channels,
    output_channels,
    to_probabilities,
    watched_inputs,
)
from edge_sdk.interpreter import LiteRt
from edge_sdk.messages import Running
from edge_sdk.sketch import make_baseline
from edge_sdk.subspace import fit_channels


def watched(model: bytes, x: Array, preprocessing: Preprocessing) -> Model:
    """The model as the agent loads it; rows `x` (n, *shape) are its reference."""
    interpreter = LiteRt(model, preprocessing)
    scores = interpreter.run_rows(x)
    low, high = float(x.min()), float(x.max())
    image = x.ndim > 2
    schema = InputSchema(
        name="x", kind="image" if image else "vector", shape=x.shape[1:], low=low, high=high
    )
    kind = "probabilities" if np.allclose(scores.sum(axis=1), 1, atol=0.02) else "logits"
    labels = tuple(str(index) for index in range(scores.shape[1]))
    subspace = fit_channels(input_channels(schema, x))
    columns = {
        **watched_inputs(schema, x, subspace),
        **output_channels(to_probabilities(scores, kind)),
    }
    manifest = Manifest(
        name="bench",
        version="1",
        profile="this-machine",
        runtime="litert",
        labels=labels,
        input=schema,
        preprocessing=preprocessing,
        model_input=interpreter.input,
        model_output=interpreter.output,
        scores=kind,
        latency_budget_ms=1000,
        ram_bytes=1,
        golden_tolerance={},
        recipe=Recipe("none", ()),
        metrics=Metrics(
            rows=1,
            float_accuracy=1,
            accuracy=1,
            drop=0,
            drop_low=0,
            drop_high=0,
            agreement=1,
            per_class={},
        ),
        lineage=Lineage(source="", data="", calibration="", train=None, tools={}),
        members={},
    )
    return Model(
        Running("bench", "1", "ab" * 32),
        manifest,
        make_baseline(columns, labels, subspace=subspace),
        interpreter,
        interpreter.description,
    )


def dense(columns: int, width: int, classes: int, seed: int = 1) -> bytes:
    """A float .tflite: (1, columns) -> dense `width`, ReLU -> dense `classes`."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    rng = np.random.default_rng(seed)
    shapes = {"input": (1, columns), "w1": (width, columns), "b1": (width,), "hidden": (1, width),
              "w2": (classes, width), "b2": (classes,), "scores": (1, classes)}  # fmt: skip
    root, graph = schema.ModelT(), schema.SubGraphT()
    root.version, root.description, root.subgraphs = 3, b"made by a benchmark", [graph]
    root.buffers, graph.tensors, graph.operators = [schema.BufferT()], [], []
    for name, shape in shapes.items():
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.type, tensor.buffer = name.encode(), list(shape), 0, 0
        if name[0] in "wb":
            buffer = schema.BufferT()
            values = rng.normal(0, 1 / np.sqrt(shape[-1]), shape).astype(np.float32)
            buffer.data = np.frombuffer(values.tobytes(), np.uint8)
            tensor.buffer = len(root.buffers)
            root.buffers.append(buffer)
        graph.tensors.append(tensor)
    graph.inputs, graph.outputs = [0], [6]
    for given, made, relu in (([0, 1, 2], 3, 1), ([3, 4, 5], 6, 0)):
        op, options = schema.OperatorT(), schema.FullyConnectedOptionsT()
        options.fusedActivationFunction = relu
        op.opcodeIndex, op.inputs, op.outputs = 0, given, [made]
        op.builtinOptionsType = schema.BuiltinOptions.FullyConnectedOptions
        op.builtinOptions = options
        graph.operators.append(op)
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.FULLY_CONNECTED
    code.version, root.operatorCodes = 1, [code]
    builder = flatbuffers.Builder(1024)
    builder.Finish(root.Pack(builder), b"TFL3")
    return bytes(builder.Output())
