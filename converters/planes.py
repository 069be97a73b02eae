"""A model of series (time, channels) as one of pictures of height 1, the same in all its answers.

Worker only. tensorflow-model-optimization knows no Conv1D; TFLite has none either and makes the
same of both.
"""

from typing import Any

import tf_keras

from converters.graph import clone, nodes, rebuilt

_layers = tf_keras.layers
_POOLS = {
    _layers.MaxPooling1D: _layers.MaxPooling2D, _layers.AveragePooling1D: _layers.AveragePooling2D
}  # fmt: skip
_GLOBAL = {
    _layers.GlobalAveragePooling1D: _layers.GlobalAveragePooling2D,
    _layers.GlobalMaxPooling1D: _layers.GlobalMaxPooling2D,
}


def as_planes(model: Any) -> Any:  # noqa: ANN401 - tf_keras ships no types
    """The model without Conv1D (but causal ones); itself if it has none."""
    if not any(type(layer) is _layers.Conv1D for layer in model.layers):
        return model
    first = {
        node.layer.name
        for node in nodes(model)
        if any(tensor is model.inputs[0] for tensor in node.keras_inputs)
    }

    def made(layer: Any) -> list[Any]:  # noqa: ANN401
        flat = [_layers.Reshape((1, *model.input_shape[1:]))] if layer.name in first else []
        return [*flat, _layer(layer)]

    whole = rebuilt(model, made)
    for layer in model.layers:
        weights = layer.get_weights()
        own = whole.get_layer(layer.name)
        if type(layer) is _layers.Conv1D and isinstance(own, _layers.Conv2D):
            weights[0] = weights[0][None]
        if weights:
            own.set_weights(weights)
    return whole


def _layer(layer: Any) -> Any:  # noqa: ANN401
    config = layer.get_config()
    kind = type(layer)
    if kind is _layers.Conv1D and config["padding"] in {"same", "valid"}:
        sizes = {name: (1, *config[name]) for name in ("kernel_size", "strides", "dilation_rate")}
        kept = {k: v for k, v in config.items() if k not in {"batch_input_shape", *sizes}}
        return _layers.Conv2D(**kept, **sizes)
    if kind in _POOLS:
        return _POOLS[kind](
            (1, *config["pool_size"]), (1, *config["strides"]), config["padding"],
            name=config["name"],
        )  # fmt: skip
    if kind in _GLOBAL:
        return _GLOBAL[kind](name=config["name"])
    return clone(layer)
