"""What the agent keeps on disk, each file whole or absent.

Its key, whom it trusts, where an update stands, and at most three bundles. One process at a time.
"""

import fcntl
import os
from contextlib import suppress
from pathlib import Path
from typing import IO

import msgspec

from device_agent.update_states import Idle, Memory, Outcome, confirmed, digests
from edge_sdk.errors import FormatError, InvalidInputError
from edge_sdk.files import fsync_folder, write_atomic
from edge_sdk.formats import from_json, to_json
from edge_sdk.messages import Assignment


class DeviceKey(msgspec.Struct, frozen=True):
    """This device's id and its private X25519 key (hex); made before the first enrolment."""

    device: str
    private: str
    format: int = 1


class Enrolment(msgspec.Struct, frozen=True):
    """What the server answered: its trust document (JSON text), where MQTT is, its CA (PEM)."""

    server: str
    trust: str
    mqtt_port: int
    ca: str = ""
    format: int = 1


class _Confirmed(msgspec.Struct, frozen=True):
    """The confirmed slot once more, by itself: what is left if the update state is damaged."""

    order: Assignment
    format: int = 1


class Store:
    """The state folder; made if absent, readable by the owner only."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bundles = folder / "bundles"
        self.stick = folder / "stick"  # what was carried here, until it is installed
        self.rollback = folder / "rollback.request"
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.bundles.mkdir(exist_ok=True)
        except OSError as error:
            raise InvalidInputError(f"state folder {folder} can't be made: {error}") from error
        self._kept: Assignment | None = None

    def lock(self) -> IO[bytes]:
        """Hold the folder until the returned file is closed; raises InvalidInputError."""
        path = self.folder / "lock"
        try:
            file: IO[bytes] = path.open("wb")
        except OSError:  # on a disk that can't be written the file of the last start will do
            file = path.open("rb")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.close()
            raise InvalidInputError(
                f"another agent uses the state folder {self.folder}: stop it or use another"
            ) from error
        for path in self.folder.glob(".*.part"):  # a write that a power cut ended
            with suppress(OSError):
                path.unlink()
        return file

    def key(self) -> DeviceKey | None:
        """The device's key, if it was ever made."""
        path = self.folder / "device.json"
        return from_json(DeviceKey, path.read_bytes(), str(path)) if path.exists() else None

    def save_key(self, key: DeviceKey) -> None:
        write_atomic(self.folder / "device.json", to_json(key), mode=0o600)

    def enrolment(self) -> Enrolment | None:
        """What was agreed with the server, if the device is enrolled."""
        path = self.folder / "enrolment.json"
        return from_json(Enrolment, path.read_bytes(), str(path)) if path.exists() else None

    def save_enrolment(self, enrolment: Enrolment) -> None:
        write_atomic(self.folder / "enrolment.json", to_json(enrolment))

    def load(self) -> tuple[Memory, str]:
        """Where the update stands, and what is wrong with that file ("" if nothing).

        A damaged file falls back to the confirmed model. The highest generation is then only known
        from that model's order, so an order between the two could be replayed once: it was genuine.
        """
        path = self.folder / "update.json"
        if not path.exists():
            return Memory(), ""
        try:
            return from_json(Memory, path.read_bytes(), str(path)), ""
        except FormatError as error:
            return self._fallback(), f"{error}; went back to the confirmed model"

    def save(self, memory: Memory) -> None:
        """Durable when this returns; bundles that the state does not name are gone then."""
        write_atomic(self.folder / "update.json", to_json(memory))
        order = confirmed(memory.state)
        if order is not None and order != self._kept:
            write_atomic(self.folder / "confirmed.json", to_json(_Confirmed(order)))
            self._kept = order
        self._prune(memory)

    def bundle(self, digest: str) -> Path:
        """Where the whole bundle of that digest is, or will be."""
        return self.bundles / f"{digest}.edge"

    def part(self, digest: str) -> Path:
        """Where what came of it so far is."""
        return self.bundles / f"{digest}.part"

    def carried(self, digest: str) -> Path:
        """Where a bundle lies that came by hand."""
        return self.stick / f"{digest}.edge"

    def promote(self, digest: str) -> None:
        """The part is whole: give it its name, so that it survives a power cut."""
        part = self.part(digest)
        handle = os.open(part, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
        part.replace(self.bundle(digest))
        fsync_folder(self.bundles)

    def _prune(self, memory: Memory) -> None:
        """Delete every bundle that the memory does not name."""
        wanted = digests(memory)
        for path in self.bundles.iterdir():
            if path.name.partition(".")[0] not in wanted:
                path.unlink(missing_ok=True)

    def _fallback(self) -> Memory:
        path = self.folder / "confirmed.json"
        try:
            order = from_json(_Confirmed, path.read_bytes(), str(path)).order
        except (FormatError, FileNotFoundError):
            return Memory()
        return Memory(order.generation, order.digest, Idle(order, Outcome("confirmed")))
