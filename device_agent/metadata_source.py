"""Where metadata comes from: the server over HTTP with short timeouts, or a folder from a stick."""

import http.client
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

from tuf.api import exceptions as tuf_errors
from tuf.ngclient import FetcherInterface  # type: ignore[attr-defined]

from device_agent.enrol import Identity

TIMEOUT = 10.0  # seconds that one read may take
PATIENCE = 60.0  # seconds that one metadata file may take
CHUNK = 64 * 1024


class ServerSource(FetcherInterface):
    """HTTP with short timeouts over one connection, in place of ngclient's, which waits 120 s."""

    def __init__(self, identity: Identity, monotonic: Callable[[], float]) -> None:
        self._server, self._monotonic = identity.server, monotonic
        self._headers = {"Authorization": f"Bearer {identity.device}:{identity.secrets.http_token}"}
        self._connection: http.client.HTTPConnection | None = None

    def ask(self, path: str, limit: int) -> bytes:
        """A whole answer of at most `limit` bytes; raises DownloadError."""
        data = b""
        for chunk in self._get(path):
            data += chunk
            if len(data) > limit:
                self.close()
                raise tuf_errors.DownloadError(f"{self._server} answers more than asked for")
        return data

    def close(self) -> None:
        """Hang up."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _fetch(self, url: str) -> Iterator[bytes]:
        return self._get(f"/device/v1/tuf/{quote(url)}")

    def _get(self, path: str) -> Iterator[bytes]:
        fresh = self._connection is None
        if self._connection is None:
            self._connection = self._server.connection(TIMEOUT)
        try:
            self._connection.request("GET", self._server.prefix + path, headers=self._headers)
            answer = self._connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            if not fresh and isinstance(error, ConnectionError | http.client.BadStatusLine):
                return self._get(path)  # the server had ended a connection kept open
            raise tuf_errors.DownloadError(str(error) or type(error).__name__) from error
        if answer.status != 200:
            if not self._read_out(answer):
                self.close()
            words = f"the server answers {answer.status} {answer.reason} for {path[:100]}"
            raise tuf_errors.DownloadHTTPError(words, answer.status)
        return self._body(answer)

    @staticmethod
    def _read_out(answer: http.client.HTTPResponse) -> bool:
        """Whether the connection is free for the next question."""
        if (answer.length or CHUNK) >= CHUNK:
            return False
        try:
            answer.read()
        except (OSError, http.client.HTTPException):
            return False
        return True

    def _body(self, answer: http.client.HTTPResponse) -> Iterator[bytes]:
        end = self._monotonic() + PATIENCE
        try:
            while chunk := answer.read1(CHUNK):
                if self._monotonic() > end:
                    raise tuf_errors.SlowRetrievalError(f"not whole within {PATIENCE:.0f} s")
                yield chunk
            if answer.length:  # read1 says nothing of it; half a file would look like a forged one
                raise http.client.IncompleteRead(b"", answer.length)
        except (OSError, http.client.HTTPException) as error:
            raise tuf_errors.DownloadError(str(error) or type(error).__name__) from error
        finally:
            if not answer.isclosed():  # the reader had enough before the end
                self.close()


class FolderSource(FetcherInterface):
    """The same files from a folder that somebody carried here."""

    def __init__(self, metadata: Path) -> None:
        self._metadata = metadata

    def _fetch(self, url: str) -> Iterator[bytes]:
        path = self._metadata / os.path.basename(url)  # noqa: PTH119 - a URL, not a path
        if not path.is_file():
            raise tuf_errors.DownloadHTTPError(f"the stick has no {path.name}", 404)
        return iter((path.read_bytes(),))
