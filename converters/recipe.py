"""What can be done to a model, as data: a recipe is a list of steps, in order.

Pure. A new technique is a new step here, a module that carries it out, and a line in the worker's
`match`; recipes combine steps.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from edge_sdk import bundle
from edge_sdk.errors import InvalidInputError

Share = Annotated[float, Meta(gt=0, lt=1)]
Epochs = Annotated[int, Meta(ge=1, le=1000)]
Rate = Annotated[float, Meta(gt=0, lt=1)]

# What a .tflite file computes in; the first three are what a profile can name.
Precision = Literal[
    "float32", "dynamic-range", "int8", "float16", "int16x8", "int8x4", "mixed", "weight-only"
]
Target = Literal["float32", "dynamic-range", "int8", "float16", "int16x8"]


class Prune(msgspec.Struct, frozen=True, tag="prune"):
    """Magnitude pruning with fine-tuning: the smallest weights go to zero while training goes on.

    Zeros do not make the .tflite file smaller or faster by themselves: they compress, so what is
    stored and sent gets smaller.

    Attributes:
        sparsity: share of zero weights at the end, on a cubic schedule from 0.
        epochs: passes over the training rows; the schedule ends with the second to last.
        learning_rate: of Adam.
    """

    sparsity: Share = 0.5
    epochs: Epochs = 4
    learning_rate: Rate = 5e-4

    def __str__(self) -> str:
        return (
            f"prune by magnitude to {self.sparsity:.0%} zeros, fine-tuned {self.epochs} epochs "
            f"(Adam, {self.learning_rate:g})"
        )


class Cluster(msgspec.Struct, frozen=True, tag="cluster"):
    """Weight clustering with fine-tuning: a layer's weights share a few values, so they compress.

    Attributes:
        clusters: different values a layer may have.
        keep_zeros: whether weights that are zero stay so (after pruning).
        epochs, learning_rate: as in `Prune`.
    """

    clusters: Annotated[int, Meta(ge=2, le=256)] = 16
    keep_zeros: bool = False
    epochs: Epochs = 2
    learning_rate: Rate = 1e-4

    def __str__(self) -> str:
        kept = ", zeros kept" if self.keep_zeros else ""
        return (
            f"cluster weights to {self.clusters} values a layer{kept}, fine-tuned {self.epochs} "
            f"epochs (Adam, {self.learning_rate:g})"
        )


class TrainQuantised(msgspec.Struct, frozen=True, tag="train-quantised"):
    """Quantisation-aware training: fine-tuning with int8 rounding played in the forward pass.

    Attributes:
        keep: what earlier steps did to the weights and this one must not undo.
        epochs, learning_rate: as in `Prune`.
    """

    keep: Literal["nothing", "zeros", "clusters", "zeros and clusters"] = "nothing"
    epochs: Epochs = 3
    learning_rate: Rate = 1e-4

    def __str__(self) -> str:
        kept = "" if self.keep == "nothing" else f", {self.keep} kept"
        return (
            f"quantisation-aware training{kept}, {self.epochs} epochs "
            f"(Adam, {self.learning_rate:g})"
        )


class Quantise(msgspec.Struct, frozen=True, tag="quantise"):
    """Turn the model into TFLite at a precision."""

    precision: Target

    def __str__(self) -> str:
        return {
            "float32": "convert to TFLite in float32",
            "float16": "convert to TFLite with float16 weights",
            "dynamic-range": "quantise weights to int8, activations while running",
            "int8": "quantise weights and activations to int8 (min-max), int8 in and out",
            "int16x8": "quantise weights to int8, activations to int16 (min-max), int16 in and out",
        }[self.precision]


class WeightOnly(msgspec.Struct, frozen=True, tag="weight-only"):
    """Small integer weights that are turned into floats before use: for size, not for speed."""

    bits: Literal[4, 8] = 8

    def __str__(self) -> str:
        return f"quantise weights alone to int{self.bits}"


class Mix(msgspec.Struct, frozen=True, tag="mix"):
    """Each layer as low as the model bears: those that change its answers most stay higher.

    Layers are tried one by one on calibration rows, then lowered in the order of harm per byte
    saved, for as long as few rows get another class than from the float model.

    Attributes:
        bits: of the lowered layers' weights; the others stay at int8 (4) or in float (8).
            Activations are int8, but those of float layers.
        changed: share of calibration rows that may get another class.
    """

    bits: Literal[4, 8] = 4
    changed: Share = 0.05

    def __str__(self) -> str:
        low, high = ("int4", "int8") if self.bits == 4 else ("int8", "float")
        return (
            f"quantise to int8 (min-max), weights of layers that bear it to {low}, others {high}: "
            f"at most {self.changed:.1%} of calibration rows change class"
        )


Training = Prune | Cluster | TrainQuantised
Step = Training | Quantise | WeightOnly | Mix


class Recipe(msgspec.Struct, frozen=True):
    """A name people use and the steps it stands for."""

    name: str
    steps: tuple[Step, ...]

    @property
    def trains(self) -> bool:
        """Whether it changes weights by training, so that it needs training rows."""
        return any(isinstance(step, Training) for step in self.steps)

    def for_manifest(self) -> bundle.Recipe:
        """The record in the bundle."""
        return bundle.Recipe(self.name, tuple(str(step) for step in self.steps))


RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe("float32", (Quantise("float32"),)),
        Recipe("dynamic-range", (Quantise("dynamic-range"),)),
        Recipe("int8", (Quantise("int8"),)),
        Recipe("pruned-int8", (Prune(), Quantise("int8"))),
        Recipe("float16", (Quantise("float16"),)),
        Recipe("int16x8", (Quantise("int16x8"),)),
        Recipe("weight-int8", (Quantise("float32"), WeightOnly(8))),
        Recipe("weight-int4", (Quantise("float32"), WeightOnly(4))),
        Recipe("mixed-int4", (Quantise("float32"), Mix(4))),
        Recipe("selective-int8", (Quantise("float32"), Mix(8, 0.03))),
        Recipe("qat", (TrainQuantised(), Quantise("int8"))),
        Recipe("clustered-int8", (Cluster(), TrainQuantised("clusters"), Quantise("int8"))),
        Recipe("pruned-qat", (Prune(), TrainQuantised("zeros"), Quantise("int8"))),
        Recipe(
            "pcqat",
            (
                Prune(),
                Cluster(keep_zeros=True),
                TrainQuantised("zeros and clusters"),
                Quantise("int8"),
            ),
        ),
    )
}
SETTINGS = ("changed", "clusters", "epochs", "learning_rate", "sparsity")
DEFAULT = ("float32", "dynamic-range", "int8", "pruned-int8")  # the others cost more time


def recipe_named(words: str) -> Recipe:
    """A recipe by name, its steps' settings changed by what follows a colon.

    >>> str(recipe_named("pcqat:sparsity=0.6,clusters=8").steps[1]).partition(",")[0]
    'cluster weights to 8 values a layer'

    Raises:
        InvalidInputError: an unknown name or setting, or a value out of range.
    """
    name, _, settings = words.partition(":")
    if name not in RECIPES:
        raise InvalidInputError(f"unknown recipe {name!r}: known are {', '.join(RECIPES)}")
    recipe = RECIPES[name]
    for setting in filter(None, settings.split(",")):
        field, _, value = setting.partition("=")
        recipe = Recipe(words, _changed(recipe, field, value))
    return recipe


def _changed(recipe: Recipe, field: str, value: str) -> tuple[Step, ...]:
    known = sorted({f for step in recipe.steps for f in step.__struct_fields__ if f in SETTINGS})
    if field not in known:
        raise InvalidInputError(
            f"recipe {recipe.name} has no setting {field!r}: known are {', '.join(known) or 'none'}"
        )
    steps = []
    for step in recipe.steps:
        fields = msgspec.to_builtins(step)
        try:
            wanted = fields | ({field: value} if field in fields else {})
            steps.append(msgspec.convert(wanted, Step, strict=False))
        except msgspec.ValidationError as error:
            raise InvalidInputError(f"recipe {recipe.name}: {field}={value}: {error}") from error
    return tuple(steps)


class SourceFacts(msgspec.Struct, frozen=True):
    """What the model file turned out to be.

    Attributes:
        kind: `tf_keras`, `keras3` or `saved-model`.
        input_shape: of one row; None where the model leaves a size open.
        classes: width of the output.
        parameters: number of weights; 0 if the format does not say.
        untrainable: why recipes that train can't be used on it; empty if they can.
    """

    kind: str
    input_shape: tuple[int | None, ...]
    classes: int
    parameters: int
    untrainable: str = ""


def why_not(recipe: Recipe, source: SourceFacts, *, train_rows: int) -> str | None:
    """Why a recipe can't even be tried on this model with this data; None if it can."""
    if not recipe.trains:
        return None
    if not train_rows:
        return "needs training rows: give --train"
    return source.untrainable or None
