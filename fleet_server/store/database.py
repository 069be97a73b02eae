"""The SQLite file: opened, migrated, and written by one transaction at a time.

Readers see the last commit and never wait (WAL); a commit is on the disk when it returns
(synchronous FULL). Every method of the store that is called inside `transaction` joins it.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DatabaseError, OperationalError

from edge_sdk.errors import EdgeError

READERS = 40


class Database:
    """The connection pool and the one writer's lock."""

    def __init__(self, path: Path) -> None:
        """Open and migrate `path`.

        Raises:
            EdgeError: written by a newer version of this program, or no database at all.
        """
        self._engine = _engine(path)
        self._writer = self._engine.execution_options(writes=True)
        self._lock = threading.RLock()
        self._own = threading.local()
        try:
            _migrate(self._writer, path)
        except DatabaseError as error:
            self.close()
            raise EdgeError(
                f"{path} can't be used as a database ({error.orig}): "
                "restore it from a backup, or move it away to start anew"
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
        except OperationalError as error:
            raise EdgeError(
                f"the database can't be written ({error.orig}): is the disk full or read-only?"
            ) from error

    @contextmanager
    def _read(self) -> Iterator[Connection]:
        if (open_one := self._joined()) is not None:
            yield open_one
            return
        with self._engine.connect() as connection:
            yield connection

    def _joined(self) -> Connection | None:
        found: Connection | None = getattr(self._own, "connection", None)
        return found


def _engine(path: Path) -> Engine:
    engine = create_engine(f"sqlite:///{path}", max_overflow=READERS)

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _record: object) -> None:  # noqa: ANN401 - sqlite3's, untyped here
        connection.isolation_level = None  # transactions are begun below, not by the driver
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=10000"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _migrate(engine: Engine, path: Path) -> None:
    config = Config()
    config.set_main_option("script_location", "fleet_server:migrations")
    config.set_main_option("path_separator", "os")
    scripts = ScriptDirectory.from_config(config)
    known = {script.revision for script in scripts.walk_revisions()}
    with engine.begin() as connection:
        current = MigrationContext.configure(connection).get_current_revision()
        if current is not None and current not in known:
            raise EdgeError(
                f"{path} has schema {current}, this program knows up to "
                f"{scripts.get_current_head()}: upgrade edge-deployment-sdk"
            )
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
