"""What the MQTT endpoint asks of the server; the endpoint itself knows no database."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import msgspec

Message = tuple[str, bytes]  # kind, payload


class Peer(msgspec.Struct, frozen=True):
    """The other end of a connection; `certificate` is the one it proved (DER), b"" without TLS."""

    address: str = ""
    certificate: bytes = b""


Vet = Callable[[str, Peer], str]
"""Why an authenticated device may not connect from there; "" if it may. On the event loop."""


def anyone(_device: str, _peer: Peer) -> str:
    """Let everyone in whose password holds."""
    return ""


class Door(Protocol):
    """The server's side of every device connection. All calls come on the event loop."""

    def authenticate(self, username: str, password: bytes) -> str | None:
        """The device id that these credentials belong to, or None; constant time."""

    def connected(self, device: str) -> None:
        """The device has a session now (an older one of the same device was closed)."""

    def disconnected(self, device: str) -> None:
        """Its session ended, cleanly or not."""

    def retained(self, device: str, kind: str) -> bytes | None:
        """What a subscriber to the device's downward topic `kind` gets at once."""

    def received(self, device: str, messages: Sequence[Message]) -> Awaitable[None]:
        """Upward messages of one device, in order; done when all of them are stored.

        PUBACKs go out only then. As many come at once as one read of the socket brought, since a
        future for each would cost as much as storing it.
        """
