"""Tables in plain text, one row a line."""

import time
from collections.abc import Sequence
from datetime import datetime

from edge_sdk.errors import InvalidInputError


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest cell; the last one is not padded.

    >>> print(table(["DEVICE", "ROWS"], [["pi-7", "12"]]))
    DEVICE  ROWS
    pi-7    12
    """
    lines = [list(head), *(list(row) for row in rows)]
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(f"{cell:{width}}" for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def moment(at: float) -> str:
    """Unix seconds as a local date and time."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def read_moment(text: str) -> float:
    """Unix seconds of a local date and time, or of Unix seconds.

    Raises:
        InvalidInputError: it is neither.

    >>> read_moment("1800000000")
    1800000000.0
    """
    try:
        return float(text)
    except ValueError:
        pass
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError as error:
        raise InvalidInputError(
            f"time {text[:40]!r} must look like 2026-01-31T12:00, or be Unix seconds"
        ) from error


def ago(seconds: float | None) -> str:
    """A time span in one unit.

    >>> ago(7.4), ago(90), ago(7200), ago(None)
    ('7 s', '1 min', '2 h', '-')
    """
    if seconds is None:
        return "-"
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds // size:.0f} {unit}"
    return f"{seconds:.0f} s"
