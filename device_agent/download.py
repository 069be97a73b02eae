"""One try to bring a bundle over HTTP.

It goes on where the last try ended, never past the assigned length, never faster than allowed, and
believes nothing before the digest holds.
"""

import hashlib
import http.client
import re
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec

from device_agent.endpoint import Endpoint
from edge_sdk.errors import CorruptBundleError, ServerError

CHUNK = 64 * 1024
TIMEOUT = 15.0


class InterruptedDownloadError(ServerError):
    """This try ended early; another one may go on where it stopped."""


class DeniedDownloadError(ServerError):
    """The server will not give this bundle to this device; trying again can't help."""


class Wanted(msgspec.Struct, frozen=True):
    """A bundle and the right to it; `rate` in bytes a second, 0 for no limit."""

    digest: str
    length: int
    device: str
    http_token: str
    rate: int = 0


class Pace:
    """Waits so that on average no more than `rate` bytes a second pass."""

    def __init__(self, rate: int, now: Callable[[], float], cancelled: threading.Event) -> None:
        self._rate, self._now, self._cancelled = rate, now, cancelled
        self._begun, self._passed = now(), 0
        self.chunk = min(CHUNK, max(1024, rate // 20)) if rate else CHUNK

    def passed(self, count: int) -> None:
        """Account for `count` bytes; raises InterruptedDownloadError if cancelled meanwhile."""
        self._passed += count
        ahead = self._begun + self._passed / self._rate - self._now() if self._rate else 0
        if self._cancelled.wait(ahead) if ahead > 0 else self._cancelled.is_set():
            raise InterruptedDownloadError("cancelled")


def download(
    server: Endpoint, wanted: Wanted, part: Path, now: Callable[[], float], stop: threading.Event
) -> int:
    """Bring `part` to its full length and check its digest; the byte at which this try went on.

    Raises:
        InterruptedDownloadError: cut, slow, short, or the server is unwell: try again.
        DeniedDownloadError: not there, or not for this device.
        CorruptBundleError: longer than assigned, or other bytes; the part is deleted.
    """
    have = part.stat().st_size if part.exists() else 0
    if have > wanted.length:
        part.unlink()
        have = 0
    resumed_at = have
    if have < wanted.length:
        try:
            resumed_at = _fetch(server, wanted, part, have, Pace(wanted.rate, now, stop))
        except (OSError, http.client.HTTPException) as error:
            words = str(error) or type(error).__name__
            raise InterruptedDownloadError(f"{server}: {words}") from error
    found = _digest(part)
    if found == wanted.digest:
        return resumed_at
    part.unlink()
    if resumed_at:  # what an earlier run left may be the damaged half
        raise InterruptedDownloadError(
            f"the bytes have SHA-256 {found[:12]}… after going on at {resumed_at}: starting anew"
        )
    raise CorruptBundleError(
        f"{server} gave bytes with SHA-256 {found[:12]}…, the order says {wanted.digest[:12]}…"
    )


def _fetch(server: Endpoint, wanted: Wanted, part: Path, have: int, pace: Pace) -> int:
    connection = server.connection(TIMEOUT)
    headers = {"Authorization": f"Bearer {wanted.device}:{wanted.http_token}"}
    if have:
        headers |= {"Range": f"bytes={have}-", "If-Range": f'"{wanted.digest}"'}
    try:
        path = f"{server.prefix}/device/v1/bundles/{wanted.digest}"
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        start = _start(answer, have)
        if answer.length is not None and start + answer.length > wanted.length:
            raise CorruptBundleError(
                f"{server} offers {start + answer.length:,} bytes, the order says {wanted.length:,}"
            )
        _receive(answer, part, start, wanted.length, pace)
    except CorruptBundleError:
        part.unlink(missing_ok=True)
        raise
    finally:
        connection.close()
    return start


def _start(answer: http.client.HTTPResponse, have: int) -> int:
    """At which byte the answer's body begins."""
    match answer.status:
        case 200:
            return 0
        case 206:
            found = re.match(r"bytes (\d+)-", answer.getheader("Content-Range", ""))
            if found is None or int(found[1]) != have:
                raise InterruptedDownloadError(f"asked to go on at byte {have}, got another place")
            return have
        case 401 | 404 | 410:
            raise DeniedDownloadError(
                f"the server answers {answer.status} {answer.reason} for this bundle"
            )
        case status:
            raise InterruptedDownloadError(f"the server answers {status} {answer.reason}")


def _receive(
    answer: http.client.HTTPResponse, part: Path, start: int, length: int, pace: Pace
) -> None:
    with part.open("r+b" if start else "wb") as file:
        file.seek(start)
        got = start
        while got < length:
            data = answer.read1(min(pace.chunk, length - got))
            if not data:
                raise InterruptedDownloadError(f"the connection ended at byte {got} of {length}")
            file.write(data)
            file.flush()  # a killed process loses nothing that came
            got += len(data)
            pace.passed(len(data))
        if answer.read(1):
            raise CorruptBundleError(f"the server gives more than the assigned {length:,} bytes")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
