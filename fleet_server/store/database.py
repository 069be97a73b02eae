"""The database: opened, migrated, and written by one transaction at a time.

Readers see the last commit and never wait; a commit is on the disk when it returns. Every method of
the store that is called inside `transaction` joins it.
"""

import functools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, Table
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DatabaseError, DataError, InternalError, OperationalError

from edge_sdk.errors import EdgeError, InvalidInputError
from fleet_server.store.engines import open_engine, shown

GONE = (OperationalError, InternalError)  # no fault of the statement: it may hold tomorrow


class Database:
    """The connection pool and the one writer's lock."""

    def __init__(self, where: Path | str) -> None:
        """Open and migrate a SQLite file, or a PostgreSQL database by its URL.

        Raises:
            EdgeError: written by a newer version of this program, or no database at all.
        """
        self._engine = open_engine(where)
        self._writer = self._engine.execution_options(writes=True)
        self._lock = threading.RLock()
        self._own = threading.local()
        try:
            _migrate(self._writer, shown(where))
        except DatabaseError as error:
            self.close()
            hint = (
                "restore it from a backup, or move it away to start anew"
                if isinstance(where, Path)
                else "is it running, does it exist, and may this user create tables there?"
            )
            raise EdgeError(
                f"{shown(where)} can't be used as a database ({_words(error)}): {hint}"
            ) from error
        except EdgeError:
            self.close()
            raise

    def close(self) -> None:
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit everything that this thread writes inside as one, or nothing of it."""
        with self._write():
            yield

    @contextmanager
    def _write(self) -> Iterator[Connection]:
        if (open_one := self._joined()) is not None:
            yield open_one
            return
        try:
            with self._lock, self._writer.begin() as connection:
                self._own.connection = connection
                try:
                    yield connection
                finally:
                    self._own.connection = None
        except DataError as error:
            raise InvalidInputError(f"the database can't hold this: {_words(error)}") from error
        except GONE as error:
            raise EdgeError(
                f"the database can't be written ({_words(error)}): "
                "is it reachable, and is its disk full or read-only?"
            ) from error

    @contextmanager
    def _read(self) -> Iterator[Connection]:
        if (open_one := self._joined()) is not None:
            yield open_one
            return
        try:
            with self._engine.connect() as connection:
                yield connection
        except DataError as error:
            raise InvalidInputError(f"the database can't hold this: {_words(error)}") from error
        except GONE as error:
            raise EdgeError(f"the database can't be read: {_words(error)}") from error

    def _joined(self) -> Connection | None:
        found: Connection | None = getattr(self._own, "connection", None)
        return found

    def _upsert(self, table: Table) -> sqlite.Insert | postgresql.Insert:
        """An INSERT that knows ON CONFLICT."""
        if self._engine.dialect.name == "postgresql":
            return postgresql.insert(table)
        return sqlite.insert(table)


def _words(error: DatabaseError) -> str:
    return str(error.orig).strip().partition("\n")[0]


def _migrate(engine: Engine, place: str) -> None:
    known = _schemas()
    with engine.begin() as connection:
        current = MigrationContext.configure(connection).get_current_revision()
        if current == known[0]:
            return
        if current is not None and current not in known:
            raise EdgeError(
                f"{place} has schema {current}, this program knows up to "
                f"{known[0]}: upgrade edge-deployment-sdk"
            )
        config = _migrations()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


@functools.cache
def _schemas() -> list[str]:
    """Every revision, the newest first."""
    scripts = ScriptDirectory.from_config(_migrations())
    return [script.revision for script in scripts.walk_revisions()]


def _migrations() -> Config:
    config = Config()
    config.set_main_option("script_location", "fleet_server:migrations")
    config.set_main_option("path_separator", "os")
    return config
