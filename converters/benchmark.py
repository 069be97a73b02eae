"""`edge benchmark`: how fast models really are on this machine, side by side.

What devices of the fleet measured comes from the server; a profile's figure is an estimate.
"""

import tempfile
from pathlib import Path

import click
import msgspec
import numpy as np

from converters.dataset import read
from converters.measure import Job, measure
from converters.result import Host, this_host
from converters.verify import Subject, subject
from edge_sdk.channels import Array, Preprocessing
from edge_sdk.errors import InvalidInputError
from edge_sdk.formats import to_json
from edge_sdk.interpreter import LiteRt

_ROWS, _MOST, _SEED = 64, 200, 1


class Timed(msgspec.Struct, frozen=True, kw_only=True):
    """One model; see `gate.Measurement` for the figures."""

    file: str
    bytes: int
    ms_p50: float
    ms_p90: float
    runs: int
    peak_bytes: int
    kernel_agreement: float


class Benchmark(msgspec.Struct, frozen=True, kw_only=True):
    """All of them; `fastest` is null where the slow tenth of the first reaches another's median."""

    format: int = 1
    models: tuple[Timed, ...]
    fastest: str | None
    host: Host


def timed(path: Path, one: Subject, rows: Array | None) -> Timed:
    """One model measured in a process of its own.

    Args:
        path: of its file, for the answer.
        one: the model.
        rows: raw rows to run; noise where there are none.

    Raises:
        NotConvertibleError: LiteRT does not run it.
        InvalidInputError: rows that do not fit it.
    """
    shape = LiteRt(one.model, Preprocessing()).input.shape[1:]
    how = one.preprocessing
    if rows is None:  # noise is what a model takes, not what a sensor gives
        rows, how = (
            np.random.default_rng(_SEED).random((_ROWS, *shape), np.float32),
            Preprocessing(),
        )
    given = how.apply(rows[:1]).shape[1:]
    if given != shape:
        raise InvalidInputError(f"{path} takes rows of shape {shape}, these have {given}")
    with tempfile.TemporaryDirectory(prefix="edge-benchmark-") as name:
        folder = Path(name)
        (folder / "model.tflite").write_bytes(one.model)
        np.save(folder / "rows.npy", rows[:_MOST])
        model, given_rows, out = (
            str(folder / file) for file in ("model.tflite", "rows.npy", "answers.npz")
        )
        found, _ = measure(Job(model, given_rows, out, (0,), how, task=one.task))
    return Timed(
        file=str(path),
        bytes=len(one.model),
        ms_p50=found.ms_p50,
        ms_p90=found.ms_p90,
        runs=found.runs,
        peak_bytes=found.peak_bytes,
        kernel_agreement=found.kernel_agreement,
    )


def fastest(models: tuple[Timed, ...]) -> str | None:
    """The file that is surely the fastest."""
    first = min(models, key=lambda one: one.ms_p50)
    sure = all(first.ms_p90 < one.ms_p50 for one in models if one is not first)
    return first.file if sure else None


def here(files: tuple[Path, ...], data: Path | None, key: Path | None, *, as_json: bool) -> None:
    """Measure models and print what came out; raises as `timed` and `verify.subject` do."""
    rows = None if data is None else read(data, labelled=False).x
    subjects = [(path, subject(path, Preprocessing(), "classification", key)) for path in files]
    models = tuple(timed(path, one, rows) for path, one in subjects)
    found = Benchmark(models=models, fastest=fastest(models), host=this_host())
    if as_json:
        click.echo(to_json(found), nl=False)
        return
    for one in found.models:
        click.echo(
            f"{one.ms_p50:9.3f} ms p50  {one.ms_p90:9.3f} ms p90  {one.runs:4} runs  "
            f"{one.peak_bytes / 2**20:7.1f} MiB  {one.bytes:11,} bytes  {one.file}"
        )
    if len(models) > 1:
        click.echo(f"fastest: {found.fastest or 'none beyond the noise'}")
