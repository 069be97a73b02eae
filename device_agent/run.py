"""`edge run`: a model over a file or a folder, each row once, as fast as it goes."""

import statistics
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from time import perf_counter

import click
import msgspec
import numpy as np

from device_agent import media
from device_agent.inputs import FILES, Pictures, Sound, Spec
from device_agent.sources import read_rows
from edge_sdk.bundle import MODEL, Manifest, Member, contents, read_manifest, unpack
from edge_sdk.channels import (
    Array,
    InputSchema,
    Preprocessing,
    of_classes,
    real_answers,
    schema_skew,
)
from edge_sdk.errors import CorruptBundleError, InvalidInputError, RefusedError
from edge_sdk.files import sha256
from edge_sdk.interpreter import LiteRt, run
from edge_sdk.signing import PublicKey

FILE = click.Path(path_type=Path, exists=True, dir_okay=False)
OUT = click.Path(path_type=Path, dir_okay=False)
SUFFIXES = {".npz": "npz", ".csv": "csv", ".wav": "wav"}


class Line(msgspec.Struct, frozen=True, omit_defaults=True):
    """One answer on stdout."""

    name: str
    label: str = ""
    confidence: float = 0.0
    skew: str = ""
    error: str = ""
    scores: list[float] = []
    values: list[float] = []  # of a model that gives numbers and no classes


class Summary(msgspec.Struct, frozen=True):
    """What `--json` prints last; milliseconds of one row, preprocessing included."""

    rows: int
    answered: int
    errors: int
    seconds: float
    rows_per_second: float
    median_ms: float
    p99_ms: float
    runtime: str


@click.command("run")
@click.argument("file", type=FILE)
@click.option("--input", "line", required=True, help="File, folder, or e.g. wav:FILE?hop=8000.")
@click.option("--key", type=FILE, help="Public key (.pub) that must have signed the bundle.")
@click.option("--output", type=OUT, help="For the answers, JSON lines.")
@click.option("--limit", type=click.IntRange(min=1), help="Rows at most.")
@click.option("--threads", type=click.IntRange(1, 64), default=1, show_default=True)
@click.option("--scores", is_flag=True, help="Each class's score, too.")
@click.option("--json", "as_json", is_flag=True, help="The summary as one JSON object on stderr.")
def run_file(  # noqa: PLR0913 - one argument an option
    file: Path,
    line: str,
    key: Path | None,
    output: Path | None,
    limit: int | None,
    threads: int,
    *,
    scores: bool,
    as_json: bool,
) -> None:
    """Run the bundle or .tflite FILE over --input, each row once; answers go to stdout.

    Exit 3 if no row could be answered.
    """
    interpreter, manifest = _load(file, key, threads)
    count, rows = each_row(line, manifest.input if manifest else None)
    total = min(count, limit or count)
    taken: list[float] = []
    errors, begun = 0, perf_counter()
    with (
        click.open_file(str(output) if output else "-", "w") as out,
        click.progressbar(
            islice(rows, total), total, file=sys.stderr, hidden=not sys.stderr.isatty()
        ) as shown,
    ):
        for name, row in shown:
            start = perf_counter()
            answer = _answer(interpreter, manifest, name, row, scores=scores)
            if answer.error:
                errors += 1
            else:
                taken.append((perf_counter() - start) * 1000)
            out.write(msgspec.json.encode(answer).decode() + "\n")
    seconds = perf_counter() - begun
    found = Summary(
        rows=len(taken) + errors,
        answered=len(taken),
        errors=errors,
        seconds=round(seconds, 3),
        rows_per_second=round(len(taken) / seconds, 1),
        median_ms=round(statistics.median(taken), 4) if taken else 0.0,
        p99_ms=round(float(np.quantile(taken, 0.99)), 4) if taken else 0.0,
        runtime=interpreter.description,
    )
    click.echo(_in_words(found) if not as_json else msgspec.json.encode(found).decode(), err=True)
    if not taken:
        raise RefusedError(f"none of {errors} rows could be answered")


def each_row(line: str, schema: InputSchema | None) -> tuple[int, Iterator[tuple[str, Array]]]:
    """How many rows a recording has, and each once with its name; raises InvalidInputError.

    Pictures are brought to the size that `schema` has, unless the line names another.
    """
    path = Path(line)
    if path.suffix.lower() in media.PICTURES:
        return 1, iter([(path.name, media.read_picture(path, _look(Pictures(), schema)))])
    spec = Spec.parse(line) if line.partition(":")[0] in FILES else _guess(path)
    path = Path(spec.where)
    if spec.kind == "folder":
        look = _look(spec.options_as(Pictures), schema)
        found = media.Pictures(path, look).paths
        return len(found), ((p.name, media.read_picture(p, look)) for p in found)
    if spec.kind == "wav":
        sound = spec.options_as(Sound)
        rows = media.Recording(path, sound.window, sound.hop or sound.window).windows
    else:
        rows = read_rows(path) if spec.kind == "npz" else media.read_csv(path)
    return len(rows), ((str(index), row) for index, row in enumerate(rows))


def _look(options: Pictures, schema: InputSchema | None) -> media.Look:
    if options.size or schema is None or schema.kind != "image":
        return options.look
    height, width = schema.shape[:2]
    return media.Look(width, height, schema.shape[2] if len(schema.shape) > 2 else 1)


def _guess(path: Path) -> Spec:
    if path.is_dir():
        return Spec("folder", str(path))
    if kind := SUFFIXES.get(path.suffix.lower()):
        return Spec(kind, str(path))
    raise InvalidInputError(
        f"--input {path}: give a folder of pictures, or a file that ends in "
        f"{', '.join(sorted([*SUFFIXES, *media.PICTURES]))}"
    )


def _load(file: Path, key: Path | None, threads: int) -> tuple[LiteRt, Manifest | None]:
    data = file.read_bytes()
    if data[4:8] == b"TFL3":
        return LiteRt(data, Preprocessing(), threads=threads), None
    if key is not None:
        bundle = unpack(data, [PublicKey.load(key)])
        manifest, model = bundle.manifest, bundle.model
    else:
        manifest, model = read_manifest(data), contents(data).get(MODEL, b"")
        if manifest.members.get(MODEL, Member("", 0)).sha256 != sha256(model):
            raise CorruptBundleError(f"{file}: {MODEL} is not what the manifest lists")
    reconstructs = manifest.reconstructs
    made = LiteRt(model, manifest.preprocessing, threads=threads, reconstructs=reconstructs)
    return made, manifest


def _answer(
    interpreter: LiteRt, manifest: Manifest | None, name: str, row: Array, *, scores: bool
) -> Line:
    skew = schema_skew(manifest.input, row) if manifest else None
    try:
        given = run(interpreter, row)
    except (ValueError, RuntimeError, InvalidInputError) as error:
        return Line(name, skew=skew or "", error=str(error).splitlines()[0])
    kind = manifest.scores if manifest else "values"
    answer = real_answers(given[np.newaxis], kind)[0]
    listed = [round(float(value), 6) for value in answer]
    if manifest and not of_classes(kind):
        return Line(name, skew=skew or "", values=listed)
    best = int(answer.argmax())
    return Line(
        name,
        manifest.labels[best] if manifest else str(best),
        listed[best],
        skew or "",
        scores=listed if scores else [],
    )


def _in_words(found: Summary) -> str:
    failed = f", {found.errors} failed" if found.errors else ""
    return (
        f"{found.answered} rows answered{failed} in {found.seconds:.1f} s by {found.runtime}: "
        f"{found.rows_per_second:,.0f} a second, {found.median_ms:.3g} ms each (median), "
        f"{found.p99_ms:.3g} ms at 99 %"
    )
