"""Lottery tickets: pruning again and again, the survivors rewound each time. Worker only."""

from typing import Any

import numpy as np
import tf_keras
from numpy.typing import NDArray

from converters.finetune import Lesson, devices, fit, trainable_copy
from converters.loading import Source, from_tf_keras
from converters.masks import Masking, smallest, weights_to_prune
from converters.steps import Lottery

_EARLY = 1  # epochs of training after which `early` weights are taken


def lottery(source: Source, step: Lottery, lesson: Lesson) -> Source:
    """A copy with few weights, those found by training and pruning in rounds.

    Raises:
        UntrainableError: the model can't be trained.
        PruneError: it has no weights to prune.
    """
    with devices(lesson):
        model = trainable_copy(source)
        weights = weights_to_prune(model)
    if step.rewind == "early":
        _reset(model)
        fit(model, lesson, _EARLY, step.learning_rate)
    start = model.get_weights()
    fit(model, lesson, step.epochs, step.learning_rate)
    masks: dict[str, NDArray[np.float32]] = {}
    for number in range(1, step.rounds + 1):
        kept = (1 - step.sparsity) ** (number / step.rounds)
        masks = {w.name: smallest(w.numpy(), 1 - kept) for w in weights}
        model.set_weights(start)
        fit(model, lesson, step.epochs, step.learning_rate, [Masking(weights, masks)])
    return from_tf_keras(model)


def _reset(model: Any) -> None:  # noqa: ANN401 - tf_keras ships no types
    """Every layer's weights as a new one has them."""
    fresh = tf_keras.models.clone_model(model)
    model.set_weights(fresh.get_weights())
