"""Databases for tests: with all tables, empty, and cheap, since each is migrated once a process."""

import functools
import tempfile
from contextlib import contextmanager
from pathlib import Path

import psycopg

from fleet_server.store import Store

# Nobody else is in it, rows and settings are gone and ids begin at 1 again. Deleting costs a tenth
# of TRUNCATE, and that half of a copy of the template.
EMPTIED = """
DO $$
DECLARE found record;
BEGIN
  PERFORM pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid();
  SET LOCAL session_replication_role = replica;  -- foreign keys do not order the deletes
  FOR found IN SELECT tablename FROM pg_tables
      WHERE schemaname = 'public' AND tablename <> 'alembic_version' LOOP
    EXECUTE format('DELETE FROM %I', found.tablename);
  END LOOP;
  PERFORM setval(seqrelid, 1, false) FROM pg_sequence;
  EXECUTE format('ALTER DATABASE %I RESET ALL', current_database());
END $$
"""


@functools.cache
def _empty_file():
    with tempfile.TemporaryDirectory() as folder:
        Store(Path(folder) / "fleet.db").close()
        return (Path(folder) / "fleet.db").read_bytes()


def new_file(folder):
    """An empty SQLite database in a folder: a copy of one that was migrated before."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "fleet.db"
    path.write_bytes(_empty_file())
    return path


class Pool:
    """Empty PostgreSQL databases, lent to one test after the other."""

    def __init__(self, running):
        self._running, self._free = running, []
        self._template = running.new_database()
        Store(self._template).close()

    @contextmanager
    def lent(self):
        """The URL of one, which is emptied at the end."""
        url = self._free.pop() if self._free else self._running.new_database(self._template)
        try:
            yield url
        finally:
            writes = "-c default_transaction_read_only=off"  # whatever the test has set
            with psycopg.connect(url, autocommit=True, options=writes) as connection:
                connection.execute(EMPTIED)
            self._free.append(url)

    def close(self):
        for url in [*self._free, self._template]:
            self._running.drop(url)


def all_in(where):
    """Everything that a database holds, as bytes: of a file also what was deleted."""
    if isinstance(where, Path):
        return b"".join(path.read_bytes() for path in where.parent.glob(f"{where.name}*"))
    with psycopg.connect(where) as connection:
        names = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        rows = [row for (name,) in names.fetchall() for row in connection.execute(f"TABLE {name}")]
    return b"".join(
        value if isinstance(value, bytes) else f"{value}\n".encode()
        for row in rows
        for value in row
    )
