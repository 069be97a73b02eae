"""Whether a bundle is one that the fleet's TUF repository lists for this device's profile.

An order alone is not enough: what it names must be a target too. The root of trust is pinned by the
enrolment token. Metadata is fetched from the server, or read from a stick if it can't be reached.

What time it is, for the expiry of metadata, is not left to the device's clock alone:

- Signed times raise the *floor*, which survives restarts: the `not_before` of every order, and
  when the timestamp that was accepted last was signed. A clock behind the floor is wrong and the
  floor counts instead, so a device that starts in 1970 takes no metadata that expired before the
  newest signed time it ever saw. The device's own clock never moves the floor: one that is ahead
  for a day does no lasting harm.
- A clock behind the floor, or metadata that looks expired, makes the device ask the server what
  time it is, with a nonce, so that the answer can't be an old one. It counts more than clock and
  floor, and replaces the floor. So a clock two days ahead locks nobody out, and metadata that is
  really expired stays refused. Without an answer the device stays with what it runs and tries
  again.

- A stick may travel for weeks: its metadata must not have expired at the floor, whatever the clock
  says.

Left open: a device without a clock that hears nothing signed since its last start can be kept on
metadata as old as its floor. It was genuine then, and a new order raises the floor.
"""

import secrets
import shutil
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from tuf.api import exceptions as tuf_errors
from tuf.ngclient import (  # type: ignore[attr-defined]
    FetcherInterface,
    TargetFile,
    Updater,
    UpdaterConfig,
)

from device_agent.download import InterruptedDownloadError
from device_agent.enrol import Identity
from device_agent.metadata_source import FolderSource, ServerSource
from device_agent.uplink import Clock
from edge_sdk.bundle import file_name
from edge_sdk.errors import FormatError, RefusedError, UntrustedError
from edge_sdk.files import sha256, write_atomic
from edge_sdk.formats import from_json, to_json
from edge_sdk.messages import Assignment
from edge_sdk.signed_time import open_time

SLACK = 300.0  # seconds that a clock may be behind the server's without being called wrong
MAX_ROOT = 512_000
MAX_TIME = 16 * 1024
ISSUED = "x-edge-issued"
FIRST_ROOT = "metadata/1.root.json"


class DistrustedError(RefusedError):
    """The repository does not vouch for this bundle, or is not to be believed; begins with why."""

    def __init__(self, name: str, detail: str) -> None:
        super().__init__(f"{name}: {detail}")


class NotVouchedError(InterruptedDownloadError):
    """Nobody could be asked, or only somebody whose word has expired: try again later."""

    def __init__(self, name: str, detail: str) -> None:
        super().__init__(f"{name}: {detail}")
        self.name = name


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What must never go back, kept apart from ngclient's files, which a power cut may empty.

    Attributes:
        floor: the newest signed time, Unix seconds.
        root, timestamp, snapshot: versions that were accepted.
    """

    format: int = 1
    floor: float = 0.0
    root: int = 0
    timestamp: int = 0
    snapshot: int = 0


class Repository:
    """The device's view of the repository; used by one thread.

    Args:
        folder: for metadata, made if absent.
        carried: where a stick's metadata was copied to, if it was.
    """

    def __init__(self, folder: Path, carried: Path, identity: Identity, clock: Clock) -> None:
        self._folder, self._metadata, self._carried = folder, folder / "metadata", carried
        self._identity, self._clock = identity, clock
        self._server = ServerSource(identity, clock.monotonic)
        self._seen = self._load()
        with suppress(OSError):  # a disk that can't be written is told when it matters
            for left in self._metadata.glob("tmp*"):  # by a power cut in the middle of a write
                left.unlink()

    def vouched(self, order: Assignment) -> TargetFile:
        """The target that the order names, fresh from the repository.

        Raises:
            DistrustedError: not listed, the metadata is forged, mixed or rolled back, or the
                order's last day is over.
            NotVouchedError: the repository can't be reached, or its metadata has expired.
        """
        self._remember(floor=max(self._seen.floor, order.not_before))
        now: float | None = None
        if self._clock.wall() < self._seen.floor - SLACK:
            now = self._ask_time()
        try:
            try:
                target = self._listed(order, now)
            except tuf_errors.ExpiredMetadataError:
                if now is not None or (now := self._ask_time()) is None:
                    raise
                target = self._listed(order, now)
            self._refuse_late(order, now)
        except tuf_errors.DownloadError as error:
            raise _not_reached(error, str(self._identity.server)) from error
        except tuf_errors.ExpiredMetadataError as error:
            raise NotVouchedError("metadata-expired", f"{error}; {self._believed(now)}") from error
        except tuf_errors.RepositoryError as error:
            raise DistrustedError(_name(error), str(error)) from error
        finally:
            self._server.close()
        return target

    def check(self, target: TargetFile, bundle: Path) -> None:
        """Raises DistrustedError if these are not the target's bytes."""
        try:
            with bundle.open("rb") as file:
                target.verify_length_and_hashes(file)
        except tuf_errors.LengthOrHashMismatchError as error:
            raise DistrustedError("target-differs", f"{target.path}: {error}") from error

    # --- metadata

    def _listed(self, order: Assignment, now: float | None) -> TargetFile:
        path = f"{order.profile}/{file_name(order.model, order.version, order.profile)}"
        target = self._target(path, now)
        if target is None:
            raise DistrustedError("target-not-listed", f"the repository does not list {path}")
        if (target.hashes.get("sha256"), target.length) != (order.digest, order.length):
            raise DistrustedError(
                "target-differs",
                f"the order names SHA-256 {order.digest[:12]}… of {order.length:,} bytes, the "
                f"repository lists other bytes as {path}",
            )
        return target

    def _target(self, path: str, now: float | None) -> TargetFile | None:
        try:
            return self._from(self._server, path, now)
        except tuf_errors.DownloadHTTPError:
            raise
        except tuf_errors.DownloadError:
            if not self._carried.is_dir():
                raise
            return self._from(FolderSource(self._carried), path, self._seen.floor)

    def _from(self, source: FetcherInterface, path: str, now: float | None) -> TargetFile | None:
        bootstrap = self._first_root(source)
        try:
            return self._found(source, bootstrap, path, now)
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            self._clear()  # damaged beyond what ngclient mends by itself
            return self._found(source, bootstrap, path, now)

    def _found(
        self, source: FetcherInterface, bootstrap: bytes, path: str, now: float | None
    ) -> TargetFile | None:
        self._metadata.mkdir(parents=True, exist_ok=True)
        updater = Updater(
            str(self._metadata),
            "metadata/",
            fetcher=source,
            config=UpdaterConfig(root_max_length=MAX_ROOT),
            bootstrap=bootstrap,
        )
        trusted = updater._trusted_set  # ngclient has no door for the time
        trusted.reference_time = datetime.fromtimestamp(int(self._reference(now)), UTC)
        updater.refresh()
        found = updater.get_targetinfo(path)
        self._accept(trusted.root.version, trusted.timestamp, trusted.snapshot.version)
        return found

    def _clear(self) -> None:
        """Forget ngclient's files; which versions were seen is kept apart."""
        if self._metadata.is_dir():
            shutil.rmtree(self._metadata)
        else:
            self._metadata.unlink(missing_ok=True)

    def _first_root(self, source: FetcherInterface) -> bytes:
        """The root that the enrolment token pinned."""
        pinned, path = self._identity.trust.root, self._folder / "first-root.json"
        if not pinned:
            raise DistrustedError("no-root", "this device was enrolled without a root of trust")
        if path.is_file() and sha256(kept := path.read_bytes()) == pinned:
            return kept
        found = source.download_bytes(FIRST_ROOT, MAX_ROOT)
        if sha256(found) != pinned:
            raise DistrustedError(
                "root-not-pinned",
                f"the repository's first root has SHA-256 {sha256(found)[:12]}…, this device was "
                f"enrolled with {pinned[:12]}…",
            )
        self._folder.mkdir(parents=True, exist_ok=True)
        write_atomic(path, found)
        return found

    def _accept(self, root: int, timestamp: object, snapshot: int) -> None:
        """Refuse what ngclient no longer remembers; a new root may start the counting anew."""
        seen = self._seen
        version: int = timestamp.version  # type: ignore[attr-defined]
        back = (root, seen.root), (version, seen.timestamp), (snapshot, seen.snapshot)
        for (got, known), what in zip(back, ("root", "timestamp", "snapshot"), strict=True):
            if got < known and (what == "root" or root == seen.root):
                raise DistrustedError(
                    "metadata-rolled-back", f"{what} version {got}, {known} was seen before"
                )
        issued = timestamp.unrecognized_fields.get(ISSUED)  # type: ignore[attr-defined]
        floor = float(issued) if isinstance(issued, int) else 0.0
        self._remember(
            floor=max(seen.floor, floor), root=root, timestamp=version, snapshot=snapshot
        )

    # --- time

    def _reference(self, now: float | None) -> float:
        return now if now is not None else max(self._clock.wall(), self._seen.floor)

    def _believed(self, now: float | None) -> str:
        if now is not None:
            return f"the server's signed time is {_date(now)}"
        said = f"this device's clock says {_date(self._clock.wall())}"
        return f"{said}, signed times reach {_date(self._seen.floor)}, the server was not heard"

    def _refuse_late(self, order: Assignment, now: float | None) -> None:
        """A clock that runs ahead must not void an order, so the server's time is asked for."""
        last = order.policy.not_after
        if last and self._reference(now) > last:
            now = now if now is not None else self._ask_time()
            if self._reference(now) > last:
                raise DistrustedError(
                    "order-expired", f"it was good until {_date(last)}; {self._believed(now)}"
                )

    def _ask_time(self) -> float | None:
        """The server's signed time; None if it does not answer or somebody else does."""
        nonce = secrets.token_hex(16)
        try:
            answer = self._server.ask(f"/device/v1/time?nonce={nonce}", MAX_TIME)
            now = open_time(answer, nonce, self._identity.trust.director_key)
        except (tuf_errors.DownloadError, FormatError, UntrustedError):
            return None
        self._remember(floor=now)
        return now

    def _remember(self, **changes: float) -> None:
        seen = msgspec.structs.replace(self._seen, **changes)
        if seen != self._seen:
            self._folder.mkdir(parents=True, exist_ok=True)
            write_atomic(self._folder / "seen.json", to_json(seen))
            self._seen = seen

    def _load(self) -> Seen:
        path = self._folder / "seen.json"
        try:
            return from_json(Seen, path.read_bytes(), str(path))
        except (OSError, FormatError):
            return Seen()


def _not_reached(error: tuf_errors.DownloadError, server: str) -> Exception:
    """A download error in our words; one that goes on for ever is an attack, others pass."""
    if isinstance(error, tuf_errors.DownloadLengthMismatchError):
        return DistrustedError("metadata-endless", f"{server}: {error}")
    return NotVouchedError("metadata-not-reached", f"{server}: {error}")


def _name(error: tuf_errors.RepositoryError) -> str:
    match error:
        case tuf_errors.UnsignedMetadataError():
            return "metadata-forged"
        case tuf_errors.BadVersionNumberError():
            return "metadata-rolled-back"
        case tuf_errors.LengthOrHashMismatchError():
            return "metadata-mixed"
        case _:
            return "metadata-damaged"


def _date(moment: float) -> str:
    return datetime.fromtimestamp(int(moment), UTC).isoformat(sep=" ", timespec="minutes")
