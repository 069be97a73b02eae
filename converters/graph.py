"""A tf_keras model built anew with other layers in place of some. Worker only."""

from collections.abc import Callable
from typing import Any

import tf_keras

Made = Callable[[Any], list[Any]]


def rebuilt(model: Any, made: Made, inputs: Any = None) -> Any:  # noqa: ANN401 - no types there
    """The model with each layer replaced by the chain that `made` gives for it.

    Args:
        model: Sequential or functional, with one input and one output.
        made: the layers for a layer; weights are not copied.
        inputs: in place of the model's own input.
    """
    given = inputs if inputs is not None else tf_keras.Input(model.input_shape[1:])
    tensors = {id(model.inputs[0]): given}
    chains: dict[str, list[Any]] = {}
    for node in nodes(model):
        layer = node.layer
        chain = chains.setdefault(layer.name, made(layer))
        before = [tensors[id(tensor)] for tensor in node.keras_inputs]
        value = before if len(before) > 1 else before[0]
        for one in chain:
            value = one(value)
        tensors[id(node.outputs)] = value
    return tf_keras.Model(given, tensors[id(model.outputs[0])])


def nodes(model: Any) -> list[Any]:  # noqa: ANN401
    """The calls of its layers in order, without the input's."""
    by_depth = model._nodes_by_depth
    ordered = [node for depth in sorted(by_depth, reverse=True) for node in by_depth[depth]]
    return [node for node in ordered if not isinstance(node.layer, tf_keras.layers.InputLayer)]


def clone(layer: Any, **changes: object) -> Any:  # noqa: ANN401
    """The same layer with other settings, and new weights."""
    return type(layer).from_config(layer.get_config() | changes)
