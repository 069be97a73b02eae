"""Bytes of a device in, control packets out; no I/O. Junk of any kind raises MqttError only.

Packets are pulled one at a time, so whoever pulls sets the pace, and a packet that is announced as
too long is refused by its header, before its body is taken in.
"""

from collections.abc import Callable

from fleet_server.mqtt.packets import (
    V3_1_1,
    V5,
    Connect,
    Disconnect,
    FromDevice,
    Pingreq,
    Puback,
    Publish,
    Subscribe,
    Subscription,
    Unsubscribe,
    Will,
)
from fleet_server.mqtt.reasons import MqttError, Reason
from fleet_server.mqtt.wire import Property, Reader, malformed

MAX_CONNECT = 16 * 1024  # nobody has to take in more from a stranger

_WILL = frozenset({
    Property.WILL_DELAY, Property.PAYLOAD_FORMAT, Property.MESSAGE_EXPIRY, Property.CONTENT_TYPE,
    Property.RESPONSE_TOPIC, Property.CORRELATION_DATA, Property.USER,
})  # fmt: skip
_CONNECT = frozenset({
    Property.SESSION_EXPIRY, Property.RECEIVE_MAXIMUM, Property.MAXIMUM_PACKET_SIZE,
    Property.TOPIC_ALIAS_MAXIMUM, Property.REQUEST_RESPONSE, Property.REQUEST_PROBLEM,
    Property.USER, Property.AUTHENTICATION_METHOD, Property.AUTHENTICATION_DATA,
})  # fmt: skip
_PUBLISH = frozenset({
    Property.PAYLOAD_FORMAT, Property.MESSAGE_EXPIRY, Property.TOPIC_ALIAS,
    Property.RESPONSE_TOPIC, Property.CORRELATION_DATA, Property.USER, Property.CONTENT_TYPE,
})  # fmt: skip
_ACK = frozenset({Property.REASON_STRING, Property.USER})
_SUBSCRIBE = frozenset({Property.SUBSCRIPTION_ID, Property.USER})
_UNSUBSCRIBE = frozenset({Property.USER})
_DISCONNECT = frozenset({Property.SESSION_EXPIRY, Property.REASON_STRING, Property.USER})


class Decoder:
    """One connection's incoming bytes. `version` is 0 until a CONNECT has told it."""

    def __init__(self, max_packet: int) -> None:
        self.version = 0
        self._max_packet = max_packet
        self._buffer = bytearray()
        self._greeted = False

    def feed(self, data: bytes) -> None:
        self._buffer += data

    def next_packet(self) -> FromDevice | None:
        """The next whole packet; None if there is none yet. After an error, do not go on."""
        header = self._header()
        if header is None or len(self._buffer) < header[1]:
            return None
        start, end = header
        first = self._buffer[0]
        body = bytes(memoryview(self._buffer)[start:end])
        del self._buffer[:end]  # moves no bytes: a bytearray drops its front in place
        return self._decode(first >> 4, first & 0x0F, body)

    def _header(self) -> tuple[int, int] | None:
        """Where the body of the first packet begins and ends; None if that is not known yet."""
        buffer = self._buffer
        if not self._greeted and buffer and buffer[0] != _CONNECT_KIND << 4:
            raise MqttError(Reason.PROTOCOL_ERROR, "the first packet is not CONNECT")
        length = 0
        for at in range(1, 5):
            if at >= len(buffer):
                return None
            byte = buffer[at]
            length |= (byte & 0x7F) << 7 * (at - 1)
            limit = self._max_packet if self._greeted else MAX_CONNECT
            if at + 1 + length > limit:
                raise MqttError(
                    Reason.PACKET_TOO_LARGE, f"a packet is over the limit of {limit:,} bytes"
                )
            if byte < 0x80:
                if byte == 0 and at > 1:
                    raise malformed("a packet's length has more bytes than it need have")
                return at + 1, at + 1 + length
        raise malformed("a packet's length has more than 4 bytes")

    def _decode(self, kind: int, flags: int, body: bytes) -> FromDevice:
        reader = Reader(body)
        if not self._greeted:
            packet: FromDevice = self._connect(reader)
            self._greeted = True
        elif kind == _PUBLISH_KIND:
            return _publish(reader, flags, self.version)  # takes all that is left
        elif kind in _DECODERS:
            expected_flags, decode = _DECODERS[kind]
            if flags != expected_flags:
                raise malformed(f"a packet of type {kind} has flags {flags:04b}")
            packet = decode(reader, self.version)
        else:
            raise MqttError(
                Reason.MALFORMED if kind == 0 else Reason.PROTOCOL_ERROR,
                f"a packet of type {kind} has no place here",
            )
        if reader.left:
            raise malformed(f"{reader.left} bytes are left at the end of a packet")
        return packet

    def _connect(self, reader: Reader) -> Connect:
        if reader.binary() != b"MQTT":
            raise malformed("this is not MQTT 3.1.1 or 5")
        level = reader.byte()
        if level not in (V3_1_1, V5):
            self.version = V3_1_1  # the form of CONNACK that every version can read
            raise MqttError(Reason.UNSUPPORTED_VERSION, f"MQTT level {level} is not 3.1.1 or 5")
        self.version = level
        flags = reader.byte()
        if flags & 0x01:
            raise malformed("the reserved flag of CONNECT is set")
        keep_alive = reader.uint16()
        properties = reader.properties(_CONNECT) if level == V5 else {}
        client_id = reader.text()
        will = _will(reader, flags, level)
        if flags & 0x40 and not flags & 0x80 and level == V3_1_1:
            raise malformed("CONNECT has a password but no user name")
        return Connect(
            version=level,
            client_id=client_id,
            clean=bool(flags & 0x02),
            keep_alive=keep_alive,
            username=reader.text() if flags & 0x80 else None,
            password=reader.binary() if flags & 0x40 else None,
            will=will,
            properties=properties,
        )


def _will(reader: Reader, flags: int, version: int) -> Will | None:
    qos = flags >> 3 & 0x03
    if not flags & 0x04:
        if qos or flags & 0x20:
            raise malformed("CONNECT has flags of a will but no will")
        return None
    if qos == 3:
        raise malformed("the will has QoS 3")
    properties = reader.properties(_WILL) if version == V5 else {}
    topic = reader.text()
    return Will(
        topic=topic,
        payload=reader.binary(),
        qos=qos,
        retain=bool(flags & 0x20),
        properties=properties,
    )


def _publish(reader: Reader, flags: int, version: int) -> Publish:
    qos = flags >> 1 & 0x03
    if qos == 3 or (qos == 0 and flags & 0x08):
        raise malformed("PUBLISH has impossible flags")
    if qos == 2:
        raise MqttError(Reason.QOS_NOT_SUPPORTED, "QoS 2 is not offered: publish with QoS 1")
    topic = reader.text()
    packet_id = _packet_id(reader) if qos else 0
    properties = reader.properties(_PUBLISH) if version == V5 else {}
    return Publish(
        topic=topic,
        payload=reader.rest(),
        qos=qos,
        retain=bool(flags & 0x01),
        dup=bool(flags & 0x08),
        packet_id=packet_id,
        properties=properties,
    )


def _packet_id(reader: Reader) -> int:
    packet_id = reader.uint16()
    if packet_id == 0:
        raise malformed("a packet identifier is 0")
    return packet_id


def _puback(reader: Reader, version: int) -> Puback:
    packet_id = _packet_id(reader)
    if version != V5 or not reader.left:
        return Puback(packet_id)
    reason = reader.byte()
    if reader.left:
        reader.properties(_ACK)
    return Puback(packet_id, reason)


def _subscribe(reader: Reader, version: int) -> Subscribe:
    packet_id = _packet_id(reader)
    properties = reader.properties(_SUBSCRIBE) if version == V5 else {}
    subscriptions = []
    while reader.left:
        topic_filter = reader.text()
        options = reader.byte()
        qos, retain_handling = options & 0x03, options >> 4 & 0x03
        reserved = 0xC0 if version == V5 else 0xFC
        if options & reserved or qos == 3 or retain_handling == 3:
            raise malformed(f"a subscription has impossible options {options:08b}")
        subscriptions.append(
            Subscription(filter=topic_filter, qos=qos, retain_handling=retain_handling)
        )
    if not subscriptions:
        raise MqttError(Reason.PROTOCOL_ERROR, "SUBSCRIBE names no topic")
    return Subscribe(packet_id, tuple(subscriptions), properties)


def _unsubscribe(reader: Reader, version: int) -> Unsubscribe:
    packet_id = _packet_id(reader)
    if version == V5:
        reader.properties(_UNSUBSCRIBE)
    filters = []
    while reader.left:
        filters.append(reader.text())
    if not filters:
        raise MqttError(Reason.PROTOCOL_ERROR, "UNSUBSCRIBE names no topic")
    return Unsubscribe(packet_id, tuple(filters))


def _pingreq(_reader: Reader, _version: int) -> Pingreq:
    return Pingreq()


def _disconnect(reader: Reader, version: int) -> Disconnect:
    if version != V5 or not reader.left:
        return Disconnect()
    reason = reader.byte()
    return Disconnect(reason, reader.properties(_DISCONNECT) if reader.left else {})


_CONNECT_KIND = 1
_PUBLISH_KIND = 3
_DECODERS: dict[int, tuple[int, Callable[[Reader, int], FromDevice]]] = {
    4: (0, _puback),
    8: (2, _subscribe),
    10: (2, _unsubscribe),
    12: (0, _pingreq),
    14: (0, _disconnect),
}
