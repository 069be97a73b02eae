"""The child process for a model that is a .tflite file already: no TensorFlow in it.

Started as `python -m converters.tflite_worker`.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from converters.dialogue import Converted, Rows, UnreadableModelError, converse
from converters.facts import read_facts
from converters.flatbuffer import slim
from converters.layers import read_layers
from converters.protocol import Convert
from converters.recipe import SourceFacts
from converters.space import Hyper
from converters.steps import Writing
from edge_sdk.channels import Preprocessing
from edge_sdk.errors import NotConvertibleError
from edge_sdk.interpreter import LiteRt

_TOOLS = ("ai-edge-litert", "ai-edge-quantizer", "edge-deployment-sdk", "numpy")


@dataclass(frozen=True)
class TfliteModel:
    """A float .tflite file."""

    model: bytes
    facts: SourceFacts
    tools: tuple[str, ...] = _TOOLS

    def score(self, rows: Rows) -> Rows:
        """The given model's scores (n, classes) of model inputs (n, *shape)."""
        return LiteRt(self.model, Preprocessing()).run_rows(rows)

    def convert(self, request: Convert) -> Converted:
        """The .tflite file that a recipe makes."""
        from converters.rewrite import rewrite  # a second to import; to look at a file needs none

        model, calibration = self.model, np.load(request.calibration)
        for step in request.recipe.steps:
            if isinstance(step, Writing):  # others train: `why_not` said no
                model = rewrite(model, step, calibration, request.task)
        return Converted(slim(model))

    def hyperparameters(self, function: str) -> tuple[Hyper, ...]:
        """None: there is no TensorFlow to build models with."""
        raise UnreadableModelError(f"{function}: {self.facts.untrainable}")


def load(path: Path) -> TfliteModel:
    """The model in a file.

    Raises:
        UnreadableModelError: it is no float model with one input and one output of class scores.
    """
    try:
        model = path.read_bytes()
        facts = read_facts(model)
        runs = LiteRt(model, Preprocessing())
    except OSError as error:
        raise UnreadableModelError(error.strerror or str(error)) from error
    except NotConvertibleError as error:
        raise UnreadableModelError(str(error)) from error
    if facts.precision != "float32":
        raise UnreadableModelError(
            f"it is {facts.precision} already: give the float model that it was made from"
        )
    given, gives = runs.input.shape, runs.output.shape
    if len(gives) < 2:
        raise UnreadableModelError(f"its output has shape {gives}, needed is (rows, ...)")
    if given[0] != 1:
        raise UnreadableModelError(f"its batch size is fixed at {given[0]}: convert it with 1")
    why = "a .tflite file can't be trained: give the model that it was made from"
    weights = sum(layer.weights for layer in read_layers(model))
    return TfliteModel(model, SourceFacts("tflite", given[1:], gives[1:], weights, why))


if __name__ == "__main__":
    converse(load)
