"""`edge drift expect|export|tfdv`: windows in the words of other tools."""

from pathlib import Path

import click

from edge_sdk.bundle import BASELINE, contents
from edge_sdk.errors import EdgeError, FormatError, InvalidInputError, RefusedError
from edge_sdk.formats import from_json
from edge_sdk.sketch import Baseline, Sketch
from fleet_server import tfdv
from fleet_server.cli.asking import asks, show
from fleet_server.cli.drift import HOURS, drift
from fleet_server.cli.table import table
from fleet_server.client import Client
from fleet_server.expectations import judge, read_suite
from fleet_server.rollups import together
from fleet_server.warehouse import write_parquet

_FILE = click.Path(path_type=Path, dir_okay=False)


@drift.command()
@click.argument("model")
@click.argument("suite", type=_FILE)
@HOURS
@asks
def expect(client: Client, model: str, suite: Path, hours: float, *, as_json: bool) -> None:
    """Hold MODEL's windows against a SUITE: Great Expectations' JSON or TFDV's schema.pbtxt.

    Ends with 3 if an expectation does not hold.
    """
    text = _read(suite)
    wanted = tfdv.read_schema(text) if suite.suffix == ".pbtxt" else read_suite(text.encode())
    baseline, seen, _ = _seen(client, model, hours)
    verdicts = judge(wanted, baseline.channels, seen)
    cells = [
        ["holds" if v.success else "FAILS", v.column, v.expectation, v.observed] for v in verdicts
    ]
    show(verdicts, table(["VERDICT", "COLUMN", "EXPECTATION", "SEEN"], cells), as_json=as_json)
    failed = [v for v in verdicts if not v.success]
    if failed:
        raise RefusedError(f"{len(failed)} of {len(verdicts)} expectations do not hold")


@drift.command()
@click.argument("model")
@HOURS
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True)
@asks
def export(client: Client, model: str, hours: float, out: Path, *, as_json: bool) -> None:
    """MODEL's windows, summed by hour or day, as Parquet files in the folder OUT."""
    paths = write_parquet(client.sums(model, hours), out)
    show([str(p) for p in paths], "\n".join(str(p) for p in paths), as_json=as_json)


@drift.command(name="tfdv")
@click.argument("model")
@HOURS
@click.option("--schema", type=_FILE, help="Write a TFDV schema there (.pbtxt).")
@click.option("--statistics", type=_FILE, help="Write TFDV statistics there (.pbtxt).")
@click.option("--against", type=_FILE, help="Compare with these TFDV statistics (.pbtxt).")
@asks
def tfdv_files(  # noqa: PLR0913 - one argument an option
    client: Client, model: str, hours: float, schema: Path | None, statistics: Path | None,
    against: Path | None, *, as_json: bool,
) -> None:  # fmt: skip
    """TensorFlow Data Validation's schema and statistics of MODEL's inputs."""
    if not (schema or statistics or against):
        raise InvalidInputError("say what is wanted: --schema, --statistics or --against")
    baseline, seen, rows = _seen(client, model, hours)
    if schema:
        schema.write_text(tfdv.schema_text(baseline.channels, seen))
    if statistics:
        statistics.write_text(tfdv.statistics_text(model, rows, baseline.channels, seen))
    other = tfdv.read_statistics(_read(against)) if against else {}
    cells = [
        [name, f"{old.mean:.4g}", f"{seen[name].mean:.4g}", _shift(old, seen[name])]
        for name, old in sorted(other.items())
        if name in seen and old.rows
    ]
    files = [str(path) for path in (schema, statistics) if path]
    words = [*files, table(["CHANNEL", "THERE", "HERE", "SHIFT SD"], cells)] if against else files
    show({"files": files, "compared": cells}, "\n".join(words), as_json=as_json)


def _shift(old: Sketch, new: Sketch) -> str:
    spread = old.variance**0.5
    return f"{(new.mean - old.mean) / spread:+z.2f}" if spread else "-"


def _seen(client: Client, model: str, hours: float) -> tuple[Baseline, dict[str, Sketch], int]:
    """The baseline of the bundle that answered most rows, what its devices saw, and the rows."""
    parts = client.sums(model, hours)
    rows: dict[str, int] = {}
    for part in parts:
        rows[part.digest] = rows.get(part.digest, 0) + part.sums.rows
    if not rows:
        raise EdgeError(f"{model} has no windows in the last {hours:.0f} hours")
    digest = max(rows, key=lambda one: rows[one])
    data = contents(client.bundle(digest))[BASELINE]
    whole = together([part.sums for part in parts if part.digest == digest])
    return from_json(Baseline, data, BASELINE), whole.channels, whole.rows


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError as error:
        raise InvalidInputError(f"{path} can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise FormatError(f"{path} is no UTF-8 text: {error}") from error
