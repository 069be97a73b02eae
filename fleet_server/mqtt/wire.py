"""The data types of MQTT (1.5) and the properties of MQTT 5 (2.2.2), to and from bytes.

Everything a peer can get wrong raises MqttError; reading never looks past the packet's own bytes.
"""

from collections.abc import Collection
from enum import IntEnum

from fleet_server.mqtt.reasons import MqttError, Reason

Pairs = tuple[tuple[str, str], ...]
Value = int | str | bytes | Pairs


class Property(IntEnum):
    """Identifiers of the properties that devices may send and that this server sends."""

    PAYLOAD_FORMAT = 0x01
    MESSAGE_EXPIRY = 0x02
    CONTENT_TYPE = 0x03
    RESPONSE_TOPIC = 0x08
    CORRELATION_DATA = 0x09
    SUBSCRIPTION_ID = 0x0B
    SESSION_EXPIRY = 0x11
    ASSIGNED_CLIENT_ID = 0x12
    AUTHENTICATION_METHOD = 0x15
    AUTHENTICATION_DATA = 0x16
    REQUEST_PROBLEM = 0x17
    WILL_DELAY = 0x18
    REQUEST_RESPONSE = 0x19
    REASON_STRING = 0x1F
    RECEIVE_MAXIMUM = 0x21
    TOPIC_ALIAS_MAXIMUM = 0x22
    TOPIC_ALIAS = 0x23
    MAXIMUM_QOS = 0x24
    RETAIN_AVAILABLE = 0x25
    USER = 0x26
    MAXIMUM_PACKET_SIZE = 0x27
    SUBSCRIPTION_ID_AVAILABLE = 0x29
    SHARED_AVAILABLE = 0x2A


Properties = dict[Property, Value]

_FLAG = frozenset({
    Property.PAYLOAD_FORMAT, Property.REQUEST_PROBLEM, Property.REQUEST_RESPONSE,
    Property.MAXIMUM_QOS, Property.RETAIN_AVAILABLE, Property.SUBSCRIPTION_ID_AVAILABLE,
    Property.SHARED_AVAILABLE,
})  # fmt: skip
_UINT16 = frozenset({
    Property.RECEIVE_MAXIMUM, Property.TOPIC_ALIAS_MAXIMUM, Property.TOPIC_ALIAS,
})  # fmt: skip
_UINT32 = frozenset({
    Property.MESSAGE_EXPIRY, Property.SESSION_EXPIRY, Property.WILL_DELAY,
    Property.MAXIMUM_PACKET_SIZE,
})  # fmt: skip
_BINARY = frozenset({Property.CORRELATION_DATA, Property.AUTHENTICATION_DATA})
_NEVER_ZERO = frozenset({Property.RECEIVE_MAXIMUM, Property.MAXIMUM_PACKET_SIZE})


def malformed(text: str) -> MqttError:
    return MqttError(Reason.MALFORMED, text)


class Reader:
    """Takes values off the front of one packet's body."""

    __slots__ = ("_at", "_data", "_end")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0
        self._end = len(data)

    @property
    def left(self) -> int:
        return self._end - self._at

    def take(self, count: int) -> bytes:
        at = self._at
        self._at = at + count
        if self._at > self._end:
            raise malformed(f"the packet ends {self._at - self._end} bytes too early")
        return self._data[at : self._at]

    def rest(self) -> bytes:
        return self.take(self.left)

    def byte(self) -> int:
        return self.take(1)[0]

    def uint16(self) -> int:
        high, low = self.take(2)
        return high << 8 | low

    def uint32(self) -> int:
        return int.from_bytes(self.take(4), "big")

    def varint(self) -> int:
        value = 0
        for shift in (0, 7, 14, 21):
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if byte == 0 and shift:
                    raise malformed("a variable byte integer is longer than it need be")
                return value
        raise malformed("a variable byte integer has more than 4 bytes")

    def binary(self) -> bytes:
        return self.take(self.uint16())

    def text(self) -> str:
        try:
            text = self.binary().decode()
        except UnicodeDecodeError as error:
            raise malformed(f"a string is not UTF-8: {error.reason}") from error
        if "\0" in text:
            raise malformed("a string holds U+0000")
        return text

    def properties(self, allowed: Collection[Property]) -> Properties:
        """Properties of an MQTT 5 packet, each at most once but the user's own."""
        inner = Reader(self.take(self.varint()))
        found: Properties = {}
        while inner.left:
            number = inner.varint()
            if number not in allowed:
                raise malformed(f"property 0x{number:02X} has no place in this packet")
            key = Property(number)
            if key is Property.USER:
                pairs = found.get(key, ())
                # quadratic only in a packet of user properties alone, so their number is limited
                if not isinstance(pairs, tuple) or len(pairs) >= MAX_USER_PROPERTIES:
                    raise MqttError(
                        Reason.QUOTA_EXCEEDED, f"over {MAX_USER_PROPERTIES} user properties"
                    )
                found[key] = (*pairs, (inner.text(), inner.text()))
            elif key in found:
                raise MqttError(Reason.PROTOCOL_ERROR, f"property {key.name} is given twice")
            else:
                found[key] = _read_value(inner, key)
        return found


MAX_USER_PROPERTIES = 64


def _read_value(reader: Reader, key: Property) -> Value:
    if key in _FLAG:
        value = reader.byte()
        if value > 1:
            raise MqttError(Reason.PROTOCOL_ERROR, f"property {key.name} is {value}, not 0 or 1")
        return value
    if key in _UINT16 or key in _UINT32:
        value = reader.uint16() if key in _UINT16 else reader.uint32()
        if value == 0 and key in _NEVER_ZERO:
            raise MqttError(Reason.PROTOCOL_ERROR, f"property {key.name} is 0")
        return value
    if key is Property.SUBSCRIPTION_ID:
        return reader.varint()
    return reader.binary() if key in _BINARY else reader.text()


def number(properties: Properties, key: Property, default: int) -> int:
    """A numeric property, or what its absence means."""
    value = properties.get(key, default)
    return value if isinstance(value, int) else default


def varint(value: int) -> bytes:
    """A variable byte integer (1.5.5).

    >>> varint(321).hex()
    'c102'
    """
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def binary(value: bytes) -> bytes:
    return len(value).to_bytes(2, "big") + value


def write_properties(properties: Properties) -> bytes:
    """The property block of an MQTT 5 packet, with its length."""
    block = b"".join(_write_property(key, value) for key, value in properties.items())
    return varint(len(block)) + block


def _write_property(key: Property, value: Value) -> bytes:
    match value:
        case int():
            width = 1 if key in _FLAG else 2 if key in _UINT16 else 4
            return bytes([key]) + value.to_bytes(width, "big")
        case str():
            return bytes([key]) + binary(value.encode())
        case bytes():
            return bytes([key]) + binary(value)
        case _:
            return b"".join(
                bytes([key]) + binary(name.encode()) + binary(text.encode()) for name, text in value
            )
