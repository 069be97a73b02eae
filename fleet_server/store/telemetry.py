"""What devices send: numbered streams, windows, events, and messages that were set aside."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from operator import attrgetter
from typing import Any

import msgspec
from sqlalchemy import Connection, Table, bindparam, delete, func, insert, select, tuple_, update
from sqlalchemy.exc import DBAPIError

from edge_sdk.formats import from_msgpack
from edge_sdk.messages import Window
from fleet_server.records import (
    EventRecord,
    NewEvent,
    NewWindow,
    Poison,
    StoredWindow,
    WindowRecord,
)
from fleet_server.rollups import taken_at
from fleet_server.store import tables
from fleet_server.store.database import Database
from fleet_server.streams import Stream

Key = tuple[str, str]  # device, boot
POISON_KEPT = 1000
POISON_BYTES = 4096
_FIELDS = NewWindow.__struct_fields__
_INSERT = (
    f"INSERT INTO windows ({', '.join(_FIELDS)}) VALUES {{}} "  # noqa: S608
    "ON CONFLICT DO NOTHING"
)  # of our own names alone
_MARKS = f"({', '.join('?' * len(_FIELDS))})"
_NAMED = f"({', '.join(f'%({name})s' for name in _FIELDS)})"
_BINARY = {str: "text", int: "int8", float: "float8", bytes: "bytea"}  # PostgreSQL's names
ROWS = 500  # a statement: SQLite lets go of the interpreter once a statement, not once a row
_columns = attrgetter(*_FIELDS)
_COPY = f"COPY windows ({', '.join(_FIELDS)}) FROM STDIN (FORMAT BINARY)"
NUMBERS = [tables.windows.c[name] for name in WindowRecord.__struct_fields__]


class Telemetry(Database):
    """The upward half of the database."""

    def streams(self, keys: Sequence[Key]) -> dict[Key, tuple[int, Stream]]:
        """The streams of these boots, each with its place in the order of first contact.

        A boot heard of for the first time gets its place now.
        """
        if not keys:
            return {}
        table = tables.streams
        fresh = [
            {"device": device, "boot": boot, "contiguous": 0, "ahead": b"\x90"}
            for device, boot in keys
        ]
        with self._write() as c:
            c.execute(self._upsert(table).on_conflict_do_nothing(), fresh)
            rows = c.execute(select(table).where(tuple_(table.c.device, table.c.boot).in_(keys)))
            return {
                (row.device, row.boot): (row.id, Stream(row.contiguous, _ranges(row.ahead)))
                for row in rows
            }

    def boots(self, device: str) -> dict[str, int]:
        """The boots that a device was heard of in, each with its place in the order of that."""
        table = tables.streams
        query = select(table.c.boot, table.c.id).where(table.c.device == device)
        with self._read() as c:
            return {row.boot: row.id for row in c.execute(query)}

    def save_streams(self, streams: Mapping[Key, tuple[int, Stream]]) -> None:
        if not streams:
            return
        table = tables.streams
        statement = (
            update(table)
            .where(table.c.id == bindparam("place"))
            .values(contiguous=bindparam("reached"), ahead=bindparam("beyond"))
        )
        rows = [
            {
                "place": place,
                "reached": stream.contiguous,
                "beyond": msgspec.msgpack.encode(stream.ahead),
            }
            for place, stream in streams.values()
        ]
        with self._write() as c:
            c.execute(statement, rows)

    def add_windows(self, windows: Iterable[NewWindow]) -> None:
        """Many at once, past SQLAlchemy's own look at every value, which costs as much again."""
        given = list(windows)
        if not given:
            return
        with self._write() as c:
            if c.dialect.name == "postgresql":
                _copy(c, given)
                return
            for start in range(0, len(given), ROWS):
                part = given[start : start + ROWS]
                values = tuple(chain.from_iterable(map(_columns, part)))
                c.exec_driver_sql(_INSERT.format(", ".join([_MARKS] * len(part))), values)

    def add_device_events(self, events: Iterable[NewEvent]) -> None:
        rows = [{"source": event.device, **msgspec.structs.asdict(event)} for event in events]
        self._add_once(tables.events, rows)

    def _add_once(self, table: Table, rows: list[dict[str, object]]) -> None:
        if rows:
            with self._write() as c:
                c.execute(self._upsert(table).on_conflict_do_nothing(), rows)

    def set_aside(self, messages: Iterable[Poison]) -> None:
        """Keep messages that could not be applied, the newest thousand of them."""
        rows = [
            msgspec.structs.asdict(message)
            | {
                "payload": message.payload[:POISON_BYTES],
                "reason": message.reason.replace("\0", "\N{SYMBOL FOR NULL}"),
            }
            for message in messages
        ]
        if not rows:
            return
        table = tables.poison
        with self._write() as c:
            c.execute(insert(table), rows)
            newest = select(func.max(table.c.id)).scalar_subquery()
            c.execute(delete(table).where(table.c.id <= newest - POISON_KEPT))

    def poison(self, limit: int = 50) -> list[Poison]:
        """Newest first."""
        table = tables.poison
        columns = [table.c[name] for name in Poison.__struct_fields__]
        with self._read() as c:
            rows = c.execute(select(*columns).order_by(table.c.id.desc()).limit(limit))
            return [Poison(**row) for row in rows.mappings()]

    def windows(self, model: str, since: float, after: int = 0) -> list[WindowRecord]:
        """The numbers of a model's windows that arrived at `since` or later, in that order.

        With `after` only those that were stored since the one with that id.
        """
        table = tables.windows
        wanted = (
            select(*NUMBERS)
            .where(table.c.model == model, table.c.received_at >= since, table.c.id > after)
            .order_by(table.c.id)
        )
        with self._read() as c:
            return [WindowRecord(**row) for row in c.execute(wanted).mappings()]

    def contents_of(self, device: str, most: int) -> list[Window]:
        """The content of a device's last windows, newest first."""
        table = tables.windows
        wanted = (
            select(table.c.body)
            .where(table.c.device == device)
            .order_by(table.c.id.desc())
            .limit(most)
        )
        with self._read() as c:
            return [from_msgpack(Window, row.body, "a stored window") for row in c.execute(wanted)]

    def window_bodies(self, after: int, most: int | None = None) -> Iterator[StoredWindow]:
        """The content of the windows stored since the one with id `after`, in order."""
        table = tables.windows
        wanted = (
            select(table.c.id, table.c.device, table.c.received_at, table.c.wall, table.c.body)
            .where(table.c.id > after)
            .order_by(table.c.id)
            .limit(most)
        )
        with self._read() as c:
            for row in c.execute(wanted):
                window = from_msgpack(Window, row.body, "a stored window")
                at = taken_at(row.received_at, row.wall)
                yield StoredWindow(row.id, row.device, at, window)

    def add_event(
        self, at: float, source: str, name: str, detail: str, device: str | None = None
    ) -> None:
        values = {"at": at, "source": source, "name": name, "detail": detail, "device": device}
        with self._write() as c:
            c.execute(insert(tables.events).values(values))

    def events(self, limit: int = 50) -> list[EventRecord]:
        """Newest first."""
        table = tables.events
        columns = [table.c[name] for name in EventRecord.__struct_fields__]
        with self._read() as c:
            rows = c.execute(select(*columns).order_by(table.c.id.desc()).limit(limit))
            return [EventRecord(**row) for row in rows.mappings()]


def _copy(c: Connection, given: Sequence[NewWindow]) -> None:
    """By COPY, for half of what inserting row by row costs; it knows no ON CONFLICT."""
    from psycopg import Error
    from psycopg.errors import UniqueViolation

    types = [_BINARY[tables.windows.c[name].type.python_type] for name in _FIELDS]
    cursor: Any = c.connection.cursor()  # psycopg's own
    try:
        with c.begin_nested(), cursor, cursor.copy(_COPY) as copy:
            copy.set_types(types)
            for row in map(_columns, given):
                copy.write_row(row)
    except UniqueViolation:  # its boot's numbers were forgotten, and it was sent again
        c.exec_driver_sql(_INSERT.format(_NAMED), list(map(msgspec.structs.asdict, given)))
    except Error as error:  # past SQLAlchemy, which would have told it so
        raise DBAPIError.instance(_COPY, None, error, Error, dialect=c.dialect) from error


def _ranges(data: bytes) -> tuple[tuple[int, int], ...]:
    return msgspec.msgpack.decode(data, type=tuple[tuple[int, int], ...])
