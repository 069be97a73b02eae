"""Fewer inputs: principal components of the training rows in place of the columns. Worker only.

The first layer takes the components' share of its weights, so that the model starts out nearly the
same; what projects the rows becomes a feature step of the manifest, which the device carries out.
"""

import dataclasses
from typing import Any

import numpy as np
import tf_keras
from numpy.typing import NDArray

from converters.dialogue import Rows
from converters.finetune import Lesson, UntrainableError, devices, fit, trainable_copy
from converters.graph import clone, nodes, rebuilt
from converters.loading import Source, from_tf_keras
from converters.steps import ReduceInputs
from edge_sdk.features import Project


def reduce_inputs(source: Source, step: ReduceInputs, lesson: Lesson) -> Source:
    """A copy that takes components, fine-tuned; its source has the step that makes them.

    Raises:
        UntrainableError: it can't be trained, its rows are no vectors, it begins with no dense
            layer, or it reconstructs its input.
    """
    if lesson.task == "anomaly":
        raise UntrainableError("a model that reconstructs its input needs all of it")
    model = trainable_copy(source)
    first = nodes(model)[0].layer
    if lesson.x.ndim != 2 or not isinstance(first, tf_keras.layers.Dense):
        raise UntrainableError("inputs are reduced for vectors that a dense layer takes")
    project = components(lesson.x, step.variance)
    if len(project.components) >= lesson.x.shape[1]:
        raise UntrainableError(f"{step.variance:.1%} of the variance needs every component")
    with devices(lesson):
        small = rebuilt(model, lambda layer: [clone(layer)],
                        tf_keras.Input((len(project.components),)))  # fmt: skip
    _copy(model, small, first.name, project)
    fit(small, dataclasses.replace(lesson, x=project.apply(lesson.x)), step.epochs,
        step.learning_rate)  # fmt: skip
    return dataclasses.replace(from_tf_keras(small), features=(*source.features, project))


def components(x: Rows, variance: float) -> Project:
    """The fewest principal components of rows (n, k) that keep a share of their variance."""
    mean = x.mean(axis=0, dtype=np.float64)
    _, values, axes = np.linalg.svd(x - mean, full_matrices=False)
    kept = np.cumsum(values**2) / (values**2).sum()
    count = int(np.searchsorted(kept, variance)) + 1
    signs = np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(axis=1)])
    rows = (axes * signs[:, np.newaxis])[:count].round(7)
    return Project(_numbers(mean.round(7)), tuple(_numbers(row) for row in rows))


def _numbers(values: NDArray[np.float64]) -> tuple[float, ...]:
    return tuple(float(value) for value in values)


def _copy(model: Any, small: Any, first: str, project: Project) -> None:  # noqa: ANN401
    axes, mean = np.asarray(project.components), np.asarray(project.mean)
    for layer in model.layers:
        weights = layer.get_weights()
        if layer.name == first:
            kernel = weights[0].astype(np.float64)
            weights[0] = (axes @ kernel).astype(np.float32)
            if layer.use_bias:
                weights[1] = (weights[1] + mean @ kernel).astype(np.float32)
        if weights:
            small.get_layer(layer.name).set_weights(weights)
