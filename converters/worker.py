"""The child process with TensorFlow in it. Started as `python -m converters.worker`."""

import dataclasses
import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import converters.lean  # noqa: F401 - before what imports TensorFlow
from converters.dialogue import Converted, Rows, converse
from converters.finetune import Lesson, lesson
from converters.flatbuffer import slim
from converters.loading import Source, load
from converters.protocol import Convert
from converters.quantise import quantise
from converters.recipe import SourceFacts
from converters.space import Hyper
from converters.steps import (
    Build,
    Cluster,
    CutChannels,
    Distil,
    Factorise,
    Lottery,
    Prune,
    Quantise,
    ReduceInputs,
    Training,
    TrainQuantised,
    Writing,
)
from edge_sdk.features import apply_all

_TOOLS = (
    "ai-edge-litert", "ai-edge-quantizer", "edge-deployment-sdk", "keras", "numpy", "tensorflow",
    "tensorflow-model-optimization", "tf-keras",
)  # fmt: skip
# Each is a function (Source, step, Lesson) -> Source. By name: some change how TensorFlow finds
# Keras when they are imported.
_TECHNIQUES: dict[type[Training], str] = {
    Prune: "prune:prune",
    Lottery: "lottery:lottery",
    CutChannels: "cut:cut_channels",
    Distil: "distil:distil",
    Factorise: "factorise:factorise",
    ReduceInputs: "reduce:reduce_inputs",
    Cluster: "cluster:cluster",
    TrainQuantised: "aware:train_quantised",
    Build: "build:build",
}


@dataclass(frozen=True)
class TensorFlowModel:
    """A model that TensorFlow loaded."""

    source: Source

    @property
    def facts(self) -> SourceFacts:
        return self.source.facts

    @property
    def tools(self) -> tuple[str, ...]:
        """Distributions that take part."""
        return (*_TOOLS, *self.source.tools)

    def score(self, rows: Rows) -> Rows:
        """The given model's scores (n, classes) of model inputs (n, *shape)."""
        return self.source.score(rows)

    def convert(self, request: Convert) -> Converted:
        """The .tflite file that a recipe makes."""
        source, model = self.source, b""
        for step in request.recipe.steps:
            if isinstance(step, Writing):
                rows = apply_all(source.features, np.load(request.calibration))
                model = _written(source, model, step, rows, request)
            else:
                source = _trained(source, step, self._lesson(request, source))
        return Converted(slim(model), source.features)

    def hyperparameters(self, function: str) -> tuple[Hyper, ...]:
        """What a user's `build_model(hp)` asks for."""
        from converters.build import hyperparameters

        return hyperparameters(function)

    def _lesson(self, request: Convert, source: Source) -> Lesson:
        """The given model teaches; its pupil may take other inputs by now."""
        x, y = np.load(request.train_x), np.load(request.train_y)
        given = lesson(self.source, x, y, request.task, parallel=request.parallel)
        return dataclasses.replace(given, x=apply_all(source.features, given.x))


def _written(source: Source, model: bytes, step: Writing, rows: Rows, request: Convert) -> bytes:
    """TensorFlow's converter writes the file; what it can't do is done to its float32 file."""
    if isinstance(step, Quantise) and (step.ranges == "min-max" or source.ranges):
        return quantise(source, step, rows)
    from converters.rewrite import rewrite  # a second and a half to import

    model = model or quantise(source, Quantise("float32"), rows)
    return rewrite(model, step, rows, request.task)


def _trained(source: Source, step: Training, lesson: Lesson) -> Source:
    module, _, name = _TECHNIQUES[type(step)].partition(":")
    technique: Any = getattr(importlib.import_module(f"converters.{module}"), name)
    made: Source = technique(source, step, lesson)
    return made if made.features else dataclasses.replace(made, features=source.features)


def _load(path: Path) -> TensorFlowModel:
    return TensorFlowModel(load(path))


if __name__ == "__main__":
    converse(_load)
