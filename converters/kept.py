"""Candidates kept in a folder, so that an interrupted search goes on where it was.

A candidate is three files, named by a digest of the recipe and of all that it was made from.
"""

import hashlib
import zipfile
from pathlib import Path

import msgspec
import numpy as np

from converters.bench import Made, Missed
from converters.gate import Measurement
from converters.measure import Answers
from converters.recipe import Recipe
from edge_sdk.bundle import TensorSpec
from edge_sdk.channels import Preprocessing
from edge_sdk.errors import FormatError, InvalidInputError
from edge_sdk.files import write_atomic
from edge_sdk.formats import from_json, to_json


class _Words(msgspec.Struct, frozen=True, kw_only=True):
    """What is known about a candidate beside its model and its answers."""

    format: int = 1
    recipe: Recipe
    seconds: float
    reason: str = ""
    measurement: Measurement | None = None
    input: TensorSpec | None = None
    output: TensorSpec | None = None
    embedding: TensorSpec | None = None
    preprocessing: Preprocessing = Preprocessing()


class Kept:
    """A folder of candidates.

    Args:
        folder: made if it is not there.
        source: digest of everything that candidates are made from.
    """

    def __init__(self, folder: Path, source: str) -> None:
        self.folder, self._source = folder, source
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InvalidInputError(f"{folder} can't be made: {error.strerror}") from error

    def load(self, recipe: Recipe) -> Made | Missed | None:
        """The candidate, if it was kept whole."""
        path = self._path(recipe)
        if not path.exists():
            return None
        try:
            words = from_json(_Words, path.read_bytes(), str(path))
            if words.measurement is None or words.input is None or words.output is None:
                return Missed(recipe, words.reason, words.seconds)
            with np.load(path.with_suffix(".npz"), allow_pickle=False) as found:
                golden = {"xnnpack": found["xnnpack"], "builtin": found["builtin"]}
                answers = Answers(found["scores"], golden)  # type: ignore[arg-type]
            model = path.with_suffix(".tflite").read_bytes()
        except (FormatError, OSError, KeyError, ValueError, zipfile.BadZipFile):
            return None  # cut off while it was written: it is made again
        return Made(
            recipe, model, words.measurement, words.input, words.output, words.embedding,
            words.preprocessing, answers, words.seconds,
        )  # fmt: skip

    def save(self, one: Made | Missed) -> None:
        """Keep a candidate; its .json comes last, so that what has one is whole."""
        path = self._path(one.recipe)
        if isinstance(one, Missed):
            words = _Words(recipe=one.recipe, seconds=one.seconds, reason=one.reason)
        else:
            write_atomic(path.with_suffix(".tflite"), one.model)
            with path.with_suffix(".npz").open("wb") as file:
                golden = one.answers.golden
                np.savez(
                    file, scores=one.answers.scores, xnnpack=golden["xnnpack"],
                    builtin=golden["builtin"],
                )  # fmt: skip
            words = _Words(
                recipe=one.recipe,
                seconds=one.seconds,
                measurement=one.measurement,
                input=one.input,
                output=one.output,
                embedding=one.embedding,
                preprocessing=one.preprocessing,
            )
        write_atomic(path, to_json(words))

    def _path(self, recipe: Recipe) -> Path:
        said = f"{self._source}\n{msgspec.json.encode(recipe).decode()}"
        return self.folder / f"{hashlib.sha256(said.encode()).hexdigest()[:24]}.json"
