"""A bundle made of an older one on disk and a delta, which is a fraction of the download.

Whatever goes wrong here is no error: the whole bundle is fetched instead.
"""

import http.client
import threading
from collections.abc import Callable
from pathlib import Path

from device_agent.download import TIMEOUT, InterruptedDownloadError, Pace, Wanted
from device_agent.endpoint import Endpoint
from edge_sdk import delta
from edge_sdk.errors import EdgeError
from edge_sdk.files import sha256


def newest_other(bundles: Path, digest: str) -> str | None:
    """The digest of the newest whole bundle on disk but this one."""
    found = [path for path in bundles.glob("*.edge") if path.stem != digest]
    return max(found, key=lambda path: path.stat().st_mtime).stem if found else None


def by_delta(
    server: Endpoint,
    wanted: Wanted,
    old: Path,
    now: Callable[[], float],
    stop: threading.Event,
) -> tuple[bytes, int] | None:
    """The wanted bundle and how many bytes came for it; None if it must be fetched whole."""
    pair = (old.stem, wanted.digest)
    try:
        came = _fetch(server, wanted, pair, Pace(wanted.rate, now, stop))
        if came is None:
            return None
        made = delta.apply(old.read_bytes(), came, pair)
    except (OSError, EdgeError, http.client.HTTPException, MemoryError):
        return None
    return (made, len(came)) if sha256(made) == wanted.digest else None


def _fetch(server: Endpoint, wanted: Wanted, pair: tuple[str, str], pace: Pace) -> bytes | None:
    connection = server.connection(TIMEOUT)
    headers = {"Authorization": f"Bearer {wanted.device}:{wanted.http_token}"}
    try:
        path = f"{server.prefix}/device/v1/deltas/{pair[0]}/{pair[1]}"
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        if answer.status != 200:
            return None
        came = bytearray()
        while data := answer.read1(pace.chunk):
            came += data
            if len(came) >= wanted.length:
                return None  # no shorter than the bundle itself
            pace.passed(len(data))
        if answer.length:
            raise InterruptedDownloadError("the connection ended in a delta")
        return bytes(came)
    finally:
        connection.close()
