"""What the converting process and its worker say to each other: one JSON line a message."""

import msgspec

from converters.recipe import Recipe, SourceFacts


class Open(msgspec.Struct, frozen=True, tag="open"):
    """Load this model file."""

    model: str


class Score(msgspec.Struct, frozen=True, tag="score"):
    """Run the loaded model on the rows of a .npy file, write its scores to another."""

    rows: str
    out: str


class Convert(msgspec.Struct, frozen=True, tag="convert"):
    """Carry out a recipe; rows are files of model inputs (float32), already preprocessed."""

    recipe: Recipe
    calibration: str
    train_x: str
    train_y: str
    out: str


class Opened(msgspec.Struct, frozen=True, tag="opened"):
    """The model is loaded; this is what it is, and with which tools."""

    facts: SourceFacts
    tools: dict[str, str]


class Done(msgspec.Struct, frozen=True, tag="done"):
    """The file that was asked for is there."""


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """It can't be done, in words; the worker is fine and takes the next request."""

    reason: str


Request = Open | Score | Convert
Reply = Opened | Done | Failed
