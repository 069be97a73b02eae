"""Magnitude pruning by tensorflow-model-optimization; of blocks, by our own masks.

Worker only, and there only when needed: importing it sets `TF_USE_LEGACY_KERAS` for the process.
"""

from typing import Any

import tensorflow_model_optimization as tfmot

from converters.finetune import Lesson, UntrainableError, devices, fit, trainable_copy
from converters.loading import Source, from_tf_keras
from converters.masks import PruneError, Thinning, weights_to_prune, zeros
from converters.steps import Prune

_UPDATES = 20  # how often the share of zeros rises on its way
_FOURS = 0.25  # zeros at least: layers without fours along the input stay whole
_sparsity = tfmot.sparsity.keras


def prune(source: Source, step: Prune, lesson: Lesson) -> Source:
    """A pruned copy of the model, fine-tuned.

    Raises:
        UntrainableError: the model can't be trained.
        PruneError: no layer can be pruned, or training did not reach the zeros promised.
    """
    with devices(lesson):
        model = trainable_copy(source)
        weights = weights_to_prune(model)
    rising = lesson.steps * max(step.epochs - 1, 1)
    if lesson.parallel and step.pattern == "2:4":
        raise UntrainableError("two of every four can't be pruned by tf.distribute")
    if lesson.parallel or step.pattern == "block":  # tfmot's wrappers do not run on replicas
        thinning = Thinning(weights, step, rising, _UPDATES)
        fit(model, lesson, step.epochs, step.learning_rate, [thinning])
        pruned = model
    else:
        wrapped = _wrapped(model, step, rising)
        fit(wrapped, lesson, step.epochs, step.learning_rate, [_sparsity.UpdatePruningStep()])
        pruned = _sparsity.strip_pruning(wrapped)
    reached = zeros(pruned)
    if reached < (_FOURS if step.pattern == "2:4" else step.sparsity - 0.05):
        raise PruneError(f"pruning reached {reached:.0%} zeros, {step.sparsity:.0%} were wanted")
    return from_tf_keras(pruned)


def _wrapped(model: Any, step: Prune, rising: int) -> Any:  # noqa: ANN401 - tfmot has no types
    every = max(1, rising // _UPDATES)
    if step.pattern == "2:4":  # its share is two of four from the first step on
        return _sparsity.prune_low_magnitude(
            model, _sparsity.ConstantSparsity(0.5, 0, frequency=every), sparsity_m_by_n=(2, 4)
        )
    if step.schedule == "constant":
        schedule = _sparsity.ConstantSparsity(step.sparsity, 0, frequency=every)
    else:
        schedule = _sparsity.PolynomialDecay(
            initial_sparsity=0.0,
            final_sparsity=step.sparsity,
            begin_step=0,
            end_step=rising // every * every,
            frequency=every,
        )
    return _sparsity.prune_low_magnitude(model, schedule)
