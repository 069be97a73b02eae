"""Every message over MQTT, as types.

Upward messages travel `Sealed`: numbered per boot and authenticated under the device's own key, so
the broker need not be trusted. The server confirms what it has committed with `Ack`; until then the
device keeps them. Downward orders are `Assignment`s, signed by the server's director key.
"""

import base64
import hmac
from typing import Literal, TypeVar

import msgspec

from edge_sdk.errors import FormatError, UntrustedError
from edge_sdk.formats import from_json, from_msgpack, to_json, to_msgpack
from edge_sdk.signing import ASSIGNMENT, PublicKey, Signed, SigningKey, unseal
from edge_sdk.sketch import Sketch
from edge_sdk.topics import Upward

MAX_MESSAGE = 1024 * 1024
MAX_WORDS = 1000  # characters of a reason or a detail; a receiver takes twice as many

Phase = Literal[
    "empty",  # nothing installed, nothing ordered
    "deferred",  # taken, but its download waits: metered link, maintenance window, no room
    "fetching",
    "verified",
    "trial",
    "confirmed",
    "reverted",  # tried, failed, back on what ran before
    "refused",  # not taken: signature, digest, profile or generation did not hold
    "failed",  # could not be fetched in the tries allowed
]


class Running(msgspec.Struct, frozen=True):
    """What the interpreter really runs, by the digest of the bundle it was loaded from."""

    model: str
    version: str
    digest: str


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Where the device stands with its last order, and what it runs. Sent at every change.

    Attributes:
        generation: of the order this is about; 0 if none was ever taken.
        phase: how far that order got.
        reason: why it was reverted, refused or failed; in words.
        running: None while nothing runs.
        runtime: interpreter, kernels and accelerator, as found on the device.
        resumed_at: byte at which an interrupted download went on; 0 if it did not.
    """

    format: int = 1
    slot: str = "main"
    generation: int
    phase: Phase
    reason: str = ""
    running: Running | None = None
    runtime: str = ""
    agent: str = ""
    resumed_at: int = 0


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """What happened in one telemetry window under one model.

    Attributes:
        digest: of the bundle that answered; a window never mixes two.
        edges_id: of the baseline whose edges the sketches use.
        seconds: length of the window by the monotonic clock.
        rows: inferences answered.
        errors: inferences that raised.
        dropped: rows the source gave and nobody took (backpressure).
        skew: rows that did not fit the input schema, by reason.
        channels: sketches by channel name (`input.*`, `output.*`, `latency_ms`).
        rss_bytes: resident memory of the process at the end.
    """

    format: int = 1
    slot: str = "main"
    model: str
    version: str
    digest: str
    edges_id: str
    seconds: float
    rows: int
    errors: int = 0
    dropped: int = 0
    skew: dict[str, int] = {}
    channels: dict[str, Sketch] = {}
    rss_bytes: int = 0


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something worth a line in the device's history."""

    format: int = 1
    name: str
    detail: str = ""


class Sealed(msgspec.Struct, frozen=True, kw_only=True):
    """An upward message on its way.

    Attributes:
        boot: random id of the device's process start; `seq` counts from 1 within it.
        wall: the device's wall clock, Unix seconds; never trusted alone.
        uptime: its monotonic clock, seconds since `boot`.
        body: the encoded Report, Window or Event; the topic says which.
        mac: HMAC-SHA-256 under the device's key over everything above and the kind.
    """

    format: int = 1
    device: str
    boot: str
    seq: int
    wall: float
    uptime: float
    body: bytes
    mac: bytes = b""


class Ack(msgspec.Struct, frozen=True, kw_only=True):
    """The server has committed every message of `boot` up to and including `seq`."""

    format: int = 1
    boot: str
    seq: int
    mac: bytes = b""


class Assignment(msgspec.Struct, frozen=True, kw_only=True):
    """The order which bundle a device shall run in a slot.

    Attributes:
        generation: only ever rises per (device, slot); a device refuses a lower one.
        digest, length: of the whole bundle file.
        rollout: id of the rollout that wants it.
        not_before: server's clock when it was signed, Unix seconds.
    """

    format: int = 1
    device: str
    slot: str = "main"
    generation: int
    model: str
    version: str
    profile: str
    digest: str
    length: int
    rollout: str
    not_before: float


Body = Report | Window | Event
B = TypeVar("B", Report, Window, Event)
KIND_OF: dict[type[Body], Upward] = {Report: "report", Window: "telemetry", Event: "event"}
BODY_OF: dict[Upward, type[Body]] = {kind: body for body, kind in KIND_OF.items()}


def seal(message: Sealed, kind: Upward, key: bytes) -> bytes:
    """The message's bytes for the wire, authenticated."""
    return to_msgpack(msgspec.structs.replace(message, mac=_mac(message, kind, key)))


def unseal_upward(payload: bytes, kind: Upward, device: str, key: bytes) -> Sealed:
    """Check length, format, device and HMAC.

    Raises:
        FormatError: not a sealed message, or too long.
        UntrustedError: another device's message, or a wrong key.
    """
    if len(payload) > MAX_MESSAGE:
        raise FormatError(f"a message of {len(payload):,} bytes is over the limit {MAX_MESSAGE:,}")
    message = from_msgpack(Sealed, payload, f"a {kind} message")
    if message.device != device:
        raise UntrustedError(f"{device} sent a message in the name of {message.device[:64]!r}")
    if not hmac.compare_digest(message.mac, _mac(message, kind, key)):
        raise UntrustedError(f"a {kind} message in the name of {device} has a wrong HMAC")
    if message.seq < 1 or not message.boot or len(message.boot) > 64:
        raise FormatError(f"a {kind} message of {device} is numbered {message.seq}")
    return message


def body(message: Sealed, kind: Upward) -> Body:
    """The content of a sealed message; raises FormatError."""
    return from_msgpack(BODY_OF[kind], message.body, f"the body of a {kind} message")


def seal_ack(boot: str, seq: int, device: str, key: bytes) -> bytes:
    """An acknowledgement for the wire; authenticated, since the device deletes what it covers."""
    ack = Ack(boot=boot, seq=seq)
    return to_msgpack(msgspec.structs.replace(ack, mac=_ack_mac(ack, device, key)))


def unseal_ack(payload: bytes, device: str, key: bytes) -> Ack:
    """Raises FormatError, or UntrustedError for a wrong HMAC."""
    ack = from_msgpack(Ack, payload, "an acknowledgement")
    if not hmac.compare_digest(ack.mac, _ack_mac(ack, device, key)):
        raise UntrustedError("an acknowledgement has a wrong HMAC")
    return ack


def sign_assignment(assignment: Assignment, director: SigningKey) -> bytes:
    """The signed order, as JSON for the wire."""
    return msgspec.json.encode(director.seal(to_json(assignment), ASSIGNMENT))


def read_order(payload: bytes) -> Assignment:
    """The order in an envelope, without asking who signed it: to sort it, never to follow it.

    Raises:
        FormatError: not an envelope or not an assignment.
    """
    try:
        text = base64.b64decode(msgspec.json.decode(payload, type=Signed).payload, validate=True)
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as error:
        raise FormatError(f"an order can't be read: {error}") from error
    return from_json(Assignment, text, "an order")


def open_assignment(payload: bytes, device: str, director: PublicKey) -> Assignment:
    """The order in a signed envelope.

    Raises:
        FormatError: not an envelope or not an assignment.
        UntrustedError: not signed by the director, or meant for another device.
    """
    if len(payload) > MAX_MESSAGE:
        raise FormatError(f"an order of {len(payload):,} bytes is over the limit {MAX_MESSAGE:,}")
    try:
        signed = msgspec.json.decode(payload, type=Signed)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise FormatError(f"an order can't be read: {error}") from error
    text = unseal(signed, ASSIGNMENT, [director])
    assignment = from_json(Assignment, text, "an order")
    if assignment.device != device:
        raise UntrustedError(f"an order for {assignment.device[:64]!r} was sent to {device}")
    return assignment


def _mac(message: Sealed, kind: Upward, key: bytes) -> bytes:
    content = (
        "edge/1 up", kind, message.format, message.device, message.boot, message.seq,
        message.wall, message.uptime, message.body,
    )  # fmt: skip
    return hmac.digest(key, msgspec.msgpack.encode(content), "sha256")


def _ack_mac(ack: Ack, device: str, key: bytes) -> bytes:
    content = ("edge/1 ack", ack.format, device, ack.boot, ack.seq)
    return hmac.digest(key, msgspec.msgpack.encode(content), "sha256")
