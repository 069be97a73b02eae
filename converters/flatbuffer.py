"""A .tflite file as objects and back. Bytes in, bytes out.

What is written has every buffer inside the flatbuffer: TFLite Micro ignores those that
ai-edge-quantizer puts behind it (from 256 KiB of weights on) and computes with zeros, silently.
"""

from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edge_sdk.errors import NotConvertibleError
from edge_sdk.interpreter import EMBEDDING

_ALIGNED = 16
_LONGEST_NAME = 32


class _Buffer(schema.BufferT):  # type: ignore[misc]
    """A buffer that begins at a multiple of 16 bytes, which the generated code forgets."""

    def Pack(self, builder: Any) -> Any:  # noqa: N802, ANN401
        data = b"" if self.data is None else bytes(bytearray(self.data))
        at = None
        if data:
            builder.StartVector(1, len(data), _ALIGNED)
            builder.head = builder.Head() - len(data)
            builder.Bytes[builder.head : builder.head + len(data)] = data
            at = builder.EndVector()
        schema.BufferStart(builder)
        if at is not None:
            schema.BufferAddData(builder, at)
        return schema.BufferEnd(builder)


def read_model(model: bytes) -> Any:  # noqa: ANN401
    """The `ModelT` of a file, buffers that lie behind the flatbuffer brought in.

    Raises:
        NotConvertibleError: it is no .tflite file, or a buffer reaches beyond its end.
    """
    if model[4:8] != b"TFL3":
        raise NotConvertibleError("it is no .tflite file: the mark TFL3 is missing")
    try:
        root = schema.ModelT.InitFromObj(schema.Model.GetRootAs(model, 0))
    except Exception as error:  # the generated reader follows any offset it finds
        raise NotConvertibleError(f"the .tflite file is damaged: {error}") from error
    for buffer in root.buffers:
        if buffer.offset > 1:
            if buffer.offset + buffer.size > len(model):
                raise NotConvertibleError("the .tflite file is cut off: weights are missing")
            buffer.data = np.frombuffer(model, np.uint8, buffer.size, buffer.offset)
    return root


def write_model(root: Any) -> bytes:  # noqa: ANN401
    """The bytes of a `ModelT`."""
    whole = []
    for buffer in root.buffers:
        own = _Buffer()
        own.data = buffer.data
        whole.append(own)
    root.buffers = whole
    builder = flatbuffers.Builder(1024)
    builder.Finish(root.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def slim(model: bytes) -> bytes:
    """The same model with all its buffers inside, short tensor names and no converter's notes."""
    root = read_model(model)
    for graph in root.subgraphs:
        kept = {int(i) for i in (*graph.inputs, *graph.outputs)}
        used = {graph.tensors[i].name for i in kept}
        for i, tensor in enumerate(graph.tensors):
            if i not in kept:
                tensor.name = _short(tensor.name, i, used)
                used.add(tensor.name)
    root.description = b""
    root.metadata = []
    return write_model(root)


def _short(name: bytes, index: int, used: set[bytes]) -> bytes:
    """The last two parts of the first of the names that a fused tensor bears."""
    first = (name or b"").partition(b";")[0]
    short = b"/".join(first.split(b"/")[-2:])[-_LONGEST_NAME:]
    return short if short and short not in used else b"%b:%d" % (short, index)


def with_signature(model: bytes) -> bytes:
    """The same model with a signature of one input and one output, which older files lack."""
    root = read_model(model)
    if root.signatureDefs:
        return model
    graph = root.subgraphs[0]
    signature = schema.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = b"serving_default", 0
    signature.inputs = [_named(b"input", graph.inputs[0])]
    signature.outputs = [_named(b"output", graph.outputs[0])]
    root.signatureDefs = [signature]
    return write_model(root)


# What may stand between a classifier's last dense layer and its answer.
_AFTER = {
    schema.BuiltinOperator.SOFTMAX,
    schema.BuiltinOperator.LOGISTIC,
    schema.BuiltinOperator.RESHAPE,
    schema.BuiltinOperator.QUANTIZE,
    schema.BuiltinOperator.DEQUANTIZE,
}


def with_embedding(model: bytes) -> bytes:
    """The same model with what its last dense layer is given as a second output, EMBEDDING.

    Raises:
        NotConvertibleError: its answer does not come from a dense layer over features of its own.
    """
    root = read_model(model)
    graph = root.subgraphs[0]
    index = _last_features(root, graph)
    if index in graph.inputs or index in graph.outputs:
        raise NotConvertibleError("it has no embedding: its dense layer takes the input as it is")
    name = EMBEDDING.encode()
    graph.tensors[index].name = name
    graph.outputs = [*graph.outputs, index]
    for signature in root.signatureDefs or ():
        signature.outputs = [*signature.outputs, _named(name, index)]
    return write_model(root)


def _last_features(root: Any, graph: Any) -> int:  # noqa: ANN401
    wanted = int(graph.outputs[0])
    for op in reversed(graph.operators):
        if wanted not in op.outputs:
            continue
        code = root.operatorCodes[op.opcodeIndex]
        kind = max(code.builtinCode, code.deprecatedBuiltinCode)
        wanted = int(op.inputs[0])
        if kind == schema.BuiltinOperator.FULLY_CONNECTED:
            return wanted
        if kind not in _AFTER:
            break
    raise NotConvertibleError("it has no embedding: its answer does not come from a dense layer")


def _named(name: bytes, tensor: int) -> Any:  # noqa: ANN401
    mapped = schema.TensorMapT()
    mapped.name, mapped.tensorIndex = name, int(tensor)
    return mapped
