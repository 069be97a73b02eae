"""Where candidates are made and measured: a loaded model, its rows as files."""

import re
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from converters.accuracy import by_class, compare
from converters.facts import read_facts
from converters.foreman import CannotConvertError, Foreman, WorkerDiedError
from converters.gate import Measurement
from converters.measure import Answers, Job, measure
from converters.order import Inputs
from converters.protocol import Convert, Opened, Score
from converters.recipe import Recipe, why_not
from edge_sdk.bundle import TensorSpec
from edge_sdk.channels import Preprocessing
from edge_sdk.errors import InvalidInputError, NotConvertibleError
from edge_sdk.interpreter import Scores

Progress = Callable[[str], None]


class Made(msgspec.Struct, frozen=True):
    """A candidate that was converted and measured."""

    recipe: Recipe
    model: bytes
    measurement: Measurement
    input: TensorSpec
    output: TensorSpec
    answers: Answers
    seconds: float


class Missed(msgspec.Struct, frozen=True):
    """A recipe that gave no model, and why."""

    recipe: Recipe
    reason: str
    seconds: float


@dataclass(frozen=True)
class Bench:
    """One run's model and rows.

    Attributes:
        float_scores: what the source model itself gives for the held-out rows.
    """

    foreman: Foreman
    folder: Path
    inputs: Inputs
    labels: tuple[str, ...]
    preprocessing: Preprocessing
    opened: Opened
    float_scores: Scores

    def attempt(self, recipe: Recipe, progress: Progress) -> Made | Missed:
        """Carry out one recipe and measure what comes out."""
        started = time.perf_counter()
        train_rows = 0 if self.inputs.train is None else len(self.inputs.train.x)
        reason = why_not(recipe, self.opened.facts, train_rows=train_rows)
        if reason is not None:
            return Missed(recipe, reason, 0.0)
        out = self.folder / f"{re.sub('[^a-z0-9.]+', '-', recipe.name)}.tflite"
        progress(f"{recipe.name}: converting")
        try:
            self.foreman.ask(
                Convert(
                    recipe,
                    str(self.folder / "calibration.npy"),
                    str(self.folder / "train-x.npy"),
                    str(self.folder / "train-y.npy"),
                    str(out),
                )
            )
            progress(f"{recipe.name}: measuring")
            return self._measured(recipe, out, started)
        except WorkerDiedError as died:
            reason = f"the converter {died}"
        except CannotConvertError as error:
            reason = f"can't be converted: {error}"
        except NotConvertibleError as error:
            reason = str(error)
        return Missed(recipe, reason, time.perf_counter() - started)

    def _measured(self, recipe: Recipe, path: Path, started: float) -> Made:
        rows = self.inputs.rows
        reference = self.folder / "float32.tflite"
        job = Job(
            str(path),
            str(self.folder / "held.npy"),
            str(path.with_suffix(".npz")),
            tuple(rows.golden.tolist()),
            self.preprocessing,
            str(reference) if reference.exists() and reference != path else "",
        )
        found, answers = measure(job)
        model = path.read_bytes()
        measurement = Measurement(
            facts=read_facts(model),
            metrics=compare(rows.held_y, self.float_scores, answers.scores, self.labels),
            model_bytes=len(model),
            compressed_bytes=len(zlib.compress(model, 9)),
            host_ms_p50=found.ms_p50,
            host_ms_p90=found.ms_p90,
            host_runs=found.runs,
            host_peak_bytes=found.peak_bytes,
            kernel_agreement=found.kernel_agreement,
            kernel_difference=found.kernel_difference,
            finite=found.finite,
            worst_layers=found.worst_layers,
            classes=by_class(rows.held_y, self.float_scores, answers.scores, self.labels),
        )
        seconds = time.perf_counter() - started
        return Made(recipe, model, measurement, found.input, found.output, answers, seconds)


def score_source(
    foreman: Foreman, folder: Path, inputs: Inputs, preprocessing: Preprocessing
) -> Scores:
    """The source model's own scores of the held-out rows; leaves all rows as files in `folder`.

    Raises:
        InvalidInputError: the model does not run on these rows, or gives NaN.
    """
    np.save(folder / "held.npy", inputs.rows.held_x)
    np.save(folder / "calibration.npy", preprocessing.apply(inputs.rows.calibration))
    if inputs.train is not None:
        np.save(folder / "train-x.npy", preprocessing.apply(inputs.train.x))
        np.save(folder / "train-y.npy", inputs.train.y)
    model_inputs, out = folder / "held-inputs.npy", folder / "float.npy"
    np.save(model_inputs, preprocessing.apply(inputs.rows.held_x))
    try:
        foreman.ask(Score(str(model_inputs), str(out)))
    except (CannotConvertError, WorkerDiedError) as error:
        raise InvalidInputError(f"the model can't be run on the data: {error}") from error
    scores: Scores = np.load(out)
    if not np.isfinite(scores).all():
        bad = int((~np.isfinite(scores)).any(axis=1).sum())
        raise InvalidInputError(
            f"the model itself gives NaN or infinite scores for {bad:,} of {len(scores):,} rows: "
            "check its weights and the preprocessing"
        )
    return scores
