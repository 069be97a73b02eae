"""Frames on a serial line: COBS (Cheshire and Baker, 1999) around a payload and its CRC-32.

A zero byte ends each frame and stands nowhere else, so a reader that lost its place finds it again
at the next one; what was damaged on the way fails its CRC and is counted.
"""

import struct
import zlib

MAX_FRAME = 64 * 1024  # bytes; a longer one is noise


def encode_frame(payload: bytes) -> bytes:
    r"""The frame for the wire, ending in its zero byte.

    >>> encode_frame(b"\x07").hex()
    '06072e7a664c00'
    """
    return cobs(payload + struct.pack("<I", zlib.crc32(payload))) + b"\0"


def cobs(data: bytes) -> bytes:
    """`data` without zero bytes.

    >>> cobs(bytes([1, 0, 0, 2])).hex()
    '0201010202'
    """
    out = bytearray()
    for part in data.split(b"\0"):
        whole = len(part) // 254 * 254
        for at in range(0, whole, 254):  # a run without a zero: its count says no zero follows
            out += b"\xff" + part[at : at + 254]
        out += bytes([len(part) - whole + 1]) + part[whole:]
    return bytes(out)


def uncobs(data: bytes) -> bytes | None:
    """What `cobs` was given; None if this can't have come from it."""
    out, at = bytearray(), 0
    while at < len(data):
        count = data[at]
        block = data[at + 1 : at + count]
        if count == 0 or len(block) < count - 1 or 0 in block:
            return None
        out += block
        at += count
        if count < 255 and at < len(data):
            out.append(0)
    return bytes(out)


class Deframer:
    """Takes bytes as they come and gives the payloads of whole frames; counts the damaged ones."""

    def __init__(self) -> None:
        self._begun = bytearray()
        self.damaged = 0

    def feed(self, data: bytes) -> list[bytes]:
        """The payloads that ended with these bytes."""
        *ended, rest = (bytes(self._begun) + data).split(b"\0")
        self._begun = bytearray(rest)
        if len(self._begun) > MAX_FRAME:
            self._begun.clear()
            self.damaged += 1
        return [payload for frame in ended if (payload := self._payload(frame)) is not None]

    def _payload(self, frame: bytes) -> bytes | None:
        if not frame:
            return None  # two ends in a row: how a sender makes sure of a fresh start
        found = uncobs(frame)
        if found is None or len(found) < 4:
            self.damaged += 1
            return None
        payload, crc = found[:-4], found[-4:]
        if struct.pack("<I", zlib.crc32(payload)) != crc:
            self.damaged += 1
            return None
        return payload
