"""What can be done to a model, as data: a recipe is a list of steps, in order.

Pure. A new technique is a new step in `steps`, a module that carries it out, and a line in the
worker's table; recipes combine steps.
"""

import msgspec

from converters.steps import (
    Build,
    Cluster,
    CutChannels,
    Distil,
    Factorise,
    Lottery,
    Mix,
    Precision,
    Prune,
    Quantise,
    ReduceInputs,
    Step,
    Training,
    TrainQuantised,
    WeightOnly,
)
from edge_sdk import bundle
from edge_sdk.errors import InvalidInputError


class Recipe(msgspec.Struct, frozen=True):
    """A name people use and the steps it stands for."""

    name: str
    steps: tuple[Step, ...]

    @property
    def trains(self) -> bool:
        """Whether it changes weights by training, so that it needs training rows."""
        return any(isinstance(step, Training) for step in self.steps)

    @property
    def precision(self) -> Precision | None:
        """What it makes; None if that is found layer by layer."""
        match self.steps[-1]:
            case Quantise(precision):
                return precision
            case WeightOnly():
                return "weight-only"
            case Mix(4):
                return "int8x4"
            case _:
                return None

    def for_manifest(self) -> bundle.Recipe:
        """The record in the bundle."""
        return bundle.Recipe(self.name, tuple(str(step) for step in self.steps))


_INT8 = Quantise("int8")
_SQUEEZED = (Cluster(keep_zeros=True), TrainQuantised("zeros and clusters"), _INT8)
RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe("float32", (Quantise("float32"),)),
        Recipe("dynamic-range", (Quantise("dynamic-range"),)),
        Recipe("int8", (_INT8,)),
        Recipe("pruned-int8", (Prune(), _INT8)),
        Recipe("float16", (Quantise("float16"),)),
        Recipe("int16x8", (Quantise("int16x8"),)),
        Recipe("int8-float-io", (Quantise("int8", io="float"),)),
        Recipe("int8-percentile", (Quantise("int8", "percentile"),)),
        Recipe("int8-mse", (Quantise("int8", "mse"),)),
        Recipe("weight-int8", (Quantise("float32"), WeightOnly(8))),
        Recipe("weight-int4", (Quantise("float32"), WeightOnly(4))),
        Recipe("mixed-int4", (Quantise("float32"), Mix(4))),
        Recipe("selective-int8", (Quantise("float32"), Mix(8, 0.03))),
        Recipe("qat", (TrainQuantised(), _INT8)),
        Recipe("clustered-int8", (Cluster(), TrainQuantised("clusters"), _INT8)),
        Recipe("pruned-qat", (Prune(), TrainQuantised("zeros"), _INT8)),
        Recipe("pcqat", (Prune(), *_SQUEEZED)),
        Recipe("pruned-2-4-int8", (Prune(pattern="2:4"), _INT8)),
        Recipe("pruned-block-int8", (Prune(pattern="block"), _INT8)),
        Recipe("lottery-int8", (Lottery(), _INT8)),
        Recipe("cut-int8", (CutChannels(), _INT8)),
        Recipe("cut-pcqat", (CutChannels(), Prune(), *_SQUEEZED)),
        Recipe("distilled-int8", (Distil(), _INT8)),
        Recipe("low-rank-int8", (Factorise(), _INT8)),
        Recipe("pca-int8", (ReduceInputs(), _INT8)),
    )
}
SETTINGS = (
    "changed", "clusters", "energy", "epochs", "learning_rate", "rewind", "rounds", "schedule",
    "share", "sparsity", "temperature", "variance", "width",
)  # fmt: skip
BUILD = "build:"
DEFAULT = ("float32", "dynamic-range", "int8", "pruned-int8")  # the others cost more time


def recipe_named(words: str) -> Recipe:
    """A recipe by name, its steps' settings changed by what follows a colon.

    >>> str(recipe_named("pcqat:sparsity=0.6,clusters=8").steps[1]).partition(",")[0]
    'cluster weights to 8 values a layer'

    Raises:
        InvalidInputError: an unknown name or setting, or a value out of range.
    """
    if words.startswith(BUILD):
        return _built(words)
    name, _, settings = words.partition(":")
    if name not in RECIPES:
        raise InvalidInputError(f"unknown recipe {name!r}: known are {', '.join(RECIPES)}")
    recipe = RECIPES[name]
    for setting in filter(None, settings.split(",")):
        field, _, value = setting.partition("=")
        recipe = Recipe(words, _changed(recipe, field, value))
    return recipe


def _built(words: str) -> Recipe:
    """The recipe `build:MODULE:FUNCTION:NAME=VALUE,…`, int8 at the end.

    >>> str(recipe_named("build:nets:small:units=8").steps[0]).partition(",")[0]
    'build nets:small (units 8)'
    """
    parts = words.removeprefix(BUILD).split(":", 2)
    if len(parts) < 2 or not all(parts[:2]):
        raise InvalidInputError(f"recipe {words}: needed is {BUILD}MODULE:FUNCTION")
    pairs = [pair.partition("=") for pair in (parts[2].split(",") if len(parts) > 2 else ())]
    values = tuple((name, value) for name, _, value in pairs)
    return Recipe(words, (Build(":".join(parts[:2]), values), _INT8))


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
        kind: `tf_keras`, `keras3`, `saved-model`, `onnx` or `tflite`.
        input_shape, output_shape: of one row; None where the model leaves a size open.
        parameters: number of weights; 0 if the format does not say.
        untrainable: why recipes that train can't be used on it; empty if they can.
    """

    kind: str
    input_shape: tuple[int | None, ...]
    output_shape: tuple[int | None, ...]
    parameters: int
    untrainable: str = ""

    @property
    def classes(self) -> int:
        """Width of the output."""
        return self.output_shape[-1] or 0


def why_not(recipe: Recipe, source: SourceFacts, *, train_rows: int) -> str | None:
    """Why a recipe can't even be tried on this model with this data; None if it can."""
    if not recipe.trains:
        return None
    if not train_rows:
        return "needs training rows: give --train or --train-share"
    return source.untrainable or None
