"""Every message over MQTT, as types.

Upward messages travel `Sealed`: numbered per boot and authenticated under the device's own key, so
the broker need not be trusted. The server confirms what it has committed with `Ack`; until then the
device keeps them. Downward `Assignment`s and `Command`s are signed by the server's director key.
"""

import base64
import hmac
from typing import Literal, TypeVar

import msgspec

from edge_sdk.errors import FormatError, UntrustedError
from edge_sdk.formats import from_json, from_msgpack, to_json, to_msgpack
from edge_sdk.ops import Op
from edge_sdk.signing import ASSIGNMENT, COMMAND, PublicKey, Signed, SigningKey, unseal
from edge_sdk.sketch import Sketch
from edge_sdk.topics import Upward

MAX_MESSAGE = 1024 * 1024
MAX_WORDS = 1000  # characters of a reason or a detail; a receiver takes twice as many

Role = Literal[
    "serve",  # it answers
    "standby",  # loaded and self-tested beside what answers, for an instant switch
    "shadow",  # runs on the same inputs beside what answers; its answers are only compared
]

Phase = Literal[
    "empty",  # nothing installed, nothing ordered
    "deferred",  # taken, but its download waits: metered link, maintenance window, no room
    "fetching",
    "verified",
    "trial",
    "confirmed",
    "standby",  # ordered to stand by: loaded, self-tested, not answering
    "shadow",  # ordered to shadow: its answers are compared
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
        beside: what is loaded on standby or as a shadow.
    """

    format: int = 1
    slot: str = "main"
    generation: int
    phase: Phase
    reason: str = ""
    running: Running | None = None
    beside: Running | None = None
    runtime: str = ""
    agent: str = ""
    resumed_at: int = 0


class Side(msgspec.Struct, frozen=True):
    """One model's answers to the rows of a comparison, on the edges of `edge_sdk.channels`."""

    confidence: Sketch  # on CONFIDENCE
    latency_ms: Sketch  # on LATENCY


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """A shadow model beside the one that answers: both were given the same rows.

    Attributes:
        model, version, digest: of the shadow.
        rows: rows that both answered; `primary` and `shadow` are about these.
        agreed: of them, those to which both gave the same class.
        errors: rows that the shadow alone could not answer.
        skipped: rows it was not given, so that the primary is never kept waiting.
        lead: the shadow's confidence minus the primary's, row by row, on LEAD.
    """

    model: str
    version: str
    digest: str
    rows: int
    agreed: int
    errors: int = 0
    skipped: int = 0
    primary: Side
    shadow: Side
    lead: Sketch


class Hardware(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The board during one window, by what it tells of itself.

    Attributes:
        cpu: of this process, 1 is one core busy; `load` is the whole board's in the last minute.
        temperature: of the hottest sensor at the end, degrees Celsius.
        flags: throttling and under-voltage as the firmware names them; `-before` is since its boot.
        rss_bytes, free_bytes: memory of this process, and what the board has left.
        disk_bytes, link_bytes: written to disk, and sent to the server.
        waiting: messages that the server had not confirmed at the end.
        answers_lost: answers that did not reach their sinks.
    """

    cpu: float = 0.0
    load: float = 0.0
    temperature: float | None = None
    flags: tuple[str, ...] = ()
    rss_bytes: int = 0
    free_bytes: int = 0
    disk_bytes: int = 0
    link_bytes: int = 0
    waiting: int = 0
    answers_lost: int = 0


class Window(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What happened in one telemetry window under one model; what is zero is not sent.

    Attributes:
        digest: of the bundle that answered; a window never mixes two.
        edges_id: of the baseline whose edges the sketches use; "" where they are packed.
        seconds: length of the window by the monotonic clock.
        rows: inferences answered.
        errors: inferences that raised.
        dropped: rows the source gave and nobody took (backpressure).
        skew: rows that did not fit the input schema, by reason.
        channels: sketches by channel name (`input.*`, `output.*`, `latency_ms`).
        rss_bytes: resident memory of the process at the end.
        comparison: with a shadow model, if one ran beside.
        packed: the channels on the wire, see `edge_sdk.packing`.
        hardware: the board meanwhile.
    """

    format: int = msgspec.field(default_factory=lambda: 1)
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
    comparison: Comparison | None = None
    packed: bytes = b""
    hardware: Hardware | None = None


Policy = Literal[
    "random",  # any row, as an audit: the only one whose labels give an unbiased accuracy
    "margin",  # the two best classes are close
    "entropy",  # the answer is spread over the classes
    "novelty",  # the row is far from the training baseline
    "cluster",  # the rows of a window that are most unlike each other
    "disagreement",  # primary and shadow gave different classes: a query by committee of the two
]


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """One row that a person shall label.

    Attributes:
        command: number of the Command that asked for it.
        id: names the row without telling whose it is: a hash under a key that stays on the device.
        subject: the same of what the source called the row (a file, a person); "" if nothing.
        score: what the policy looked at, larger is more wanted; 0 for `random`.
        share: of all rows that came in the same window, how large a part was sent by this policy.
        probabilities: the model's answer, by class.
        shadow: digest of the shadow that answered too, and its class; None if there was none.
        dtype, shape, data: the raw row in C order after `transforms`; empty if it may not leave.
        transforms: what was done to the row before it left, in order.
    """

    format: int = 1
    slot: str = "main"
    model: str
    version: str
    digest: str
    command: int
    policy: Policy
    id: str
    subject: str = ""
    score: float = 0.0
    share: float = 0.0
    probabilities: tuple[float, ...]
    shadow: tuple[str, int] | None = None
    dtype: str = ""
    shape: tuple[int, ...] = ()
    data: bytes = b""
    transforms: tuple[str, ...] = ()


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something worth a line in the device's history."""

    format: int = 1
    name: str
    detail: str = ""


class Connection(msgspec.Struct, frozen=True, kw_only=True):
    """The device's connection came up; or, as its last will, that this very one broke.

    It is told by whoever serves MQTT when the device can't speak any more, so it is outside of the
    numbering (`seq` is 0). It counts for the connection it names alone: to repeat it changes
    nothing.

    Attributes:
        number: of the connection, counted from 1 within the boot.
        up: False in the last will.
    """

    format: int = 1
    number: int
    up: bool


class Sealed(msgspec.Struct, frozen=True, kw_only=True):
    """An upward message on its way.

    Attributes:
        boot: random id of the device's process start.
        seq: counts from 1 within it; 0 for a Connection.
        wall: the device's wall clock, Unix seconds; never trusted alone.
        uptime: its monotonic clock, seconds since `boot`.
        body: the encoded message; the topic says of which kind.
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


class DeliveryPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """How an order may be carried out; it only tightens what the device itself was told.

    Attributes:
        not_after: Unix seconds; an update that has not begun by then is given up. 0 is never.
        rate_limit_bytes: a second, for the download; 0 is no limit.
        window: "02:00-04:00", the device's local time, in which the update may begin; "" is always.
        metered: whether it may be downloaded over a metered link.
    """

    not_after: float = 0.0
    rate_limit_bytes: int = 0
    window: str = ""
    metered: bool = True


class Assignment(msgspec.Struct, frozen=True, kw_only=True):
    """The order which bundle a device shall run in a slot, or hold beside what runs there.

    Attributes:
        generation: only ever rises per (device, slot); a device refuses a lower one.
        digest, length: of the whole bundle file.
        rollout: id of the rollout that wants it.
        not_before: server's clock when it was signed, Unix seconds.
        needs: operators that the device's runtime must have, or it fetches nothing.
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
    needs: tuple[Op, ...] = ()
    role: Role = "serve"
    policy: DeliveryPolicy = DeliveryPolicy()


class SampleRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Which rows the server wants; what may leave the device is decided on the device.

    Attributes:
        model, version: only rows answered by these; "" is any.
        quota: samples in all, after which the request is done.
        until: Unix seconds by the server's clock, after which it is void.
        raw: whether the row itself is asked for, or only the model's answer.
        classes: only rows that were given one of these labels; empty is any.
        between: only rows whose channels (by name) lie in these intervals, ends included.
    """

    policy: Policy
    quota: int
    until: float
    model: str = ""
    version: str = ""
    raw: bool = True
    classes: tuple[str, ...] = ()
    between: dict[str, tuple[float, float]] = {}


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """What the server wants of a device beside its orders; retained, it stands until the next one.

    Attributes:
        number: only ever rises per device; the device takes none that is not above the last.
        samples: which rows it wants now; nothing takes an earlier wish back.
        issued: server's clock when it was signed, Unix seconds.
        measure: how many answers of its model the device shall time now, apart from its work; once,
            and told as an event `measured`. 0 is none.
        measure_since: the number of the command that first asked that; 0 is this one. A later one
            repeats it, since the device may have been away and is sent the last one alone.
    """

    format: int = 1
    device: str
    number: int
    issued: float
    samples: SampleRequest | None = None
    measure: int = 0
    measure_since: int = 0

    @property
    def measure_number(self) -> int:
        """Of the command that the answer to `measure` is told for."""
        return self.measure_since or self.number


Body = Report | Window | Event | Sample | Connection
KIND_OF: dict[type[Body], Upward] = {
    Report: "report",
    Window: "telemetry",
    Event: "event",
    Sample: "sample",
    Connection: "link",
}
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
    numbered = message.seq == 0 if kind == "link" else message.seq >= 1
    if not numbered or not message.boot or len(message.boot) > 64:
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
    text = _opened(payload, ASSIGNMENT, director, "an order")
    return _own(from_json(Assignment, text, "an order"), device, "an order")


def sign_command(command: Command, director: SigningKey) -> bytes:
    """The signed command, as JSON for the wire."""
    return msgspec.json.encode(director.seal(to_json(command), COMMAND))


def open_command(payload: bytes, device: str, director: PublicKey) -> Command:
    """The command in a signed envelope; raises as `open_assignment` does."""
    text = _opened(payload, COMMAND, director, "a command")
    return _own(from_json(Command, text, "a command"), device, "a command")


D = TypeVar("D", Assignment, Command)


def _opened(payload: bytes, kind: str, director: PublicKey, what: str) -> bytes:
    if len(payload) > MAX_MESSAGE:
        raise FormatError(f"{what} of {len(payload):,} bytes is over the limit {MAX_MESSAGE:,}")
    try:
        signed = msgspec.json.decode(payload, type=Signed)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise FormatError(f"{what} can't be read: {error}") from error
    return unseal(signed, kind, [director])


def _own(document: D, device: str, what: str) -> D:
    if document.device != device:
        raise UntrustedError(f"{what} for {document.device[:64]!r} was sent to {device}")
    return document


def _mac(message: Sealed, kind: Upward, key: bytes) -> bytes:
    content = (
        "edge/1 up", kind, message.format, message.device, message.boot, message.seq,
        message.wall, message.uptime, message.body,
    )  # fmt: skip
    return hmac.digest(key, msgspec.msgpack.encode(content), "sha256")


def _ack_mac(ack: Ack, device: str, key: bytes) -> bytes:
    content = ("edge/1 ack", ack.format, device, ack.boot, ack.seq)
    return hmac.digest(key, msgspec.msgpack.encode(content), "sha256")
