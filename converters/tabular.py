"""Rows of a .csv file: numbers in named columns, a column of classes or targets, and others."""

import csv
import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_sdk.errors import InvalidInputError

CLASS_COLUMNS = ("y", "class", "label", "target")
Arrays = dict[str, NDArray[np.generic]]


def read_csv(
    data: bytes, path: Path, *, labelled: bool, slices: tuple[str, ...] = (), numbers: bool = False
) -> tuple[Arrays, tuple[str, ...]]:
    """Arrays `x` (n, columns) and, if labelled, `y` (n,); and the names of the columns of `x`.

    Classes are in the column called y, class, label or target, else in the last one. The columns
    named in `slices` are no input: they come as arrays of words (n,) by their own names.

    Args:
        data: of the file.
        path: of it, for messages.
        labelled: whether there is a column of classes.
        slices: names of columns that tell kinds of rows apart.
        numbers: whether `y` holds any numbers (targets) and not classes.

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
    words = {name: _words(rows, header, name, path) for name in slices if name in header}
    numeric = [i for i, name in enumerate(header) if name not in words]
    names = [header[i] for i in numeric]
    values = np.array([
        _numbers(row, header, numeric, f"{path}: line {i}") for i, row in enumerate(rows[1:], 2)
    ])  # fmt: skip
    at = _class_column(names, labelled=labelled)
    kept = [i for i in range(len(names)) if i != at]
    with np.errstate(over="ignore"):  # too large for float32 becomes infinite: that is refused
        arrays: Arrays = {"x": values[:, kept].astype(np.float32), **words}
    if labelled and at is not None:
        arrays["y"] = values[:, at] if numbers else _classes(values[:, at], names[at], path)
    return arrays, tuple(names[i] for i in kept)


def _classes(values: NDArray[np.float64], name: str, path: Path) -> NDArray[np.int64]:
    if not (values == np.rint(values)).all() or np.isinf(values).any():
        raise InvalidInputError(f"{path}: column {name} must hold integer classes from 0")
    return values.astype(np.int64)


def _words(rows: list[list[str]], header: list[str], name: str, path: Path) -> NDArray[np.str_]:
    at = header.index(name)
    short = next((i for i, row in enumerate(rows[1:], 2) if len(row) != len(header)), None)
    if short is not None:
        raise InvalidInputError(
            f"{path}: line {short} has {len(rows[short - 1])} values, the header {len(header)}"
        )
    return np.array([row[at].strip() for row in rows[1:]])


def _class_column(header: list[str], *, labelled: bool) -> int | None:
    named = [i for i, name in enumerate(header) if name.lower() in CLASS_COLUMNS]
    if named:
        return named[-1]
    return len(header) - 1 if labelled else None


def _numbers(row: list[str], header: list[str], numeric: list[int], where: str) -> list[float]:
    if len(row) != len(header):
        raise InvalidInputError(f"{where} has {len(row)} values, the header {len(header)}")
    found = {header[i]: (row[i], _number(row[i])) for i in numeric}
    for name, (text, value) in found.items():
        if value is None:
            raise InvalidInputError(f"{where}: {name} is {text[:40]!r}, needed is a number")
    return [value for _, value in found.values() if value is not None]


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
