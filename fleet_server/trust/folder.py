"""A repository on disk: a folder that any static file server can carry.

    metadata/  N.root.json N.targets.json N.profile-X.json N.snapshot.json timestamp.json
    targets/   PROFILE/SHA256.NAME-VERSION-PROFILE.edge
    staged/    root.json and targets.json that still lack signatures

Clients believe what timestamp.json leads to, so it is written last: power may fail before it.
"""

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
from tuf.api.metadata import (  # type: ignore[attr-defined]
    Metadata,
    Root,
    Snapshot,
    Targets,
    Timestamp,
)
from tuf.api.serialization import DeserializationError

from edge_sdk.errors import InvalidInputError
from edge_sdk.files import sha256, write_atomic
from fleet_server.trust.roles import ROOT, SNAPSHOT, TARGETS, TIMESTAMP, Target

KEEP = 5  # versions of a role that stay for clients in the middle of an update


class Current(msgspec.Struct):
    """What the timestamp leads to; `files` has the published bytes of each role below it."""

    root: Metadata[Root]
    targets: Metadata[Targets]
    snapshot: Metadata[Snapshot]
    timestamp: Metadata[Timestamp]
    profiles: dict[str, Metadata[Targets]]
    files: dict[str, tuple[int, bytes]]


class RepositoryFolder:
    """The files; every write is atomic and durable."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.metadata, self.targets = path / "metadata", path / "targets"
        self._staged = path / "staged"

    def exists(self) -> bool:
        """Whether a repository was ever finished here."""
        return (self.metadata / "timestamp.json").exists()

    def stamp(self) -> tuple[int, int]:
        """Another whenever something was published; by the file, since others publish too."""
        found = (self.metadata / f"{TIMESTAMP}.json").stat()
        return found.st_mtime_ns, found.st_ino

    def make(self) -> None:
        """The empty folders."""
        for folder in (self.path, self.metadata, self.targets, self._staged):
            folder.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Hold the repository against another process that would write to it."""
        with (self.path / ".lock").open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def root_digest(self) -> str:
        """SHA-256 of the first root: what a device pins."""
        return sha256((self.metadata / "1.root.json").read_bytes())

    def read(self) -> Current:
        """The published state; raises InvalidInputError if a file is missing or damaged."""
        timestamp: Metadata[Timestamp] = self._load("timestamp.json")[0]
        snapshot: Metadata[Snapshot] = self._load(
            f"{timestamp.signed.snapshot_meta.version}.{SNAPSHOT}.json"
        )[0]
        files: dict[str, tuple[int, bytes]] = {}
        roles: dict[str, Metadata[Targets]] = {}
        for name, meta in snapshot.signed.meta.items():
            role = name.removesuffix(".json")
            roles[role], data = self._load(f"{meta.version}.{name}")
            files[role] = (meta.version, data)
        targets = roles.pop(TARGETS)
        return Current(self.root(), targets, snapshot, timestamp, roles, files)

    def root(self) -> Metadata[Root]:
        """The newest root: clients find it by counting up, so a gap ends the search."""
        version = 1
        while (self.metadata / f"{version + 1}.{ROOT}.json").exists():
            version += 1
        found: Metadata[Root] = self._load(f"{version}.{ROOT}.json")[0]
        return found

    def write(self, role: str, version: int, data: bytes) -> None:
        """One version of a role; nobody looks for it before something leads there."""
        write_atomic(self.metadata / f"{version}.{role}.json", data)

    def write_timestamp(self, data: bytes) -> None:
        """From now on this is what clients see."""
        write_atomic(self.metadata / f"{TIMESTAMP}.json", data)

    def prune(self) -> None:
        """Delete old versions; every root stays, since clients walk through all of them."""
        versions: dict[str, list[int]] = {}
        for path in self.metadata.iterdir():
            found = re.fullmatch(r"(\d+)\.(.+)\.json", path.name)
            if found and found[2] != ROOT:
                versions.setdefault(found[2], []).append(int(found[1]))
        for role, numbers in versions.items():
            for number in sorted(numbers)[:-KEEP]:
                (self.metadata / f"{number}.{role}.json").unlink(missing_ok=True)

    def staged(self, role: str) -> Metadata[Any] | None:
        """The version of root or targets that waits for signatures, if there is one."""
        path = self._staged / f"{role}.json"
        return _parse(path)[0] if path.exists() else None

    def stage(self, role: str, metadata: Metadata[Any]) -> None:
        """Keep a version that lacks signatures."""
        write_atomic(self._staged / f"{role}.json", metadata.to_bytes())

    def unstage(self, role: str) -> None:
        """It was published or given up."""
        (self._staged / f"{role}.json").unlink(missing_ok=True)

    def store_target(self, target: Target, source: Path) -> None:
        """Put a bundle where clients look for it; a link where the file system has links."""
        place = self.targets / target.stored_path
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.exists():
            return
        try:
            os.link(source, place)
        except OSError:
            write_atomic(place, source.read_bytes())

    def drop_target(self, target_path: str) -> None:
        """Forget the bytes of every content that this name ever had."""
        folder, _, name = target_path.rpartition("/")
        with suppress(FileNotFoundError):
            for path in (self.targets / folder).iterdir():
                if path.name.partition(".")[2] == name:
                    path.unlink(missing_ok=True)

    def _load(self, name: str) -> tuple[Metadata[Any], bytes]:
        return _parse(self.metadata / name)


def _parse(path: Path) -> tuple[Metadata[Any], bytes]:
    try:
        data = path.read_bytes()
        return Metadata.from_bytes(data), data
    except (OSError, DeserializationError) as error:
        raise InvalidInputError(
            f"{path} can't be read as TUF metadata ({error}): restore the folder from a backup"
        ) from error
