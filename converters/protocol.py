"""What the converting process and its worker say to each other: one JSON line a message."""

import msgspec

from converters.recipe import Recipe, SourceFacts
from converters.space import Hyper
from edge_sdk.bundle import Task
from edge_sdk.features import Feature


class Open(msgspec.Struct, frozen=True, tag="open"):
    """Load this model file."""

    model: str


class Score(msgspec.Struct, frozen=True, tag="score"):
    """Run the loaded model on the rows of a .npy file, write its scores to another."""

    rows: str
    out: str


class Convert(msgspec.Struct, frozen=True, tag="convert"):
    """Carry out a recipe; rows are files of model inputs (float32), already preprocessed.

    Attributes:
        parallel: whether to train on all devices of the machine (`tf.distribute`).
    """

    recipe: Recipe
    calibration: str
    train_x: str
    train_y: str
    out: str
    task: Task = "classification"
    parallel: bool = False


class Describe(msgspec.Struct, frozen=True, tag="describe"):
    """Ask `module:function`, a user's `build_model(hp)`, for its hyperparameters."""

    function: str


class Opened(msgspec.Struct, frozen=True, tag="opened"):
    """The model is loaded; this is what it is, and with which tools."""

    facts: SourceFacts
    tools: dict[str, str]


class Done(msgspec.Struct, frozen=True, tag="done"):
    """What was asked for is done.

    Attributes:
        features: steps that a converted model's input takes besides the given one's.
        hyper: the hyperparameters asked for.
    """

    features: tuple[Feature, ...] = ()
    hyper: tuple[Hyper, ...] = ()


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """It can't be done, in words; the worker is fine and takes the next request."""

    reason: str


Request = Open | Score | Convert | Describe
Reply = Opened | Done | Failed
