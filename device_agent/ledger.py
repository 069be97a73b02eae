"""What may be read of an outbox that an agent has in use: what waits, and all that ever left.

The ledger counts every byte handed to the network, by day and kind, and lists each sampled row.
"""

import sqlite3
from pathlib import Path

import msgspec


def size(path: Path) -> tuple[int, int]:
    """Messages and bytes waiting in an outbox that may be in use; (0, 0) if there is none."""
    if not path.exists():
        return 0, 0
    try:
        return _size(path, "mode=ro")
    except sqlite3.OperationalError:  # WAL needs to write; on a read-only disk nobody else does
        return _size(path, "immutable=1")


def _size(path: Path, how: str) -> tuple[int, int]:
    database = sqlite3.connect(f"{path.absolute().as_uri()}?{how}", uri=True)
    try:
        sql = "SELECT count(*), coalesce(sum(length(body)), 0) FROM message"
        count, total = database.execute(sql).fetchone()
    finally:
        database.close()
    return int(count), int(total)


class Left(msgspec.Struct, frozen=True):
    """What left the device on one day (UTC) of one kind, repetitions included."""

    day: str
    kind: str
    messages: int
    bytes: int


class SampleLeft(msgspec.Struct, frozen=True):
    """One row, or the answer to one, that left or waits to; `bytes` of raw data."""

    wall: float
    id: str
    command: int
    policy: str
    model: str
    bytes: int
    transforms: str


def egress(path: Path) -> tuple[list[Left], list[SampleLeft]]:
    """The ledger of an outbox that may be in use, newest last; empty if there is none."""
    if not path.exists():
        return [], []
    database = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
    try:
        days = database.execute("SELECT * FROM egress ORDER BY day, kind").fetchall()
        samples = database.execute("SELECT * FROM sample ORDER BY wall").fetchall()
    finally:
        database.close()
    return [Left(*row) for row in days], [SampleLeft(*row) for row in samples]
