"""Control packets for a device, to bytes; no I/O."""

from fleet_server.mqtt.packets import (
    V5,
    Connack,
    Disconnect,
    Pingresp,
    Puback,
    Publish,
    Suback,
    ToDevice,
    Unsuback,
)
from fleet_server.mqtt.reasons import CONNECT_CODE_3_1_1, Reason
from fleet_server.mqtt.wire import binary, varint, write_properties


def encode(packet: ToDevice, version: int) -> bytes:
    """The bytes of a packet for a peer of this protocol version."""
    match packet:
        case Puback():
            return _puback(packet, version)
        case Publish():
            return _publish(packet, version)
        case Connack():
            return _connack(packet, version)
        case Suback():
            reasons = packet.reasons if version == V5 else map(_code_3_1_1, packet.reasons)
            properties = b"\x00" if version == V5 else b""
            return _frame(0x90, _uint16(packet.packet_id) + properties + bytes(reasons))
        case Unsuback():
            codes = b"\x00" + bytes(packet.reasons) if version == V5 else b""
            return _frame(0xB0, _uint16(packet.packet_id) + codes)
        case Pingresp():
            return b"\xd0\x00"
        case Disconnect():
            if version != V5:
                return b""  # a 3.1.1 server has no such packet: it just closes
            return _frame(0xE0, bytes([packet.reason]) + write_properties(packet.properties))


def _uint16(value: int) -> bytes:
    return value.to_bytes(2, "big")


def _frame(first: int, body: bytes) -> bytes:
    return bytes([first]) + varint(len(body)) + body


def _puback(packet: Puback, version: int) -> bytes:
    if packet.reason == Reason.SUCCESS or version != V5:
        return b"\x40\x02" + _uint16(packet.packet_id)
    return b"\x40\x03" + _uint16(packet.packet_id) + bytes([packet.reason])


def _publish(packet: Publish, version: int) -> bytes:
    first = 0x30 | packet.dup << 3 | packet.qos << 1 | packet.retain
    parts = [
        binary(packet.topic.encode()),
        _uint16(packet.packet_id) if packet.qos else b"",
        write_properties(packet.properties) if version == V5 else b"",
        packet.payload,
    ]
    return _frame(first, b"".join(parts))


def _connack(packet: Connack, version: int) -> bytes:
    if version == V5:
        body = b"\x00" + bytes([packet.reason]) + write_properties(packet.properties)
        return _frame(0x20, body)
    code = CONNECT_CODE_3_1_1.get(packet.reason)
    return b"" if code is None else b"\x20\x02\x00" + bytes([code])


def _code_3_1_1(reason: Reason) -> int:
    return min(reason, Reason.UNSPECIFIED)
