"""How every document of ours is read and written: msgspec structs with a `format` number.

JSON for documents people open, MessagePack maps for messages, TOML for what people write. Unknown
fields are ignored where a newer sender may add some; unknown versions are refused in words.
"""

import functools
from typing import TypeVar

import msgspec

from edge_sdk.errors import FormatError, UnsupportedVersionError

T = TypeVar("T", bound=msgspec.Struct)
_FIRST = b"\xa6format"  # behind the one byte that begins a map


class _Version(msgspec.Struct):
    format: int | None = None


def to_json(document: msgspec.Struct) -> bytes:
    """Stable, readable bytes: fields in declared order, two spaces, a newline at the end."""
    return msgspec.json.format(msgspec.json.encode(document, order="deterministic")) + b"\n"


def from_json(kind: type[T], data: bytes, what: str) -> T:
    """Read a JSON document; `what` names it in the error.

    Raises:
        FormatError: not JSON, a field missing or of a wrong type.
        UnsupportedVersionError: a `format` this side does not know.
    """
    try:
        _check_version(kind, msgspec.json.decode(data, type=_Version), what)
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FormatError(f"{what} can't be read: {error}") from error


def to_msgpack(message: msgspec.Struct) -> bytes:
    """A MessagePack map, readable by name and open to new fields."""
    return msgspec.msgpack.encode(message, order="deterministic")


def from_msgpack(kind: type[T], data: bytes, what: str) -> T:
    """Read a MessagePack message; raises as `from_json` does."""
    if (found := _as_expected(kind, data)) is not None:
        return found
    try:
        _check_version(kind, msgspec.msgpack.decode(data, type=_Version), what)
        return msgspec.msgpack.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FormatError(f"{what} can't be read: {error}") from error


def from_toml(kind: type[T], data: bytes, what: str) -> T:
    """Read a TOML file, in which people may leave `format` out; raises as `from_json` does."""
    try:
        text = data.decode()
        found = msgspec.toml.decode(text, type=_Version)
        if found.format is not None:
            _check_version(kind, found, what)
        return msgspec.toml.decode(text, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise FormatError(f"{what} can't be read: {error}") from error


def _as_expected(kind: type[T], data: bytes) -> T | None:
    """A message of ours, which begins with its version, read once; None if a closer look is due."""
    if data[1:8] != _FIRST:
        return None
    try:
        found = _decoder(kind).decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return found if getattr(found, "format", None) == _known_version(kind) else None


@functools.cache
def _decoder(kind: type[T]) -> msgspec.msgpack.Decoder[T]:
    return msgspec.msgpack.Decoder(kind)


def _check_version(kind: type[msgspec.Struct], found: _Version, what: str) -> None:
    known = _known_version(kind)
    if found.format != known:
        raise UnsupportedVersionError(what, found.format, known)


@functools.cache  # looking it up takes longer than reading a message
def _known_version(kind: type[msgspec.Struct]) -> int:
    field = next(f for f in msgspec.structs.fields(kind) if f.name == "format")
    if field.default_factory is not msgspec.NODEFAULT:  # so that it is never left out
        return int(field.default_factory())
    return int(field.default)
