"""The steps that recipes are made of, as data: each technique's settings, and its words. Pure."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Share = Annotated[float, Meta(gt=0, lt=1)]
Epochs = Annotated[int, Meta(ge=1, le=1000)]
Rate = Annotated[float, Meta(gt=0, lt=1)]

# What a .tflite file computes in; the first three are what a profile can name.
Precision = Literal[
    "float32", "dynamic-range", "int8", "float16", "int16x8", "int8x4", "mixed", "weight-only"
]
Target = Literal["float32", "dynamic-range", "int8", "float16", "int16x8"]
Ranges = Literal["min-max", "percentile", "mse"]


def _tuned(epochs: int, learning_rate: float) -> str:
    return f"fine-tuned {epochs} epochs (Adam, {learning_rate:g})"


class Prune(msgspec.Struct, frozen=True, tag="prune"):
    """Magnitude pruning with fine-tuning: the smallest weights go to zero while training goes on.

    Zeros do not make the .tflite file smaller or faster by themselves: they compress, so what is
    stored and sent gets smaller.

    Attributes:
        sparsity: share of zero weights at the end.
        schedule: `cubic` rises from 0, `constant` is there from the first step.
        pattern: `any` weights; `2:4` two of every four along the input; `block` four
            neighbours along the input as one.
        epochs: passes over the training rows; the schedule ends with the second to last.
        learning_rate: of Adam, the mean of all steps.
    """

    sparsity: Share = 0.5
    schedule: Literal["cubic", "constant"] = "cubic"
    pattern: Literal["any", "2:4", "block"] = "any"
    epochs: Epochs = 4
    learning_rate: Rate = 5e-4

    def __str__(self) -> str:
        what = {
            "any": "by magnitude", "2:4": "two of every four weights", "block": "blocks of four"
        }[self.pattern]  # fmt: skip
        how = "" if self.schedule == "cubic" else " at once"
        return (
            f"prune {what} to {self.sparsity:.0%} zeros{how}, "
            f"{_tuned(self.epochs, self.learning_rate)}"
        )


class Lottery(msgspec.Struct, frozen=True, tag="lottery"):
    """A lottery ticket: train, prune the smallest, rewind the others, and again.

    Frankle and Carbin 2019; to early weights instead of the first ones, Frankle et al. 2020.

    Attributes:
        sparsity: share of zero weights at the end, reached in equal factors.
        rounds: how often it is pruned and rewound.
        rewind: `given`, to the model's own weights; `early`, to those after one epoch of training
            from scratch.
        epochs, learning_rate: of each round, as in `Prune`.
    """

    sparsity: Share = 0.7
    rounds: Annotated[int, Meta(ge=1, le=50)] = 3
    rewind: Literal["given", "early"] = "given"
    epochs: Epochs = 2
    learning_rate: Rate = 5e-4

    def __str__(self) -> str:
        return (
            f"lottery ticket: {self.rounds} rounds of {self.epochs} epochs to "
            f"{self.sparsity:.0%} zeros, rewound to the {self.rewind} weights "
            f"(Adam, {self.learning_rate:g})"
        )


class CutChannels(msgspec.Struct, frozen=True, tag="cut-channels"):
    """Structured pruning: whole channels and units leave, so that memory and time shrink too.

    Attributes:
        share: of the channels of every layer that may be cut, least important (L1) first.
        epochs, learning_rate: as in `Prune`.
    """

    share: Share = 0.25
    epochs: Epochs = 4
    learning_rate: Rate = 1e-3

    def __str__(self) -> str:
        return f"cut {self.share:.0%} of channels, {_tuned(self.epochs, self.learning_rate)}"


class Distil(msgspec.Struct, frozen=True, tag="distil"):
    """Distillation: a thinner student of the same shape learns the given model's answers.

    Hinton, Vinyals and Dean 2015; the student begins with weights of its own.

    Attributes:
        width: the student's channels and units, as a share of the teacher's.
        temperature: by which both are softened (classes only).
        epochs, learning_rate: as in `Prune`.
    """

    width: Share = 0.5
    temperature: Annotated[float, Meta(ge=1, le=50)] = 3.0
    epochs: Epochs = 20
    learning_rate: Rate = 2e-3

    def __str__(self) -> str:
        return (
            f"distil into a student of {self.width:.0%} width (temperature {self.temperature:g}), "
            f"{self.epochs} epochs (Adam, {self.learning_rate:g})"
        )


class Factorise(msgspec.Struct, frozen=True, tag="factorise"):
    """Low rank: a dense or pointwise layer becomes two thin ones, where that is fewer weights.

    Attributes:
        energy: share of the squared singular values that is kept.
        epochs, learning_rate: as in `Prune`.
    """

    energy: Share = 0.9
    epochs: Epochs = 3
    learning_rate: Rate = 5e-4

    def __str__(self) -> str:
        return (
            f"factorise dense and pointwise layers to {self.energy:.0%} of their energy, "
            f"{_tuned(self.epochs, self.learning_rate)}"
        )


class ReduceInputs(msgspec.Struct, frozen=True, tag="reduce-inputs"):
    """Principal components of the training rows in place of the columns; the device projects.

    Attributes:
        variance: share of the rows' variance that is kept.
        epochs, learning_rate: as in `Prune`.
    """

    variance: Share = 0.98
    epochs: Epochs = 6
    learning_rate: Rate = 1e-3

    def __str__(self) -> str:
        return (
            f"reduce the inputs to principal components with {self.variance:.1%} of the variance, "
            f"{_tuned(self.epochs, self.learning_rate)}"
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
            f"cluster weights to {self.clusters} values a layer{kept}, "
            f"{_tuned(self.epochs, self.learning_rate)}"
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


class Build(msgspec.Struct, frozen=True, tag="build"):
    """A model of the user's own architecture, taught by the given one (and the truth).

    Attributes:
        function: `module:function` that is given hyperparameters and gives a Keras model.
        values: of the hyperparameters, as words; others have their defaults.
        epochs, learning_rate: as in `Prune`.
    """

    function: str
    values: tuple[tuple[str, str], ...] = ()
    epochs: Epochs = 20
    learning_rate: Rate = 2e-3

    def __str__(self) -> str:
        said = ", ".join(f"{name} {value}" for name, value in self.values) or "defaults"
        return (
            f"build {self.function} ({said}), taught by the given model in {self.epochs} epochs "
            f"(Adam, {self.learning_rate:g})"
        )


class Quantise(msgspec.Struct, frozen=True, tag="quantise"):
    """Turn the model into TFLite at a precision.

    Attributes:
        ranges: how activations take their ranges from the calibration rows: all values; without
            the 0.1 % at each end; or those with the least squared error of rounding.
        io: what a model of integers takes and gives.
    """

    precision: Target
    ranges: Ranges = "min-max"
    io: Literal["integer", "float"] = "integer"

    def __str__(self) -> str:
        kind = "int16" if self.precision == "int16x8" else "int8"
        ends = f"({self.ranges}), {kind if self.io == 'integer' else 'float'} in and out"
        return {
            "float32": "convert to TFLite in float32",
            "float16": "convert to TFLite with float16 weights",
            "dynamic-range": "quantise weights to int8, activations while running",
            "int8": f"quantise weights and activations to int8 {ends}",
            "int16x8": f"quantise weights to int8, activations to int16 {ends}",
        }[self.precision]


class WeightOnly(msgspec.Struct, frozen=True, tag="weight-only"):
    """Small integer weights that are turned into floats before use: for size, not for speed."""

    bits: Literal[4, 8] = 8

    def __str__(self) -> str:
        return f"quantise weights alone to int{self.bits}"


class Mix(msgspec.Struct, frozen=True, tag="mix"):
    """Each layer as low as the model bears: those that change its answers most stay higher.

    Layers are tried one by one on calibration rows, then lowered in the order of harm per byte
    saved, for as long as few rows get another answer than from the float model.

    Attributes:
        bits: of the lowered layers' weights; the others stay at int8 (4) or in float (8).
            Activations are int8, but those of float layers.
        changed: share of calibration rows that may get another answer.
    """

    bits: Literal[4, 8] = 4
    changed: Share = 0.05

    def __str__(self) -> str:
        low, high = ("int4", "int8") if self.bits == 4 else ("int8", "float")
        return (
            f"quantise to int8 (min-max), weights of layers that bear it to {low}, others {high}: "
            f"at most {self.changed:.1%} of calibration rows change their answer"
        )


Training = (
    Prune
    | Lottery
    | CutChannels
    | Distil
    | Factorise
    | ReduceInputs
    | Cluster
    | TrainQuantised
    | Build
)
Writing = Quantise | WeightOnly | Mix
Step = Training | Writing
