"""Magnitude pruning by tensorflow-model-optimization.

Worker only, and there only when needed: importing it sets `TF_USE_LEGACY_KERAS` for the process.
"""

import tensorflow_model_optimization as tfmot
import tf_keras

from converters.finetune import Lesson, fit, trainable_copy
from converters.loading import Source, from_tf_keras
from converters.recipe import Prune

_UPDATES = 20  # how often the share of zeros rises on its way
_PRUNED = (tf_keras.layers.Dense, tf_keras.layers.Conv1D, tf_keras.layers.Conv2D)


class PruneError(Exception):
    """Why a model was not pruned, in words."""


def prune(source: Source, step: Prune, lesson: Lesson) -> Source:
    """A pruned copy of the model, fine-tuned.

    Raises:
        UntrainableError: the model can't be trained.
        PruneError: no layer can be pruned, or training did not reach the zeros promised.
    """
    model = trainable_copy(source)
    rising = lesson.steps * max(step.epochs - 1, 1)
    every = max(1, rising // _UPDATES)
    schedule = tfmot.sparsity.keras.PolynomialDecay(
        initial_sparsity=0.0,
        final_sparsity=step.sparsity,
        begin_step=0,
        end_step=rising // every * every,
        frequency=every,
    )
    wrapped = tfmot.sparsity.keras.prune_low_magnitude(model, pruning_schedule=schedule)
    fit(
        wrapped, lesson, step.epochs, step.learning_rate,
        [tfmot.sparsity.keras.UpdatePruningStep()],
    )  # fmt: skip
    pruned = tfmot.sparsity.keras.strip_pruning(wrapped)
    reached = zeros(pruned)
    if reached < step.sparsity - 0.05:
        raise PruneError(f"pruning reached {reached:.0%} zeros, {step.sparsity:.0%} were wanted")
    return from_tf_keras(pruned)


def zeros(model: tf_keras.Model) -> float:
    """Share of zeros among the weights of layers that pruning takes (convolutions and dense)."""
    kernels = [
        layer.kernel.numpy()
        for layer in model.layers
        if isinstance(layer, _PRUNED) and not isinstance(layer, tf_keras.layers.DepthwiseConv2D)
    ]
    if not kernels:
        raise PruneError("it has no convolution or dense layer to prune")
    return float(sum((k == 0).sum() for k in kernels) / sum(k.size for k in kernels))
