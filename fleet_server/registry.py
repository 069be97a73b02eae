"""Bundles come in: checked, signed by a trusted publisher, stored once under their digest."""

import threading
from pathlib import Path

from edge_sdk import delta
from edge_sdk.bundle import GOLDEN, Manifest, decode_golden, unpack
from edge_sdk.errors import InvalidInputError, RefusedError
from edge_sdk.files import write_atomic
from edge_sdk.signing import PublicKey
from fleet_server.bucket import Bucket
from fleet_server.bundle_files import BundleFiles, keep_newest
from fleet_server.records import BundleRecord
from fleet_server.store import Store
from fleet_server.trust.repository import Repository
from fleet_server.trust.roles import Target

MAX_NAME = 64
WORTH = 0.5  # of the whole bundle: a delta starts anew when it is cut off, so it has to save half
DELTAS = 64  # kept; older ones are made again when they are asked for


class Registry:
    """The published bundles: their bytes in a folder or a bucket, their documents in the store.

    Each is listed in `repository` too, since a device takes nothing that is not.
    """

    def __init__(
        self,
        store: Store,
        folder: Path,
        publishers: list[PublicKey],
        repository: Repository,
        bucket: Bucket | None = None,
    ) -> None:
        self._store = store
        self.repository = repository
        self._files = BundleFiles(folder, bucket)
        self._making = threading.Lock()
        self._publishers = publishers
        if self._files.far:
            self._files.hand_in([_target(record) for record in store.bundles()])
        else:
            self._files.tell_what_lacks(store.bundle_digests())

    def delta(self, old: str, new: str) -> Path | None:
        """The file that makes bundle `new` of `old`; None if that saves next to nothing.

        Made when it is first asked for, one at a time, and kept.
        """
        path = self._files.folder / "deltas" / f"{old}-{new}.delta"
        with self._making:
            if not path.exists():
                before, after = self._store.bundle(old), self._store.bundle(new)
                if before is None or after is None or before.model != after.model:
                    return None
                path.parent.mkdir(exist_ok=True)
                write_atomic(path, self._delta(old, new))
                keep_newest(path.parent, "*.delta", DELTAS)
        return path if path.stat().st_size else None

    def _delta(self, old: str, new: str) -> bytes:
        """Empty if it is not worth it, or does not give the very bytes."""
        pair = (old, new)
        before, after = (self.path(digest).read_bytes() for digest in pair)
        made = delta.make(before, after, pair)
        worth = len(made) < WORTH * len(after) and delta.apply(before, made, pair) == after
        return made if worth else b""

    def path(self, digest: str) -> Path:
        """A file with a published bundle's bytes.

        Raises:
            InvalidInputError: no such bundle was published.
            EdgeError: its bytes are not to be had.
        """
        record = self._store.bundle(digest)
        if record is None:
            raise InvalidInputError(f"no bundle {digest[:64]!r} is published here")
        return self._files.path(_target(record))

    def offered(self, digest: str) -> bool:
        """Whether devices may take a bundle: it was published, and not withdrawn since."""
        record = self._store.bundle(digest)
        return record is not None and self.repository.lists(_target(record))

    def target(self, path: str) -> Path | None:
        """The file that the repository's clients ask for by `path`; None if there is none."""
        listed = self.repository.folder.targets / path
        if listed.is_file() or not self._files.far:
            return listed if listed.is_file() else None
        record = self._store.bundle(path.rpartition("/")[2].partition(".")[0])
        if record is None or _target(record).stored_path != path:
            return None
        if not self.repository.lists(_target(record)):
            return None
        return self._files.path(_target(record))

    def publish(self, data: bytes, now: float) -> BundleRecord:
        """Take a bundle in; the same bytes again change nothing.

        Raises:
            CorruptBundleError, UntrustedError: not a bundle that a trusted publisher signed.
            InvalidInputError: a name, version or profile that can't be shown or put in a path.
            RefusedError: this model, version and profile was published with other bytes, or
                nobody may list bundles for this profile.
        """
        found = unpack(data, self._publishers)
        manifest, baseline = found.manifest, found.baseline
        decode_golden(found.members[GOLDEN])
        _check_names(manifest)
        if (known := self._store.bundle(found.digest)) is not None:
            if not self._files.holds(_target(known)):
                self._files.put(_target(known), data)
            self._list(known, now)
            return known
        record = BundleRecord(
            digest=found.digest,
            model=manifest.name,
            version=manifest.version,
            profile=manifest.profile,
            length=len(data),
            manifest=manifest,
            baseline=baseline,
            edges_id=baseline.edges_id,
            signed_by=found.signed_by,
            published_at=now,
        )
        _refuse_another(record, self._store.bundles(record.model))
        self.repository.allows(_target(record))
        self._files.put(_target(record), data)  # a row never names bytes that are not there
        with self._store.transaction():
            _refuse_another(record, self._store.bundles(record.model))
            self._list(record, now)
            self._store.add_bundle(record)
            self._store.add_event(
                now, "registry", "published", f"{record.model} {record.version} {record.profile}"
            )
        return record

    def _list(self, record: BundleRecord, now: float) -> None:
        target = _target(record)
        source = None if self._files.far else self._files.path(target)
        self.repository.publish(target, source, now)


def _target(record: BundleRecord) -> Target:
    return Target(
        name=record.model,
        version=record.version,
        profile=record.profile,
        digest=record.digest,
        length=record.length,
    )


def _refuse_another(record: BundleRecord, published: list[BundleRecord]) -> None:
    for other in published:
        if (other.version, other.profile) == (record.version, record.profile):
            raise RefusedError(
                f"{record.model} {record.version} for {record.profile} was published with other "
                f"bytes ({other.digest[:12]}): a version never changes, give it a new number"
            )


def _check_names(manifest: Manifest) -> None:
    for what, text in (
        ("name", manifest.name),
        ("version", manifest.version),
        ("profile", manifest.profile),
    ):
        if not text or len(text) > MAX_NAME or not text.isprintable() or "/" in text:
            raise InvalidInputError(
                f"the bundle's {what} {text[:MAX_NAME]!r} must be 1 to {MAX_NAME} printable "
                "characters without a slash"
            )
