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
