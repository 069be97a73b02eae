"""Quantisation-aware training by tensorflow-model-optimization.

Worker only, and there only when needed: importing it sets `TF_USE_LEGACY_KERAS` for the process.
"""

import dataclasses
from typing import Any

import tensorflow_model_optimization as tfmot

from converters.finetune import Lesson, devices, fit, trainable_copy
from converters.loading import Source, from_tf_keras
from converters.steps import TrainQuantised

_keras = tfmot.quantization.keras
_preserving = tfmot.experimental.combine


def train_quantised(source: Source, step: TrainQuantised, lesson: Lesson) -> Source:
    """A copy of the model that rounds as int8 does, trained to live with it.

    Raises:
        UntrainableError: the model can't be trained.
        ValueError, RuntimeError: a layer that tensorflow-model-optimization does not know.
    """
    with devices(lesson), _keras.quantize_scope():
        annotated = _keras.quantize_annotate_model(trainable_copy(source))
        model = _keras.quantize_apply(annotated, _scheme(step))
    fit(model, lesson, step.epochs, step.learning_rate)
    if "clusters" in step.keep:
        model = _preserving.strip_clustering_cqat(model)
    return dataclasses.replace(from_tf_keras(model), ranges=True)


def _scheme(step: TrainQuantised) -> Any:  # noqa: ANN401 - tfmot ships no types
    match step.keep:
        case "nothing":
            return _keras.default_8bit.Default8BitQuantizeScheme()
        case "zeros":
            return _preserving.Default8BitPrunePreserveQuantizeScheme()
        case "clusters":
            return _preserving.Default8BitClusterPreserveQuantizeScheme(preserve_sparsity=False)
        case "zeros and clusters":
            return _preserving.Default8BitClusterPreserveQuantizeScheme(preserve_sparsity=True)
