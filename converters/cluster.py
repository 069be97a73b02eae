"""Weight clustering by tensorflow-model-optimization.

Worker only, and there only when needed: importing it sets `TF_USE_LEGACY_KERAS` for the process.
"""

from typing import Any

import numpy as np
import tensorflow_model_optimization as tfmot
import tf_keras

from converters.finetune import Lesson, devices, fit, trainable_copy
from converters.loading import Source, from_tf_keras
from converters.steps import Cluster

_FEW = 4  # weights for each value: a layer with fewer has nothing to gain, and k-means may fail


class ClusterError(Exception):
    """Why a model's weights were not clustered, in words."""


def cluster(source: Source, step: Cluster, lesson: Lesson) -> Source:
    """A copy of the model whose layers have few different weights, fine-tuned.

    Raises:
        UntrainableError: the model can't be trained.
        ClusterError: a layer has more values than promised.
    """

    def wrap(layer: Any) -> Any:  # noqa: ANN401
        sizes = [weight.size for weight in layer.get_weights() if weight.ndim > 1]
        if not sizes or max(sizes) < _FEW * step.clusters:
            return layer
        return tfmot.clustering.keras.cluster_weights(
            layer,
            number_of_clusters=step.clusters,
            cluster_centroids_init=tfmot.clustering.keras.CentroidInitialization.KMEANS_PLUS_PLUS,
            preserve_sparsity=step.keep_zeros,
        )

    with devices(lesson):
        wrapped = tf_keras.models.clone_model(trainable_copy(source), clone_function=wrap)
    fit(wrapped, lesson, step.epochs, step.learning_rate)
    clustered = tfmot.clustering.keras.strip_clustering(wrapped)
    for layer in wrapped.layers:
        _check(layer, clustered, step)
    return from_tf_keras(clustered)


def _check(layer: Any, clustered: Any, step: Cluster) -> None:  # noqa: ANN401 - tfmot has no types
    """That the weights which a wrapper of the training model took care of are few values now."""
    for name in getattr(layer, "clustering_algorithms", {}):  # other layers are no wrappers
        own = clustered.get_layer(layer.layer.name)
        values = len(np.unique(getattr(own, name.partition("/")[0].partition(":")[0]).numpy()))
        if values > step.clusters + step.keep_zeros:
            raise ClusterError(
                f"layer {own.name} has {values} different weights, {step.clusters} were wanted"
            )
