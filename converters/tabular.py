"""Rows of a .csv file: numbers in named columns, and a column of classes."""

import csv
import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_sdk.errors import InvalidInputError

CLASS_COLUMNS = ("y", "class", "label", "target")


def read_csv(
    data: bytes, path: Path, *, labelled: bool
) -> tuple[dict[str, NDArray[np.generic]], tuple[str, ...]]:
    """Arrays `x` (n, columns) and, if labelled, `y` (n,); and the names of the columns of `x`.

    Classes are in the column called y, class, label or target, else in the last one.

    Raises:
        InvalidInputError: no header, rows of another length, or a value that is no number.
    """
    try:
        rows = [row for row in csv.reader(io.StringIO(data.decode("utf-8-sig"))) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InvalidInputError(f"{path} is no .csv file in UTF-8: {error}") from error
    if len(rows) < 2:
        raise InvalidInputError(f"{path} has no rows: needed are a header and one line a row")
    header = [name.strip() for name in rows[0]]
    if any(_number(name) is not None for name in header) or len({*header, ""}) <= len(header):
        raise InvalidInputError(f"{path}: the first line must name each column, differently")
    values = np.array(
        [_numbers(row, header, f"{path}: line {i}") for i, row in enumerate(rows[1:], 2)]
    )
    at = _class_column(header, labelled=labelled)
    kept = [i for i in range(len(header)) if i != at]
    with np.errstate(over="ignore"):  # too large for float32 becomes infinite: that is refused
        arrays: dict[str, NDArray[np.generic]] = {"x": values[:, kept].astype(np.float32)}
    if labelled and at is not None:
        if not (values[:, at] == np.rint(values[:, at])).all() or np.isinf(values[:, at]).any():
            raise InvalidInputError(f"{path}: column {header[at]} must hold integer classes from 0")
        arrays["y"] = values[:, at].astype(np.int64)
    return arrays, tuple(header[i] for i in kept)


def _class_column(header: list[str], *, labelled: bool) -> int | None:
    named = [i for i, name in enumerate(header) if name.lower() in CLASS_COLUMNS]
    if named:
        return named[-1]
    return len(header) - 1 if labelled else None


def _numbers(row: list[str], header: list[str], where: str) -> list[float]:
    if len(row) != len(header):
        raise InvalidInputError(f"{where} has {len(row)} values, the header {len(header)}")
    found = [_number(value) for value in row]
    for name, text, value in zip(header, row, found, strict=True):
        if value is None:
            raise InvalidInputError(f"{where}: {name} is {text[:40]!r}, needed is a number")
    return [value for value in found if value is not None]


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
