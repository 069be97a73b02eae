"""Which weights may live: masks by magnitude, held on to while training goes on. Worker only."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import tf_keras
from numpy.typing import NDArray

from converters.steps import Prune

BLOCK = 4
_PRUNED = (tf_keras.layers.Dense, tf_keras.layers.Conv1D, tf_keras.layers.Conv2D)


class PruneError(Exception):
    """Why a model was not pruned, in words."""


def weights_to_prune(model: Any) -> list[Any]:  # noqa: ANN401 - tf_keras ships no types
    """The kernels of convolutions and dense layers; raises PruneError if there are none."""
    kernels = [
        layer.kernel
        for layer in model.layers
        if isinstance(layer, _PRUNED) and not isinstance(layer, tf_keras.layers.DepthwiseConv2D)
    ]
    if not kernels:
        raise PruneError("it has no convolution or dense layer to prune")
    return kernels


def zeros(model: Any) -> float:  # noqa: ANN401
    """Share of zeros among the weights that pruning takes."""
    kernels = [kernel.numpy() for kernel in weights_to_prune(model)]
    return float(sum((k == 0).sum() for k in kernels) / sum(k.size for k in kernels))


def smallest(kernel: NDArray[np.float32], share: float, block: int = 1) -> NDArray[np.float32]:
    """A mask of 0 for that share of the weights whose blocks along the input are smallest, else 1.

    A kernel (..., in, out) is one row (out, all others) to TFLite, in which the input comes last:
    neighbours along it are neighbours in the file.
    """
    rows = np.moveaxis(np.abs(kernel), -1, 0).reshape(kernel.shape[-1], -1)
    width = -(-rows.shape[1] // block) * block
    padded = np.pad(rows, ((0, 0), (0, width - rows.shape[1])))
    blocks = padded.reshape(len(rows), -1, block).sum(axis=2)
    lost = np.argsort(blocks, axis=None, kind="stable")[: round(share * blocks.size)]
    mask = np.ones(blocks.size, np.float32)
    mask[lost] = 0
    whole = np.repeat(mask.reshape(blocks.shape), block, axis=1)[:, : rows.shape[1]]
    back = whole.reshape(kernel.shape[-1], *kernel.shape[:-1])
    return np.moveaxis(back, 0, -1)


class Masking(tf_keras.callbacks.Callback):  # type: ignore[misc]
    """Holds weights at zero where their mask is, after every batch."""

    def __init__(self, weights: list[Any], masks: Mapping[str, NDArray[np.float32]]) -> None:
        super().__init__()
        self._weights, self._masks = weights, dict(masks)

    def on_train_begin(self, logs: object = None) -> None:  # noqa: ARG002 - Keras hands it over
        self._apply()

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:  # noqa: ARG002
        self._apply()

    def _apply(self) -> None:
        for weight in self._weights:
            weight.assign(weight * self._masks[weight.name])


class Thinning(Masking):
    """The smallest blocks leave on a cubic schedule (Zhu and Gupta 2017), then stay away.

    Args:
        weights: what is thinned.
        step: how far, and whether at once.
        steps: batches until then.
        updates: how often more leave.
    """

    def __init__(self, weights: list[Any], step: Prune, steps: int, updates: int) -> None:
        super().__init__(weights, {w.name: np.ones(w.shape, np.float32) for w in weights})
        self._sparsity, self._steps = step.sparsity, max(steps, 1)
        self._block = BLOCK if step.pattern == "block" else 1
        self._every, self._at_once = max(1, steps // updates), step.schedule == "constant"
        self._done = 0

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:
        self._done += 1
        if self._done <= self._steps and (
            self._done % self._every == 0 or self._done == self._steps
        ):
            left = 0.0 if self._at_once else 1 - self._done / self._steps
            share = self._sparsity * (1 - left**3)
            self._masks = {w.name: smallest(w.numpy(), share, self._block) for w in self._weights}
        super().on_train_batch_end(batch, logs)
