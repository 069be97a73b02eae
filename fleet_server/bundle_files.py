"""The bytes of bundles: in a folder for good, or in a bucket with a folder of the last ones before.

In the bucket they have the names of the TUF repository's targets, so a CDN may carry them.
"""

import logging
import os
import threading
from pathlib import Path

from edge_sdk.errors import EdgeError
from edge_sdk.files import sha256, write_atomic
from fleet_server.bucket import Bucket
from fleet_server.trust.roles import Target

log = logging.getLogger("fleet_server.registry")

NEAR = 64  # bundles that stay on this machine before a bucket
WHERE_ELSE = (
    "start the server with the --bundles s3://… that it had, or publish their files once more"
)


class BundleFiles:
    """Bundles by their target; with a bucket the folder holds only copies of what lies there."""

    def __init__(self, folder: Path, bucket: Bucket | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._bucket = bucket
        self._changing = threading.Lock()
        self._copies = False  # whether the bucket has all that is here

    @property
    def far(self) -> bool:
        """Whether a bundle's place for good is not on this machine."""
        return self._bucket is not None

    def put(self, target: Target, data: bytes) -> None:
        """Keep a bundle; raises EdgeError. It is safe when this returns."""
        if self._bucket:
            self._bucket.put(_name(target), data)
        with self._changing:
            self._keep(target, data)

    def path(self, target: Target) -> Path:
        """A file with the bundle's bytes, brought here if need be.

        Raises:
            EdgeError: it is not here, and there is no bucket or it does not give it.
        """
        near = self._near(target.digest)
        if not self._bucket:
            if not near.exists():
                raise EdgeError(f"{target.path} is not in {self.folder}: {WHERE_ELSE}")
            return near
        with self._changing:
            if near.exists():
                os.utime(near)  # asked for last
            else:
                data = self._bucket.get(_name(target))
                if sha256(data) != target.digest:
                    raise EdgeError(f"{_name(target)} in the bucket is not the bundle of that name")
                self._keep(target, data)
        return near

    def holds(self, target: Target) -> bool:
        """Whether the bundle's bytes are on this machine."""
        return self._near(target.digest).exists()

    def tell_what_lacks(self, digests: set[str]) -> None:
        """Say which of the published bundles are not here, where they should be for good."""
        lacking = digests - {path.stem for path in self.folder.glob("*.edge")}
        if lacking and not self._bucket:
            what = f"{len(lacking)} of {len(digests)} published bundles are not in {self.folder}"
            log.error("%s, so no device can fetch them: %s", what, WHERE_ELSE)

    def hand_in(self, targets: list[Target]) -> None:
        """Put into the bucket what was published before there was one."""
        if not self._bucket:
            return
        here = [target for target in targets if self.holds(target)]
        try:
            there = self._bucket.names() if here else set()
            for target in here:
                if _name(target) not in there:
                    self._bucket.put(_name(target), self._near(target.digest).read_bytes())
        except EdgeError as error:
            log.error("bundles published before stay here alone until the next start: %s", error)
        else:
            self._copies = True

    def _keep(self, target: Target, data: bytes) -> None:
        write_atomic(self._near(target.digest), data)
        if self._copies:
            keep_newest(self.folder, "*.edge", NEAR)

    def _near(self, digest: str) -> Path:
        return self.folder / f"{digest}.edge"


def keep_newest(folder: Path, pattern: str, most: int) -> None:
    """Delete all but the files that were touched last."""
    files = sorted(folder.glob(pattern), key=lambda path: path.stat().st_mtime)
    for path in files[:-most]:
        path.unlink()


def _name(target: Target) -> str:
    return f"targets/{target.stored_path}"
