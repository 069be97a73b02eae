"""The doctor's looks over the network, each alone: from the server's name to a stored message."""

import http.client
import secrets
import socket
import ssl
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path

from device_agent.certificate import validity
from device_agent.config import EnrolConfig, LinkConfig, read_token
from device_agent.endpoint import Endpoint, mutual_context, whole
from device_agent.enrol import Identity
from device_agent.link import address_of
from device_agent.probe import Probe, ProbeError
from edge_sdk.errors import InvalidInputError
from edge_sdk.formats import to_msgpack
from edge_sdk.messages import Event, Sealed, seal

TIMEOUT = 10.0
CLOCK_SECONDS = 60.0
# OpenSSL's reasons (X509_V_ERR_*) that have a remedy of their own.
NOT_YET_VALID, EXPIRED, WRONG_NAME, WRONG_ADDRESS = 9, 10, 62, 64


class Ailment(Exception):  # noqa: N818 - what a look found, not a failure of the look
    """Why a step fails, and what to do."""

    def __init__(self, words: str, remedy: str) -> None:
        super().__init__(words)
        self.words, self.remedy = words, remedy


def dns(server: Endpoint) -> str:
    try:
        found = socket.getaddrinfo(server.host, server.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise Ailment(
            f"{server.host} has no address: {error}",
            "correct [link] server, or this device's name server (/etc/resolv.conf)",
        ) from error
    return f"{server.host} is {', '.join(sorted({str(entry[4][0]) for entry in found}))}"


def tcp(server: Endpoint) -> str:
    return _connects(server.host, server.port, "is 'edge server run' running there")


def chain(server: Endpoint) -> str:
    """TLS to the HTTP side, believed as the agent believes it."""
    context = ssl.create_default_context(cadata=server.ca or None)
    return _handshake(server.host, server.port, context)


def clock(server: Endpoint, wall: Callable[[], float]) -> str:
    """This device's clock against the server's Date header."""
    answer, _ = _get(server, f"{server.prefix}/healthz", {})
    date = answer.getheader("Date", "")
    try:
        ahead = wall() - parsedate_to_datetime(date).timestamp()
    except ValueError as error:
        raise Ailment(f"the server gives no date ({date!r})", "ask whoever runs it") from error
    if abs(ahead) > CLOCK_SECONDS:
        side = "ahead of" if ahead > 0 else "behind"
        raise Ailment(
            f"this clock is {abs(ahead):,.0f} s {side} the server's",
            "set it: timedatectl set-ntp true",
        )
    return f"within {abs(ahead) + 1:.0f} s of the server's"


def not_enrolled(enrol: EnrolConfig) -> str:
    """Whether this device, which has not joined yet, could."""
    try:
        read_token(enrol)
    except InvalidInputError as error:
        raise Ailment("not enrolled, and no token", str(error)) from error
    return "not enrolled yet; a token is at hand: the agent joins when it starts"


def credentials(who: Identity) -> str:
    """Whether the server knows this device's key."""
    headers = {"Authorization": f"Bearer {who.device}:{who.secrets.http_token}"}
    answer, _ = _get(who.server, f"{who.server.prefix}/device/v1/desired", headers)
    match answer.status:
        case 200:
            return f"the server knows {who.device} and has an order for it"
        case 204:
            return f"the server knows {who.device}; no order yet"
        case 403:
            raise Ailment(
                "the server does not accept the certificate that this device shows",
                "start the agent: it asks for another",
            )
        case 401:
            raise Ailment(
                f"the server does not let {who.device} in: it was revoked, or has another key",
                f"on the server 'edge device list', then 'edge device readmit {who.device}'; or "
                f"'edge enroll key new --device {who.device}' and enrol from an empty state folder",
            )
        case status:
            raise Ailment(f"the server answers {status} {answer.reason}", "look at its log")


def certificate(folder: Path, wall: Callable[[], float]) -> str:
    """Whether our own certificate, which the server asks for, holds now."""
    span = validity(folder)
    if span is None:
        raise Ailment("there is none that fits our key", "start the agent: it asks for one")
    begins, ends = span
    now = datetime.fromtimestamp(wall(), UTC)
    if not begins <= now < ends:
        raise Ailment(
            f"by this clock it holds from {begins:%Y-%m-%d} to {ends:%Y-%m-%d}",
            "set the clock; the agent renews the certificate when it starts",
        )
    return f"until {ends:%Y-%m-%d}"


def mqtt_looks(
    who: Identity, link: LinkConfig, folder: Path, wall: Callable[[], float]
) -> list[tuple[str, Callable[[], str]]]:
    """The steps of the MQTT connection, in order."""
    tls = mutual_context(folder, who.server.ca) if who.server.tls else None
    address = address_of(who, link, tls)
    host, port, probe = address.host, address.port, Probe(address, TIMEOUT)
    looks: list[tuple[str, Callable[[], str]]] = [
        ("MQTT TCP", lambda: _connects(host, port, "is its MQTT port open in the firewall"))
    ]
    if tls is not None:
        looks.append(("MQTT TLS chain", lambda: _handshake(host, port, tls)))
    return [
        *looks,
        ("MQTT login", lambda: _asks(probe.connect, _LOGIN)),
        ("MQTT subscribe", lambda: _asks(probe.subscribe, _RIGHTS)),
        ("MQTT publish", lambda: _asks(lambda: probe.publish(_hello(who, wall)), _RIGHTS)),
    ]


_LOGIN = "compare with the steps 'credentials' and 'certificate'; 'edge device list' on the server"
_RIGHTS = "this address is not the fleet server's own MQTT: compare [link] server with its start"


def _hello(who: Identity, wall: Callable[[], float]) -> bytes:
    """A line for the device's history, numbered in a boot of its own."""
    event = to_msgpack(Event(name="doctor", detail="looked in, and this message arrived"))
    boot = f"doctor-{secrets.token_hex(4)}"
    sealed = Sealed(device=who.device, boot=boot, seq=1, wall=wall(), uptime=0.0, body=event)
    return seal(sealed, "event", who.secrets.mac)


def _asks(look: Callable[[], str], remedy: str) -> str:
    try:
        return look()
    except ProbeError as error:
        raise Ailment(str(error), remedy) from error


def _connects(host: str, port: int, question: str) -> str:
    try:
        socket.create_connection((host, port), TIMEOUT).close()
    except OSError as error:
        raise Ailment(
            f"port {port} of {host} does not answer: {error.strerror or error}",
            f"{question}? may this network reach it?",
        ) from error
    return f"port {port} answers"


def _handshake(host: str, port: int, context: ssl.SSLContext) -> str:
    try:
        with (
            socket.create_connection((host, port), TIMEOUT) as plain,
            context.wrap_socket(plain, server_hostname=host) as secure,
        ):
            return f"{secure.version()}, believed"
    except ssl.SSLCertVerificationError as error:
        raise Ailment(error.verify_message, _why_not_believed(error, host)) from error
    except OSError as error:
        raise Ailment(
            f"no TLS on port {port}: {error.strerror or error}",
            "does the server run with --tls? without it the address begins with http://",
        ) from error


def _why_not_believed(error: ssl.SSLCertVerificationError, host: str) -> str:
    if error.verify_code in (NOT_YET_VALID, EXPIRED):
        return "set this device's clock; if it is right, restart the server"
    if error.verify_code in (WRONG_NAME, WRONG_ADDRESS):
        return f"start the server with --name {host}, or use a name that it knows"
    return (
        "it is not the server this device joined, or somebody stands between: "
        "compare the CA's fingerprint that 'edge server run' prints"
    )


def _get(
    server: Endpoint, path: str, headers: dict[str, str]
) -> tuple[http.client.HTTPResponse, bytes]:
    # Before it has joined a device believes no CA; all it asks for then is the time of day.
    joined = server.ca or not server.tls
    connection = server.connection(TIMEOUT) if joined else server.first_contact(TIMEOUT)
    with closing(connection):
        try:
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            return answer, whole(answer, 1024 * 1024)
        except (OSError, http.client.HTTPException) as error:
            raise Ailment(
                f"{server} does not answer as HTTP: {str(error) or type(error).__name__}",
                "does another program hold that port? with --tls the address begins with https://",
            ) from error
