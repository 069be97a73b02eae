"""What a gateway and a microcontroller say to each other on a serial line, version 1.

Each payload of a frame (`frames`) is one byte of kind, two of request number, and a body; numbers
are little-endian. A reply has its request's number and its kind with the high bit set. A request
with the number of the one before is a repetition: the board sends the same reply again.

    HELLO   version u8                      -> version u8, slots u8, chunk u16
    BEGIN   sha256 32, length u32           -> offset u32: how much of that model is here
    DATA    offset u32, bytes               -> offset u32: where to go on
    COMMIT  sha256 32                       -> what answers from now on, also after a reset
    RUN     first 8 of sha256, input bytes  -> microseconds u32, output bytes
    COUNTERS                                -> rows, errors, damaged frames, resets (u32), sha256 32
    FAILED (reply)                          -> text, in UTF-8

What the board says unasked is a reply to request 0, which nobody makes: COUNTERS after a reset, and
each row that its own sensor gave, with the answer of the model that is active, if one is:

    RESULT  first 8 of sha256 or zeros, count u32, microseconds u32, values u16,
            float32 of each value, output bytes

Its count rises by one from 1 after a reset, so that the gateway knows what it missed.
"""

import struct
from enum import IntEnum

import msgspec

from edge_sdk.errors import FormatError

VERSION = 1
REPLY = 0x80
CHUNK = 512  # bytes of a model in one frame; a board may ask for fewer
SHORT = 8  # bytes of a digest that name a model in RUN


class Kind(IntEnum):
    """Of a request."""

    HELLO = 1
    BEGIN = 2
    DATA = 3
    COMMIT = 4
    RUN = 5
    COUNTERS = 6
    RESULT = 7
    FAILED = 0x7F


class Packet(msgspec.Struct, frozen=True):
    """A request, or with `reply` the answer to the one of the same number."""

    kind: Kind
    number: int
    body: bytes = b""
    reply: bool = False

    def encode(self) -> bytes:
        """The payload of a frame.

        >>> Packet(Kind.HELLO, 258, b"x").encode().hex()
        '01020178'
        """
        kind = self.kind | (REPLY if self.reply else 0)
        return struct.pack("<BH", kind, self.number) + self.body

    @classmethod
    def decode(cls, payload: bytes) -> "Packet":
        """Raises FormatError."""
        try:
            kind, number = struct.unpack_from("<BH", payload)
            return cls(Kind(kind & ~REPLY), number, payload[3:], bool(kind & REPLY))
        except (struct.error, ValueError) as error:
            raise FormatError(f"not a packet of the serial protocol: {error}") from error


class Result(msgspec.Struct, frozen=True):
    """A row of the board's own sensor, and what it answered.

    Attributes:
        model: first 8 bytes of its model's SHA-256; zeros if none is active.
        count: of the rows since its reset.
        row: little-endian float32 values, raw.
        output: as the model stores it; empty if there is none.
    """

    model: bytes
    count: int
    microseconds: int
    row: bytes
    output: bytes = b""

    def encode(self) -> bytes:
        """The body of the packet.

        >>> Result(bytes(8), 1, 2, bytes(4), b"x").encode().hex()
        '0000000000000000010000000200000001000000000078'
        """
        numbers = struct.pack("<IIH", self.count, self.microseconds, len(self.row) // 4)
        return self.model + numbers + self.row + self.output

    @classmethod
    def decode(cls, body: bytes) -> "Result":
        """Raises FormatError."""
        try:
            count, microseconds, values = struct.unpack_from("<IIH", body, SHORT)
        except struct.error as error:
            raise FormatError(f"a board's result is too short: {error}") from error
        begin = SHORT + 10
        end = begin + 4 * values
        if len(body) < end or not values or not count:
            raise FormatError(f"a board's result of {len(body)} bytes can't hold {values} values")
        return cls(body[:SHORT], count, microseconds, body[begin:end], body[end:])


class Counters(msgspec.Struct, frozen=True):
    """What a board counts since it was made; `active` is the SHA-256 of what answers, or zeros."""

    rows: int
    errors: int
    damaged: int
    resets: int
    active: bytes

    def encode(self) -> bytes:
        """The body of the reply."""
        return struct.pack("<4I", self.rows, self.errors, self.damaged, self.resets) + self.active

    @classmethod
    def decode(cls, body: bytes) -> "Counters":
        """Raises FormatError."""
        if len(body) != 48:
            raise FormatError(f"a board's counters have 48 bytes, not {len(body)}")
        rows, errors, damaged, resets = struct.unpack_from("<4I", body)
        return cls(rows, errors, damaged, resets, body[16:])
