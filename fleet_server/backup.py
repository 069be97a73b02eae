"""A server's data folder as one file, also while it runs, and back.

The database is copied first, by SQLite itself, as of one moment; bundles never change, so whatever
it names is there when they are copied after it. The signed metadata is copied while nobody may
change it, and the keys last, so that each it names is there. PostgreSQL has its own tools.

Devices take no metadata that is older than what they saw, so a restored server signs anew what it
has the keys of, under numbers above all that were given out before.
"""

import io
import sqlite3
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from edge_sdk.errors import FormatError, InvalidInputError
from fleet_server.data_dir import DATABASE, KEYS, SETTINGS, TRUST
from fleet_server.trust.folder import RepositoryFolder
from fleet_server.trust.repository import Repository

BUNDLES = "bundles"
FORMAT = "edge-server-backup-1"


def backup(data_dir: Path, file: Path) -> list[str]:
    """Write the backup, readable by its owner alone; the names of its parts.

    Raises:
        InvalidInputError: no server ever ran there, or `file` exists or can't be written.
    """
    if not (data_dir / KEYS).exists():
        raise InvalidInputError(f"{data_dir} holds no server: give the folder it runs on")
    try:
        target = file.open("xb")
    except FileExistsError:
        raise InvalidInputError(f"{file} exists: choose another name") from None
    except OSError as error:
        raise InvalidInputError(f"{file} can't be written: {error.strerror}") from error
    file.chmod(0o600)
    parts: list[str] = []
    with target, tarfile.open(fileobj=target, mode="w") as tar, tempfile.TemporaryDirectory() as at:
        tar.addfile(tarfile.TarInfo(FORMAT), io.BytesIO())
        if (data_dir / DATABASE).exists():
            copy = Path(at) / DATABASE
            with (
                closing(sqlite3.connect(data_dir / DATABASE)) as source,
                closing(sqlite3.connect(copy)) as into,
            ):
                source.backup(into)
            tar.add(copy, DATABASE)
            parts.append(DATABASE)
        for name in (SETTINGS, BUNDLES, TRUST, KEYS):
            if (data_dir / name).exists():
                with _still(data_dir / name):
                    _add(tar, data_dir / name, name)
                parts.append(name)
    return parts


@contextmanager
def _still(place: Path) -> Iterator[None]:
    """The signed metadata is many files that belong together; the rest are files by themselves."""
    if place.name != TRUST:
        yield
        return
    with RepositoryFolder(place).changing():
        yield


def _add(tar: tarfile.TarFile, place: Path, name: str) -> None:
    """A file or folder, without what is being written or goes away meanwhile."""
    if place.name.startswith("."):
        return
    with suppress(FileNotFoundError):
        tar.add(place, name, recursive=False)
        if place.is_dir():
            for inner in sorted(place.iterdir()):
                _add(tar, inner, f"{name}/{inner.name}")


def restore(file: Path, data_dir: Path, now: float) -> list[str]:
    """Make a data folder of a backup; the names of its parts.

    Raises:
        InvalidInputError: `data_dir` is not empty, `file` can't be read, or lacks a key.
        FormatError: `file` is no backup, or its database is damaged.
    """
    if data_dir.exists() and any(data_dir.iterdir()):
        raise InvalidInputError(f"{data_dir} is not empty: restore into a new folder")
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        with tarfile.open(file, "r:") as tar:
            if tar.next() is None or FORMAT not in tar.getnames():
                raise FormatError(f"{file} is no backup of a server")
            tar.extractall(data_dir, filter="data")
    except (OSError, tarfile.TarError) as error:
        raise FormatError(f"{file} can't be restored: {error}") from error
    (data_dir / FORMAT).unlink()
    data_dir.chmod(0o700)
    (data_dir / KEYS).chmod(0o700)
    if (data_dir / DATABASE).exists():
        _check(data_dir / DATABASE)
    repository = Repository(data_dir / TRUST, data_dir / KEYS)
    if repository.folder.exists():
        repository.supersede(now)
    return sorted(path.name for path in data_dir.iterdir())


def _check(database: Path) -> None:
    with closing(sqlite3.connect(database)) as connection:
        try:
            found = connection.execute("PRAGMA quick_check").fetchone()[0]
        except sqlite3.DatabaseError as error:
            found = str(error)
    if found != "ok":
        raise FormatError(f"the database in the backup is damaged: {found}")
