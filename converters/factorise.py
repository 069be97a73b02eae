"""Low rank: a dense or pointwise layer becomes two thin ones. Worker only."""

from typing import Any

import numpy as np
import tf_keras
from numpy.typing import NDArray

from converters.finetune import Lesson, UntrainableError, devices, fit, trainable_copy
from converters.graph import clone, rebuilt
from converters.loading import Source, from_tf_keras
from converters.steps import Factorise

_layers = tf_keras.layers
_THIN = "_thin"


def factorise(source: Source, step: Factorise, lesson: Lesson) -> Source:
    """A copy with two layers in place of one wherever that takes fewer weights, fine-tuned.

    Raises:
        UntrainableError: the model can't be trained, or no layer would have fewer weights.
    """
    model = trainable_copy(source)
    parts = {
        layer.name: found
        for layer in model.layers
        if _may(layer) and (found := split(layer.get_weights()[0], step.energy)) is not None
    }
    if not parts:
        raise UntrainableError("no dense or pointwise layer would have fewer weights in two parts")

    def made(layer: Any) -> list[Any]:  # noqa: ANN401 - tf_keras ships no types
        if layer.name not in parts:
            return [clone(layer)]
        rank = parts[layer.name][0].shape[-1]
        name = "units" if isinstance(layer, _layers.Dense) else "filters"
        thin = {name: rank, "name": layer.name + _THIN, "activation": "linear", "use_bias": False}
        wide = {"strides": 1} if name == "filters" else {}
        return [clone(layer, **thin), clone(layer, **wide)]

    with devices(lesson):
        low = rebuilt(model, made)
    for layer in model.layers:
        weights = layer.get_weights()
        if layer.name in parts:
            first, second = parts[layer.name]
            low.get_layer(layer.name + _THIN).set_weights([first])
            weights = [second, *weights[1:]]
        if weights:
            low.get_layer(layer.name).set_weights(weights)
    fit(low, lesson, step.epochs, step.learning_rate)
    return from_tf_keras(low)


def _may(layer: Any) -> bool:  # noqa: ANN401
    if isinstance(layer, _layers.Dense):
        return True
    pointwise = isinstance(layer, _layers.Conv2D) and not isinstance(layer, _layers.DepthwiseConv2D)
    return pointwise and layer.kernel_size == (1, 1)


def split(
    kernel: NDArray[np.float32], energy: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
    """Two kernels whose product is nearly `kernel` (..., in, out), or None if they are not smaller.

    Their rank is the least that keeps the `energy` of the squared singular values.
    """
    whole = kernel.reshape(kernel.shape[-2], kernel.shape[-1]).astype(np.float64)
    left, values, right = np.linalg.svd(whole, full_matrices=False)
    kept = np.cumsum(values**2) / (values**2).sum()
    rank = int(np.searchsorted(kept, energy)) + 1
    if rank * sum(whole.shape) >= whole.size:
        return None
    root = np.sqrt(values[:rank])
    first, second = left[:, :rank] * root, root[:, np.newaxis] * right[:rank]
    around = kernel.shape[:-2]
    return (
        first.reshape(*around, *first.shape).astype(np.float32),
        second.reshape(*around, *second.shape).astype(np.float32),
    )
