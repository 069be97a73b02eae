"""A real PostgreSQL for tests and benchmarks: a cluster in a folder, gone at the end.

PostgreSQL refuses to run as root; then it runs as another user of the machine.
"""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from contextlib import contextmanager
from itertools import count
from pathlib import Path

USERS = ("postgres", "nobody")


def programs():
    """The folder with PostgreSQL's newest programs; None if it is not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=_major)
    named = [Path(at) for at in [shutil.which("initdb")] if at]
    return next((at.resolve().parent for at in [*reversed(found), *named]), None)


def missing():
    """Why there is no PostgreSQL here; empty if there is."""
    return "" if programs() else "PostgreSQL is not installed: apt-get install postgresql"


class Postgres:
    """One cluster.

    Args:
        durable: commits wait for the disk, as in operation; tests that only kill processes, which
            the kernel's pages outlive, do without.
    """

    def __init__(self, *, durable=False):
        self._bin, self._names = programs(), count()
        self.folder = Path(tempfile.mkdtemp(prefix="edge-postgres-"))
        self._as = _other_user(self.folder)
        self._run("initdb", "-D", self.folder / "data", "-A", "trust", "-U", "fleet", "-E", "UTF8",
                  "--no-sync", *self._sorted_as_words())  # fmt: skip
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        settings = {
            "listen_addresses": "'127.0.0.1'",
            "port": self.port,
            "unix_socket_directories": "''",
            "max_connections": 100,
            "fsync": "on" if durable else "off",
        }
        with (self.folder / "data" / "postgresql.conf").open("a") as conf:
            conf.writelines(f"{name} = {value}\n" for name, value in settings.items())
        self.start()

    def start(self):
        with (self.folder / "log").open("a") as log:
            self.process = subprocess.Popen(
                [self._bin / "postgres", "-D", self.folder / "data"],
                stdout=subprocess.DEVNULL,
                stderr=log,
                **self._as,
            )
        deadline = time.monotonic() + 60
        while not self._answers():
            assert self.process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < deadline, "PostgreSQL does not answer"
            threading.Event().wait(0.05)

    def kill(self):
        """Gone at once, as when its machine fails."""
        self.process.send_signal(3)  # SIGQUIT: PostgreSQL's immediate shutdown, with its children
        self.process.wait(30)

    def new_database(self, template="template1"):
        """The URL of an empty database, or of a copy of the database at `template`'s URL."""
        name = f"fleet{next(self._names)}"
        self._sql(f"CREATE DATABASE {name} TEMPLATE {template.rpartition('/')[2]}")
        return f"postgresql://fleet@127.0.0.1:{self.port}/{name}"

    def dump(self, url):
        """All of a database, as pg_dump tells it."""
        where = ["-h", "127.0.0.1", "-p", str(self.port), "-U", "fleet", url.rpartition("/")[2]]
        return self._run("pg_dump", *where)

    def restored(self, dump):
        """The URL of a new database with what `dump` told."""
        url = self.new_database()
        self._sql(dump, url.rpartition("/")[2])
        return url

    def drop(self, url):
        self._sql(f"DROP DATABASE {url.rpartition('/')[2]} WITH (FORCE)")

    def close(self):
        self.kill()
        shutil.rmtree(self.folder)

    def _sorted_as_words(self):
        """As most databases are, and neither Python's text nor SQLite's; since PostgreSQL 15."""
        major = int(self._run("initdb", "--version").split()[2].partition(".")[0])
        icu = ("--locale=C.UTF-8", "--locale-provider=icu", "--icu-locale=en-US")
        return icu if major >= 15 else ()

    def _answers(self):
        where = ["-h", "127.0.0.1", "-p", str(self.port), "-q"]
        return subprocess.run([self._bin / "pg_isready", *where]).returncode == 0

    def _sql(self, statements, database="postgres"):
        where = ["-h", "127.0.0.1", "-p", str(self.port), "-U", "fleet", "-d", database]
        self._run("psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", *where, told=statements)

    def _run(self, program, *arguments, told=None):
        done = subprocess.run(
            [self._bin / program, *arguments],
            capture_output=True, text=True, input=told, **self._as,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout


@contextmanager
def postgres(*, durable=False):
    made = Postgres(durable=durable)
    try:
        yield made
    finally:
        made.close()


def _other_user(folder):
    """Whom to run as: nobody else, unless this is root."""
    if os.geteuid() != 0:
        return {}
    user = next(found for found in pwd.getpwall() if found.pw_name in USERS and found.pw_uid)
    os.chown(folder, user.pw_uid, user.pw_gid)
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": [], "cwd": folder}


def _major(path):
    return int(path.parent.parent.name)
