"""A model of series (time, channels) as one of pictures of height 1, the same in all its answers.

Worker only. tensorflow-model-optimization knows no Conv1D; TFLite has none either and makes the
same of both.
"""

from typing import Any

import numpy as np
import tf_keras

from converters.graph import clone, nodes, rebuilt

_layers = tf_keras.layers
_SERIES = 3  # axes of a batch of them
_POOLS = {
    _layers.MaxPooling1D: _layers.MaxPooling2D, _layers.AveragePooling1D: _layers.AveragePooling2D
}  # fmt: skip
_GLOBAL = {
    _layers.GlobalAveragePooling1D: _layers.GlobalAveragePooling2D,
    _layers.GlobalMaxPooling1D: _layers.GlobalMaxPooling2D,
}
_ENDS = {
    _layers.ZeroPadding1D: (_layers.ZeroPadding2D, "padding"),
    _layers.Cropping1D: (_layers.Cropping2D, "cropping"),
}
_AXIS = {
    _layers.BatchNormalization, _layers.LayerNormalization, _layers.Concatenate, _layers.Softmax
}  # fmt: skip
_ALIKE = {
    _layers.InputLayer, _layers.Dense, _layers.Activation, _layers.ReLU, _layers.LeakyReLU,
    _layers.ELU, _layers.Dropout, _layers.GaussianNoise, _layers.Flatten, _layers.Reshape,
    _layers.Add, _layers.Subtract, _layers.Multiply, _layers.Average, _layers.Maximum,
}  # fmt: skip
_KNOWN = {_layers.Conv1D, *_POOLS, *_GLOBAL, *_ENDS, *_AXIS, *_ALIKE}
_ROWS, _TOLERANCE = 4, 1e-4


def as_planes(model: Any) -> Any:  # noqa: ANN401 - tf_keras ships no types
    """The model without Conv1D (but causal ones); itself if it has none, or a layer without a twin.

    Raises:
        ValueError: the twin answers otherwise.
    """
    kinds = {type(layer) for layer in model.layers}
    if _layers.Conv1D not in kinds or kinds - _KNOWN or len(model.input_shape) != _SERIES:
        return model
    if any(layer.get_config().get("keepdims") for layer in model.layers):
        return model
    whole = _twin(model)
    rows = np.random.default_rng(0).random(
        (_ROWS, *(size or _ROWS * 8 for size in model.input_shape[1:])), dtype=np.float32
    )
    difference = float(np.abs(np.asarray(model(rows)) - np.asarray(whole(rows))).max())
    if not difference <= _TOLERANCE:
        raise ValueError(f"its series as pictures give other answers, by {difference:.3g}")
    return whole


def _twin(model: Any) -> Any:  # noqa: ANN401
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
    kind, name = type(layer), config["name"]
    if kind is _layers.Conv1D and config["padding"] in {"same", "valid"}:
        sizes = {size: (1, *config[size]) for size in ("kernel_size", "strides", "dilation_rate")}
        kept = {k: v for k, v in config.items() if k not in {"batch_input_shape", *sizes}}
        return _layers.Conv2D(**kept, **sizes)
    if kind in _POOLS:
        sides = (1, *config["pool_size"]), (1, *config["strides"])
        return _POOLS[kind](*sides, config["padding"], name=name)
    if kind in _GLOBAL:
        return _GLOBAL[kind](name=name)
    if kind in _ENDS:
        make, ends = _ENDS[kind]
        return make(((0, 0), tuple(config[ends])), name=name)
    if kind in _AXIS and len(_taken(layer)) == _SERIES:
        return clone(layer, axis=_shifted(config["axis"]))
    return clone(layer)


def _taken(layer: Any) -> tuple[int | None, ...]:  # noqa: ANN401
    """What a layer takes; of the first if it takes several."""
    shape = layer.input_shape
    return tuple(shape[0]) if isinstance(shape, list) else tuple(shape)


def _shifted(axis: Any) -> Any:  # noqa: ANN401
    """An axis, or several, in rows that have a height in front; from behind they stay."""
    if isinstance(axis, list | tuple):
        return [_shifted(one) for one in axis]
    return axis + 1 if axis > 0 else axis
