"""Where the rows lie: a SQLite file, or a PostgreSQL database by its URL. One writer at a time.

That writers take turns is what lets the rest of the server read, decide and write inside one
transaction, and what makes ids rise in the order of commits: who reads on from the last id it saw
misses nothing. SQLite does it by itself; in PostgreSQL writers take an advisory lock.
"""

import re
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError

from edge_sdk.errors import EdgeError, InvalidInputError

READERS = 40
WRITER = 0x65646765  # "edge": the key of the writers' advisory lock
_POSTGRES = re.compile(r"postgres(?:ql)?(?:\+psycopg)?://")


def open_engine(where: Path | str) -> Engine:
    """A pool of connections; `writes=True` among its execution options makes one the writer's.

    Args:
        where: a file for SQLite, or `postgresql://…`.

    Raises:
        InvalidInputError: another kind of URL, or one that can't be read.
        EdgeError: psycopg is missing.
    """
    return _sqlite(where) if isinstance(where, Path) else _postgresql(where)


def shown(where: Path | str) -> str:
    """The place in words, without a password.

    >>> shown("postgresql://fleet:secret@db.lan/fleet")
    'postgresql://fleet:***@db.lan/fleet'
    """
    return str(where) if isinstance(where, Path) else make_url(where).render_as_string()


def has_password(url: str) -> bool:
    """Whether a database's URL holds a password, which does not belong on a command line."""
    return _url(url).password is not None


def _sqlite(path: Path) -> Engine:
    engine = create_engine(f"sqlite:///{path}", max_overflow=READERS)

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _record: object) -> None:  # noqa: ANN401 - sqlite3's, untyped here
        connection.isolation_level = None  # transactions are begun below, not by the driver
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=10000"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE" if _writes(connection) else "BEGIN")

    return engine


def _postgresql(text: str) -> Engine:
    url = _url(text).set(drivername="postgresql+psycopg")
    try:
        # A connection that the database closed meanwhile is found out and replaced before its use.
        engine = create_engine(url, max_overflow=READERS, pool_pre_ping=True)
    except ImportError as error:
        raise EdgeError(
            "PostgreSQL needs psycopg: pip install 'edge-deployment-sdk[server,postgres]'"
        ) from error

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        if _writes(connection):
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({WRITER})")

    return engine


def _url(text: str) -> Any:  # noqa: ANN401 - sqlalchemy.URL is a tuple to mypy's narrowing
    if not _POSTGRES.match(text):
        raise InvalidInputError(
            f"{text.partition('://')[0][:40]!r} is no database we know: "
            "give postgresql://USER@HOST/NAME, or nothing for SQLite in the data folder"
        )
    try:
        return make_url(text)
    except ArgumentError as error:
        raise InvalidInputError(f"the database's URL can't be read: {error}") from error


def _writes(connection: Connection) -> bool:
    return bool(connection.get_execution_options().get("writes", False))
