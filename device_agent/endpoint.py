"""The fleet server's HTTP address, and one connection to it."""

import http.client
import random
import ssl
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from edge_sdk.errors import InvalidInputError

CAP = 30.0  # seconds, the longest mean wait between two tries
KEY, CERTIFICATE = "tls.key", "tls.pem"


class Endpoint(msgspec.Struct, frozen=True):
    """Where the server's HTTP side is.

    Attributes:
        ca: the one CA (PEM) that its TLS is believed by.
        proof: the folder with the device's own key and certificate; "" shows none.
    """

    host: str
    port: int
    tls: bool
    prefix: str
    ca: str = ""
    proof: str = ""

    @classmethod
    def parse(cls, url: str) -> "Endpoint":
        """Raises InvalidInputError for anything but http(s)://host[:port][/prefix]."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise InvalidInputError(f"server address {url!r} is not a URL: {error}") from error
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InvalidInputError(
                f"server address {url!r} must look like http://host:port or https://host"
            )
        tls = parts.scheme == "https"
        return cls(parts.hostname, port or (443 if tls else 80), tls, parts.path.rstrip("/"))

    def connection(self, timeout: float) -> http.client.HTTPConnection:
        """A new connection, not yet opened; `timeout` seconds for each read."""
        if not self.tls:
            return http.client.HTTPConnection(self.host, self.port, timeout=timeout)
        context = mutual_context(Path(self.proof) if self.proof else None, self.ca)
        return http.client.HTTPSConnection(self.host, self.port, timeout=timeout, context=context)

    def first_contact(self, timeout: float) -> http.client.HTTPConnection:
        """A connection for the enrolment request alone, whose TLS believes anyone.

        The CA is not known yet. It need not be: the request proves the token without showing it
        and holds no secret, and the answer counts only with the fingerprint that the token names.
        """
        if not self.tls:
            return self.connection(timeout)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return http.client.HTTPSConnection(self.host, self.port, timeout=timeout, context=context)

    def __str__(self) -> str:
        return f"{'https' if self.tls else 'http'}://{self.host}:{self.port}{self.prefix}"


class WebSocketPlace(msgspec.Struct, frozen=True):
    """Where MQTT is spoken over a WebSocket."""

    host: str
    port: int
    path: str


def parse_websocket(url: str, server: str) -> WebSocketPlace | None:
    """Where `[link] mqtt` points; None if it is empty. Raises InvalidInputError.

    >>> parse_websocket("wss://fleet.lan", "https://fleet.lan")
    WebSocketPlace(host='fleet.lan', port=443, path='/mqtt')
    """
    if not url:
        return None
    tls = Endpoint.parse(server).tls
    scheme = "wss" if tls else "ws"
    try:
        parts = urlsplit(url)
        place = WebSocketPlace(
            parts.hostname or "", parts.port or (443 if tls else 80), parts.path or "/mqtt"
        )
    except ValueError as error:
        raise InvalidInputError(f"mqtt {url!r} is not a URL: {error}") from error
    if parts.scheme != scheme or not place.host:
        raise InvalidInputError(
            f"mqtt {url!r} must look like {scheme}://host[:port][/path], as the server is {server}"
        )
    return place


def whole(answer: http.client.HTTPResponse, limit: int) -> bytes:
    """The body, of which `limit` bytes are read at most.

    Raises:
        http.client.IncompleteRead: the connection ended first, which `read` of an amount keeps
            to itself.
    """
    data = answer.read(limit)
    if answer.length and len(data) < limit:
        raise http.client.IncompleteRead(data, answer.length)
    return data


def mutual_context(folder: Path | None, ca: str) -> ssl.SSLContext:
    """Believes that CA (PEM) alone, and shows the certificate in `folder` if it holds one."""
    context = ssl.create_default_context(cadata=ca or None)
    if folder is not None:
        with suppress(OSError):  # none yet, or damaged: the server says what it lacks
            context.load_cert_chain(folder / CERTIFICATE, folder / KEY)
    return context


def backoff(attempt: int, base: float, chance: random.Random) -> float:
    """Seconds to wait before try `attempt` (the first is 1, at once): exponential, full jitter.

    >>> backoff(1, 0.5, random.Random(0))
    0.0
    >>> 0 <= backoff(4, 0.5, random.Random(0)) <= 4
    True
    """
    if attempt <= 1:
        return 0.0
    return chance.uniform(0, min(CAP, base * 2 ** min(attempt - 1, 20)))
