"""The child process with TensorFlow in it. Started as `python -m converters.worker`."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from converters.dialogue import Rows, converse
from converters.finetune import Lesson, lesson
from converters.flatbuffer import slim
from converters.loading import Source, load
from converters.protocol import Convert
from converters.quantise import quantise
from converters.recipe import (
    Cluster,
    Mix,
    Prune,
    Quantise,
    SourceFacts,
    Training,
    TrainQuantised,
    WeightOnly,
)

_TOOLS = (
    "ai-edge-litert", "ai-edge-quantizer", "edge-deployment-sdk", "keras", "numpy", "tensorflow",
    "tensorflow-model-optimization", "tf-keras",
)  # fmt: skip


@dataclass(frozen=True)
class TensorFlowModel:
    """A model that TensorFlow loaded."""

    source: Source

    @property
    def facts(self) -> SourceFacts:
        return self.source.facts

    def score(self, rows: Rows) -> Rows:
        """The given model's scores (n, classes) of model inputs (n, *shape)."""
        return self.source.score(rows)

    def convert(self, request: Convert) -> bytes:
        """The .tflite file that a recipe makes."""
        source, model = self.source, b""
        calibration = np.load(request.calibration)
        for step in request.recipe.steps:
            match step:
                case Quantise():
                    model = quantise(source, step, calibration)
                case Mix() | WeightOnly():
                    from converters.rewrite import rewrite  # a second and a half to import

                    model = rewrite(model, step, calibration)
                case Prune() | Cluster() | TrainQuantised():
                    source = _trained(source, step, self._lesson(request))
        return slim(model)

    def _lesson(self, request: Convert) -> Lesson:
        return lesson(self.source, np.load(request.train_x), np.load(request.train_y))


def _trained(source: Source, step: Training, lesson: Lesson) -> Source:
    # not at the top: importing them changes how TensorFlow finds Keras
    match step:
        case Prune():
            from converters.prune import prune

            return prune(source, step, lesson)
        case Cluster():
            from converters.cluster import cluster

            return cluster(source, step, lesson)
        case TrainQuantised():
            from converters.aware import train_quantised

            return train_quantised(source, step, lesson)


def _load(path: Path) -> TensorFlowModel:
    return TensorFlowModel(load(path))


if __name__ == "__main__":
    converse(_load, _TOOLS)
