"""TLS of the HTTP and MQTT sides: one certificate, renewed while the server runs."""

import ipaddress
import socket
from collections.abc import Sequence
from pathlib import Path

from edge_sdk.errors import InvalidInputError
from fleet_server.ca import (
    Ca,
    load_server_certificate,
    server_certificate,
    server_context,
    usable_name,
)

LOOK_SECONDS = 3600.0


class Tls:
    """The contexts that both sides listen with; people's browsers have no certificate to show."""

    def __init__(self, folder: Path, ca: Ca, names: Sequence[str], now: float) -> None:
        """Make or renew the server's certificate; raises InvalidInputError for a bad name."""
        self._folder, self._ca, self._names = folder, ca, names
        server_certificate(folder, ca, names, now)
        self._looked = now
        self.web = server_context(folder, "may show")
        self.mqtt = server_context(folder, "must show")

    def tend(self, now: float) -> None:
        """Renew the certificate when it is time; connections made from then on get the new one."""
        if now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        if server_certificate(self._folder, self._ca, self._names, now):
            for context in (self.web, self.mqtt):
                load_server_certificate(context, self._folder)


def server_names(host: str, given: Sequence[str]) -> list[str]:
    """What the certificate is for: this machine as it knows itself, and as it was told.

    >>> "pi-server.lan" in server_names("0.0.0.0", ["pi-server.lan"])
    True
    """
    own = {"localhost", "127.0.0.1", "::1", *given}
    if usable_name(machine := socket.gethostname()):
        own.add(machine)
    if not _everywhere(host):
        own.add(host)
    return sorted(own)


def refuse_plain_to_others(host: str) -> None:
    """Raises InvalidInputError if other machines can reach `host`."""
    if not _loopback(host):
        raise InvalidInputError(
            f"on {host} other machines could read along: give --tls, "
            "or --plain if something else keeps the connection secret"
        )


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _everywhere(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return host == ""
