"""One candidate made on its own, by processes of its own, wherever an executor takes it.

A parcel holds everything that is needed, so that it can be sent to another machine.
"""

import io
import tempfile
import zipfile
from pathlib import Path

import msgspec
import numpy as np

from converters.bench import Bench, Made, Missed
from converters.foreman import TFLITE_WORKER, WORKER, Foreman
from converters.order import Inputs, Order
from converters.protocol import Opened
from converters.recipe import Recipe
from edge_sdk.errors import InvalidInputError
from edge_sdk.interpreter import Scores
from edge_sdk.profiles import Runtime


class Parcel(msgspec.Struct, frozen=True, kw_only=True):
    """See `bench.Bench` for its parts.

    Attributes:
        suffix: of the model's file; empty for a folder.
        model: bytes of the file, or a zip of the folder.
    """

    order: Order
    suffix: str
    model: bytes
    inputs: Inputs
    runtimes: tuple[Runtime, ...]
    tpu_ops: tuple[str, ...]
    labels: tuple[str, ...]
    opened: Opened
    float_scores: Scores


def parcel(bench: Bench) -> Parcel:
    """Everything that a bench has but its worker."""
    model = bench.order.model
    return Parcel(
        order=bench.order,
        suffix=model.suffix if model.is_file() else "",
        model=model.read_bytes() if model.is_file() else _zipped(model),
        inputs=bench.inputs,
        runtimes=bench.runtimes,
        tpu_ops=bench.tpu_ops,
        labels=bench.labels,
        opened=bench.opened,
        float_scores=bench.float_scores,
    )


def attempt(given: Parcel, recipe: Recipe) -> Made | Missed:
    """Make and measure one candidate; what kills its processes is told and costs nothing else."""
    with tempfile.TemporaryDirectory(prefix="edge-candidate-") as name:
        folder = Path(name)
        model = _unpacked(given, folder)
        worker = TFLITE_WORKER if given.suffix == ".tflite" else WORKER
        memory = given.order.memory
        with Foreman(model, folder / "worker.log", worker, memory=memory) as foreman:
            bench = Bench(
                foreman=foreman,
                folder=folder,
                order=given.order,
                inputs=given.inputs,
                runtimes=given.runtimes,
                tpu_ops=given.tpu_ops,
                labels=given.labels,
                opened=given.opened,
                float_scores=given.float_scores,
            )
            bench.lay_out()
            try:
                return bench.attempt(recipe, lambda _step: None)
            except InvalidInputError as error:  # the model was read before, but not here
                return Missed(recipe, str(error), 0.0)


def _unpacked(given: Parcel, folder: Path) -> Path:
    model = folder / f"model{given.suffix}"
    if given.suffix:
        model.write_bytes(given.model)
    else:
        with zipfile.ZipFile(io.BytesIO(given.model)) as packed:
            packed.extractall(model)
    return model


def _zipped(folder: Path) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as made:
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            made.write(path, path.relative_to(folder).as_posix())
    return out.getvalue()


def quality(one: Made) -> tuple[int, float]:
    """What a search looks for: few compressed bytes and a small drop."""
    drop = one.measurement.metrics.drop
    return one.measurement.compressed_bytes, float(np.round(drop, 9))
