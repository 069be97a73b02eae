"""Roll-ups as Parquet files for a data warehouse, written by DuckDB (extra `duckdb`)."""

import importlib
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from edge_sdk.errors import InvalidInputError
from fleet_server.drift_views import SumsRow

WINDOWS = {
    "start": "TIMESTAMPTZ",
    "model": "VARCHAR",
    "version": "VARCHAR",
    "profile": "VARCHAR",
    "site": "VARCHAR",
    "labels": "VARCHAR",
    "windows": "BIGINT",
    "seconds": "DOUBLE",
    "rows": "BIGINT",
    "errors": "BIGINT",
    "dropped": "BIGINT",
    "skew": "BIGINT",
}
CHANNELS = {
    **{name: WINDOWS[name] for name in ("start", "model", "version", "profile", "site", "labels")},
    "channel": "VARCHAR",
    "rows": "BIGINT",
    "missing": "BIGINT",
    "mean": "DOUBLE",
    "variance": "DOUBLE",
    "low": "DOUBLE",
    "high": "DOUBLE",
    "counts": "BIGINT[]",
}


def write_parquet(rows: Sequence[SumsRow], folder: Path) -> list[Path]:
    """Write windows.parquet (one row a slice and span) and channels.parquet (one a channel of it).

    Raises:
        InvalidInputError: the extra is missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return [
        _write(folder / "windows.parquet", WINDOWS, (_window(row) for row in rows)),
        _write(folder / "channels.parquet", CHANNELS, (c for row in rows for c in _channels(row))),
    ]


def _window(row: SumsRow) -> dict[str, object]:
    sums = row.sums
    numbers = {name: getattr(sums, name) for name in ("windows", "seconds", "rows", "errors")}
    return {**_slice(row), **numbers, "dropped": sums.dropped, "skew": sum(sums.skew.values())}


def _channels(row: SumsRow) -> Iterable[dict[str, object]]:
    for name, sketch in row.sums.channels.items():
        yield {
            **_slice(row),
            "channel": name,
            "rows": sketch.rows,
            "missing": sketch.missing,
            "mean": sketch.mean if sketch.rows else None,
            "variance": sketch.variance if sketch.rows else None,
            "low": sketch.low if sketch.rows else None,
            "high": sketch.high if sketch.rows else None,
            "counts": sketch.counts,
        }


def _slice(row: SumsRow) -> dict[str, object]:
    names = ("model", "version", "profile", "site", "labels")
    return {"start": row.start, **{name: getattr(row, name) for name in names}}


def _write(path: Path, columns: dict[str, str], rows: Iterable[dict[str, object]]) -> Path:
    """By way of a JSON file, which DuckDB reads itself: no row passes its Python side."""
    try:
        duckdb = importlib.import_module("duckdb")
    except ModuleNotFoundError as error:
        raise InvalidInputError(
            "Parquet needs DuckDB: pip install 'edge-deployment-sdk[server,duckdb]'"
        ) from error
    with tempfile.TemporaryDirectory() as folder:
        lines = Path(folder) / "rows.ndjson"
        with lines.open("wb") as file:
            for row in rows:
                file.write(msgspec.json.encode(row) + b"\n")
        given = {**columns, "start": "DOUBLE"}
        kinds = ", ".join(f"'{name}': '{kind}'" for name, kind in given.items())
        chosen = ", ".join(
            "to_timestamp(start) AS start" if name == "start" else f'"{name}"' for name in columns
        )
        query = (
            f"COPY (SELECT {chosen} FROM read_json(?, format='newline_delimited', "  # noqa: S608
            f"columns={{{kinds}}})) TO '{str(path).replace(chr(39), chr(39) * 2)}' (FORMAT parquet)"
        )
        with duckdb.connect() as connection:
            connection.execute(query, [str(lines)])
    return path
