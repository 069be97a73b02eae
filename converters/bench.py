"""Where candidates are made and measured: a loaded model, its rows as files."""

import re
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from converters.accuracy import by_class, by_slice, compare
from converters.edgetpu import fallbacks
from converters.elsewhere import Trial, run_elsewhere
from converters.facts import read_facts
from converters.findings import Elsewhere
from converters.flatbuffer import with_embedding
from converters.foreman import CannotConvertError, Foreman, WorkerDiedError
from converters.gate import Measurement
from converters.measure import Answers, Job, Measured, measure
from converters.order import Inputs, Order
from converters.protocol import Convert, Opened, Score
from converters.recipe import Recipe, why_not
from edge_sdk.bundle import TensorSpec
from edge_sdk.channels import Array, Preprocessing, reconstruction_error
from edge_sdk.errors import InvalidInputError, NotConvertibleError
from edge_sdk.features import Feature
from edge_sdk.interpreter import Scores
from edge_sdk.profiles import Runtime

Progress = Callable[[str], None]


class Made(msgspec.Struct, frozen=True):
    """A candidate that was converted and measured."""

    recipe: Recipe
    model: bytes
    measurement: Measurement
    input: TensorSpec
    output: TensorSpec
    embedding: TensorSpec | None
    preprocessing: Preprocessing
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
        runtimes: of the boards.
        tpu_ops: operators of the Edge TPU, if one of the boards has it.
        float_scores: what the source model itself gives for the held-out rows.
    """

    foreman: Foreman
    folder: Path
    order: Order
    inputs: Inputs
    runtimes: tuple[Runtime, ...]
    tpu_ops: tuple[str, ...]
    labels: tuple[str, ...]
    opened: Opened
    float_scores: Scores

    def lay_out(self) -> None:
        """Write the rows as files into the folder."""
        apply, inputs = self.order.preprocessing.apply, self.inputs
        np.save(self.folder / "held.npy", inputs.rows.held_x)
        np.save(self.folder / "calibration.npy", apply(inputs.rows.calibration))
        if inputs.train is not None:
            np.save(self.folder / "train-x.npy", apply(inputs.train.x))
            np.save(self.folder / "train-y.npy", inputs.train.y)

    def source_answers(self, rows: Array) -> Scores:
        """What the given model itself answers to raw rows (n, *shape)."""
        return answers_of(self.foreman, self.folder, self.order, rows)

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
            done = self.foreman.ask(
                Convert(
                    recipe,
                    str(self.folder / "calibration.npy"),
                    str(self.folder / "train-x.npy"),
                    str(self.folder / "train-y.npy"),
                    str(out),
                    self.order.task,
                    self.order.parallel,
                )
            )
            if self.order.embedding:
                out.write_bytes(with_embedding(out.read_bytes()))
            progress(f"{recipe.name}: measuring")
            return self._measured(recipe, out, done.features, started)
        except WorkerDiedError as died:
            reason = f"the converter {died}"
        except CannotConvertError as error:
            reason = f"can't be converted: {error}"
        except NotConvertibleError as error:
            reason = str(error)
        return Missed(recipe, reason, time.perf_counter() - started)

    def _measured(
        self, recipe: Recipe, path: Path, features: tuple[Feature, ...], started: float
    ) -> Made:
        rows, given = self.inputs.rows, self.order.preprocessing
        preprocessing = msgspec.structs.replace(given, steps=(*given.steps, *features))
        reference = self.folder / "float32.tflite"
        comparable = reference.exists() and reference != path and not features
        job = Job(
            str(path),
            str(self.folder / "held.npy"),
            str(path.with_suffix(".npz")),
            tuple(rows.golden.tolist()),
            preprocessing,
            str(reference) if comparable else "",
            self.order.task,
        )
        found, answers = measure(job)
        trial = Trial(
            path, rows.held_x, answers.scores, found.input, found.output, preprocessing,
            self.order.task,
        )  # fmt: skip
        measurement = self._measurement(path.read_bytes(), found, answers, trial)
        return Made(
            recipe, path.read_bytes(), measurement, found.input, found.output, found.embedding,
            preprocessing, answers, time.perf_counter() - started,
        )  # fmt: skip

    def _measurement(
        self, model: bytes, found: Measured, answers: Answers, trial: Trial
    ) -> Measurement:
        truth, held, task = self.inputs.rows.held_y, self.inputs.rows.held, self.order.task
        both = (truth, self.float_scores, answers.scores)
        return Measurement(
            facts=read_facts(model),
            metrics=compare(*both, self.labels, task),
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
            classes=by_class(*both, self.labels),
            slices=by_slice(*both, held.slices, task),
            elsewhere=self._elsewhere(trial) if found.finite else {},
            fallbacks=fallbacks(model, self.tpu_ops) if self.tpu_ops else (),
        )

    def _elsewhere(self, trial: Trial) -> dict[Runtime, Elsewhere]:
        found = {runtime: run_elsewhere(trial, runtime) for runtime in self.runtimes}
        return {runtime: one for runtime, one in found.items() if one is not None}


def answers_of(foreman: Foreman, folder: Path, order: Order, rows: Array) -> Scores:
    """The source model's own answers to raw rows (n, *shape).

    Raises:
        InvalidInputError: the model does not run on these rows.
    """
    given, out = folder / "source-rows.npy", folder / "source-answers.npy"
    model_inputs = order.preprocessing.apply(rows)
    np.save(given, model_inputs)
    try:
        foreman.ask(Score(str(given), str(out)))
    except (CannotConvertError, WorkerDiedError) as error:
        raise InvalidInputError(f"the model can't be run on the data: {error}") from error
    scores: Scores = np.load(out)
    return reconstruction_error(model_inputs, scores) if order.task == "anomaly" else scores


def score_source(foreman: Foreman, folder: Path, order: Order, rows: Array) -> Scores:
    """The same for the held-out rows, all of which must get numbers.

    Raises:
        InvalidInputError: the model does not run on these rows, or gives NaN.
    """
    scores = answers_of(foreman, folder, order, rows)
    if not np.isfinite(scores).all():
        bad = int((~np.isfinite(scores)).reshape(len(scores), -1).any(axis=1).sum())
        raise InvalidInputError(
            f"the model itself gives NaN or infinite scores for {bad:,} of {len(scores):,} rows: "
            "check its weights and the preprocessing"
        )
    return scores
