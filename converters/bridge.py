"""A Keras 3 model rebuilt in tf_keras, which pruning needs: by configuration, weights copied.

The two agree on most layers and spell their configuration differently. Whether the copy is true is
checked by its answers, not by hope.
"""

from typing import Any

import numpy as np
import tf_keras

_TOLERANCE = 1e-4
_KERAS3_ONLY = {
    "build_config", "module", "registered_name",  # around a layer
    "lora_alpha", "lora_rank", "optional", "quantization_config", "renorm", "renorm_clipping",
    "renorm_momentum", "seed_generator",  # within its configuration
}  # fmt: skip
_ROWS = 8
_OPEN_SIZE = 8


class BridgeError(Exception):
    """Why a model can't be rebuilt, in words."""


def to_tf_keras(model: Any) -> Any:  # noqa: ANN401 - neither Keras ships types
    """The same model in tf_keras.

    Raises:
        BridgeError: a layer that tf_keras has not, or other answers.
    """
    kind = type(model).__name__
    if kind not in {"Sequential", "Functional"}:
        raise BridgeError(f"it is a {kind}, not a Sequential or Functional model")
    config = _legacy(model.get_config())
    try:
        if kind == "Sequential":
            copy = tf_keras.Sequential.from_config(config)
        else:
            copy = tf_keras.Model.from_config(config)
        for layer in model.layers:
            copy.get_layer(layer.name).set_weights(layer.get_weights())
    except (ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
        raise BridgeError(str(error).strip().splitlines()[-1][-200:]) from error
    rows = np.random.default_rng(0).random(
        (_ROWS, *(n or _OPEN_SIZE for n in model.input_shape[1:])), dtype=np.float32
    )
    difference = float(np.abs(np.asarray(model(rows)) - np.asarray(copy(rows))).max())
    if not difference <= _TOLERANCE:
        raise BridgeError(f"its copy answers differently, by {difference:.3g}")
    return copy


def _legacy(value: Any, key: str = "") -> Any:  # noqa: ANN401
    """Keras 3's configuration in the words of tf_keras."""
    if key == "inbound_nodes":
        return [_node(node) for node in value]
    if key in {"input_layers", "output_layers"} and value and isinstance(value[0], str):
        return [value]
    if isinstance(value, dict):
        if value.get("class_name") == "DTypePolicy":
            return value["config"]["name"]
        names = {"batch_shape": "batch_input_shape"}
        return {
            names.get(name, name): _legacy(inner, name)
            for name, inner in value.items()
            # how weights began does not matter: they are copied
            if name not in _KERAS3_ONLY and not name.endswith("_initializer")
        }
    if isinstance(value, list | tuple):
        return [_legacy(inner) for inner in value]
    return value


def _node(node: dict[str, Any]) -> list[Any]:
    """One call of a layer: `[[layer, node, tensor, kwargs], ...]`."""
    [first, *rest] = node["args"]
    if rest:
        raise BridgeError("a layer is called with more than one argument")
    tensors = first if isinstance(first, list) else [first]
    return [[*tensor["config"]["keras_history"], {}] for tensor in tensors]
