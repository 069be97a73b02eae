"""The MQTT codec against packets written here by the letter of the specification, and junk."""

import itertools
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_server.mqtt.decoding import MAX_CONNECT, Decoder
from fleet_server.mqtt.encoding import encode
from fleet_server.mqtt.packets import (
    V3_1_1,
    V5,
    Connack,
    Connect,
    Disconnect,
    Pingreq,
    Pingresp,
    Puback,
    Publish,
    Suback,
    Subscribe,
    Subscription,
    Unsuback,
    Unsubscribe,
    Will,
)
from fleet_server.mqtt.reasons import MqttError, Reason
from fleet_server.mqtt.wire import Property, Reader, varint, write_properties

LIMIT = 300_000


# a device's side of the codec, on its own feet


def u16(value):
    return bytes([value >> 8, value & 0xFF])


def counted(data):
    data = data.encode() if isinstance(data, str) else data
    return u16(len(data)) + data


def frame(first, body):
    length, out = len(body), b""
    while True:
        length, digit = divmod(length, 128)
        out += bytes([digit + (128 if length else 0)])
        if not length:
            return bytes([first]) + out + body


def block(properties, version):
    return write_properties(properties) if version == V5 else b""


def connect_bytes(packet):
    will = packet.will
    flags = packet.clean * 2
    parts = [counted(packet.client_id)]
    if will is not None:
        flags |= 4 | will.qos << 3 | will.retain << 5
        parts += [
            block(will.properties, packet.version),
            counted(will.topic),
            counted(will.payload),
        ]
    if packet.username is not None:
        flags |= 0x80
        parts.append(counted(packet.username))
    if packet.password is not None:
        flags |= 0x40
        parts.append(counted(packet.password))
    head = counted("MQTT") + bytes([packet.version, flags]) + u16(packet.keep_alive)
    return frame(0x10, head + block(packet.properties, packet.version) + b"".join(parts))


def subscribe_bytes(packet, version):
    topics = b"".join(
        counted(wish.filter) + bytes([wish.qos | wish.retain_handling << 4])
        for wish in packet.subscriptions
    )
    return frame(0x82, u16(packet.packet_id) + block(packet.properties, version) + topics)


def unsubscribe_bytes(packet, version):
    topics = b"".join(map(counted, packet.filters))
    return frame(0xA2, u16(packet.packet_id) + block({}, version) + topics)


# any packet a device may send

texts = st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=40)
blobs = st.binary(max_size=300)
ids = st.integers(1, 65_535)
versions = st.sampled_from([V3_1_1, V5])
users = st.lists(st.tuples(texts, texts), min_size=1, max_size=3).map(tuple)


def properties(**allowed):
    return st.fixed_dictionaries(
        {}, optional={Property[name]: values for name, values in allowed.items()}
    )


publish_properties = properties(
    PAYLOAD_FORMAT=st.integers(0, 1),
    MESSAGE_EXPIRY=st.integers(0, 2**32 - 1),
    TOPIC_ALIAS=st.integers(0, 65_535),
    RESPONSE_TOPIC=texts,
    CORRELATION_DATA=blobs,
    CONTENT_TYPE=texts,
    USER=users,
)


@st.composite
def publishes(draw, version):
    qos = draw(st.integers(0, 1))
    return Publish(
        topic=draw(texts),
        payload=draw(blobs),
        qos=qos,
        retain=draw(st.booleans()),
        dup=bool(qos) and draw(st.booleans()),
        packet_id=draw(ids) if qos else 0,
        properties=draw(publish_properties) if version == V5 else {},
    )


@st.composite
def connects(draw, version):
    v5 = version == V5
    username = draw(st.none() | texts)
    will = st.builds(
        Will,
        topic=texts,
        payload=blobs,
        qos=st.integers(0, 2),
        retain=st.booleans(),
        properties=properties(WILL_DELAY=st.integers(0, 99), USER=users) if v5 else st.just({}),
    )
    return Connect(
        version=version,
        client_id=draw(texts),
        clean=draw(st.booleans()),
        keep_alive=draw(st.integers(0, 65_535)),
        username=username,
        password=draw(st.none() | blobs) if v5 or username is not None else None,
        will=draw(st.none() | will),
        properties=draw(
            properties(
                SESSION_EXPIRY=st.integers(0, 2**32 - 1),
                RECEIVE_MAXIMUM=ids,
                MAXIMUM_PACKET_SIZE=ids,
                USER=users,
            )
        )
        if v5
        else {},
    )


@st.composite
def conversations(draw):
    """Packets of one device with the bytes they travel as."""
    version = draw(versions)
    hello = draw(connects(version))
    sent = [(hello, connect_bytes(hello))]
    wishes = st.builds(
        Subscription,
        filter=texts,
        qos=st.integers(0, 2),
        retain_handling=st.integers(0, 2) if version == V5 else st.just(0),
    )
    for kind in draw(
        st.lists(st.sampled_from(["publish", "puback", "sub", "unsub", "ping", "bye"]))
    ):
        match kind:
            case "publish":
                packet = draw(publishes(version))
                data = encode(packet, version)
            case "puback":
                packet = Puback(draw(ids), draw(st.integers(0, 255)) if version == V5 else 0)
                data = encode(packet, version)
            case "sub":
                packet = Subscribe(draw(ids), tuple(draw(st.lists(wishes, min_size=1, max_size=3))))
                data = subscribe_bytes(packet, version)
            case "unsub":
                packet = Unsubscribe(draw(ids), tuple(draw(st.lists(texts, min_size=1))))
                data = unsubscribe_bytes(packet, version)
            case "ping":
                packet, data = Pingreq(), b"\xc0\x00"
            case "bye":
                packet = Disconnect(draw(st.integers(0, 255)) if version == V5 else 0)
                data = encode(packet, version) or b"\xe0\x00"
        sent.append((packet, data))
    return sent


def drained(decoder, chunks):
    """Every packet of these chunks, and the error that ended them, if any."""
    packets = []
    for chunk in chunks:
        decoder.feed(chunk)
        try:
            while (packet := decoder.next_packet()) is not None:
                packets.append(packet)
        except MqttError as error:
            return packets, (error.reason, error.text)
    return packets, None


def split(data, cuts):
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(places)]


@given(conversations(), st.lists(st.integers(0)))
def test_what_a_device_sends_is_understood_in_whatever_chunks_it_comes(conversation, cuts):
    data = b"".join(piece for _, piece in conversation)
    packets, error = drained(Decoder(LIMIT), split(data, cuts))
    assert error is None
    assert packets == [packet for packet, _ in conversation]


@given(conversations())
def test_one_byte_at_a_time_is_enough(conversation):
    data = b"".join(piece for _, piece in conversation)
    packets, error = drained(Decoder(LIMIT), [bytes([byte]) for byte in data])
    assert (packets, error) == ([packet for packet, _ in conversation], None)


@given(st.binary(max_size=200), st.lists(st.integers(0)))
def test_junk_before_connect_raises_nothing_but_the_typed_error(junk, cuts):
    whole = drained(Decoder(LIMIT), [junk])
    assert drained(Decoder(LIMIT), split(junk, cuts)) == whole


@given(
    versions,
    st.sampled_from([0x30, 0x32, 0x40, 0x82, 0xA2, 0xC0, 0xE0, 0xF0, 0x00]),
    st.binary(max_size=120),
    st.lists(st.integers(0)),
)
def test_junk_in_a_well_formed_frame_raises_nothing_but_the_typed_error(version, first, body, cuts):
    hello = connect_bytes(Connect(version=version, client_id="", clean=True, keep_alive=0))
    data = hello + frame(first, body)
    whole = drained(Decoder(LIMIT), [data])
    assert drained(Decoder(LIMIT), split(data, cuts)) == whole


@given(conversations(), st.integers(0), st.integers(1, 255))
def test_a_flipped_byte_raises_nothing_but_the_typed_error(conversation, place, flip):
    data = bytearray(b"".join(piece for _, piece in conversation))
    data[place % len(data)] ^= flip
    drained(Decoder(LIMIT), [bytes(data)])


@given(st.integers(0, 2**28 - 1))
def test_variable_byte_integers_come_back(value):
    assert Reader(varint(value)).varint() == value


def hello(version):
    return connect_bytes(Connect(version=version, client_id="x", clean=True, keep_alive=0))


@pytest.mark.parametrize(
    ("version", "data", "reason"),
    [
        (V5, frame(0x34, counted("t") + u16(1) + b"\0"), Reason.QOS_NOT_SUPPORTED),
        (V3_1_1, frame(0x34, counted("t") + u16(1)), Reason.QOS_NOT_SUPPORTED),
        (V5, frame(0x36, b""), Reason.MALFORMED),
        (V5, frame(0x38, counted("t") + b"\0"), Reason.MALFORMED),  # DUP at QoS 0
        (V5, frame(0x32, counted("t") + u16(0) + b"\0"), Reason.MALFORMED),
        (V5, frame(0x30, counted(b"\xed\xa0\x80") + b"\0"), Reason.MALFORMED),  # a surrogate
        (V5, frame(0x30, counted("a\0b") + b"\0"), Reason.MALFORMED),
        (V5, frame(0x30, counted("t") + b"\x02\x7f\x00"), Reason.MALFORMED),  # unknown
        (V5, frame(0x30, counted("t") + b"\x03\x21\x00\x05"), Reason.MALFORMED),  # of CONNECT
        (V5, frame(0x30, counted("t") + b"\x04\x01\x00\x01\x00"), Reason.PROTOCOL_ERROR),  # twice
        (V5, frame(0x30, counted("t") + b"\x02\x01\x02"), Reason.PROTOCOL_ERROR),  # a flag of 2
        (V5, frame(0x30, counted("t") + b"\x81\x00"), Reason.MALFORMED),  # 1 in two bytes
        (V5, frame(0x80, u16(1) + b"\0" + counted("t") + b"\0"), Reason.MALFORMED),  # flags
        (V5, frame(0x82, u16(1) + b"\0"), Reason.PROTOCOL_ERROR),
        (V5, frame(0x82, u16(1) + b"\0" + counted("t") + b"\xc0"), Reason.MALFORMED),
        (V3_1_1, frame(0x82, u16(1) + counted("t") + b"\x10"), Reason.MALFORMED),
        (V5, frame(0xA2, u16(1) + b"\0"), Reason.PROTOCOL_ERROR),
        (V5, frame(0xC0, b"x"), Reason.MALFORMED),
        (V5, frame(0xF0, b""), Reason.PROTOCOL_ERROR),  # AUTH
        (V5, frame(0x62, u16(1)), Reason.PROTOCOL_ERROR),  # PUBREL
        (V5, frame(0x20, b"\0\0\0"), Reason.PROTOCOL_ERROR),  # CONNACK from a device
        (V5, frame(0x00, b""), Reason.MALFORMED),
        (V5, b"\x30\xff\xff\xff\x7f", Reason.PACKET_TOO_LARGE),
        (V5, b"\x30\x80\x80\x80\x80\x01", Reason.MALFORMED),
        (V5, b"\xc0\x80\x00", Reason.MALFORMED),  # 0 in two bytes
    ],
)
def test_a_broken_rule_is_told_by_its_reason_code(version, data, reason):
    packets, error = drained(Decoder(LIMIT), [hello(version) + data])
    assert len(packets) == 1
    assert error is not None
    assert error[0] == reason


def test_a_long_packet_is_refused_by_its_header_alone():
    decoder = Decoder(1000)
    decoder.feed(hello(V5))
    decoder.next_packet()
    decoder.feed(b"\x30\xe9\x07")  # 1001 bytes follow
    with pytest.raises(MqttError, match="over the limit of 1,000 bytes"):
        decoder.next_packet()


def test_a_stranger_may_send_only_a_short_packet():
    decoder = Decoder(10**7)
    decoder.feed(b"\x10" + varint(MAX_CONNECT))
    with pytest.raises(MqttError, match="over the limit"):
        decoder.next_packet()


def test_another_protocol_version_is_refused_as_such():
    decoder = Decoder(LIMIT)
    decoder.feed(frame(0x10, counted("MQTT") + bytes([6, 2]) + u16(0) + counted("")))
    with pytest.raises(MqttError) as caught:
        decoder.next_packet()
    assert caught.value.reason is Reason.UNSUPPORTED_VERSION
    assert decoder.version == V3_1_1


def test_a_megabyte_in_small_pieces_takes_linear_time():
    packet = encode(Publish(topic="t", payload=bytes(1_000_000)), V5)
    data = hello(V5) + packet * 5
    decoder = Decoder(2_000_000)
    started = time.perf_counter()
    packets, error = drained(decoder, [data[i : i + 100] for i in range(0, len(data), 100)])
    assert error is None
    assert len(packets) == 6
    assert time.perf_counter() - started < 5  # a copy per piece would move 25 GB


@pytest.mark.parametrize(
    ("packet", "v3", "v5"),
    [
        (Connack(reason=Reason.SUCCESS), "20020000", "2003000000"),
        (Connack(reason=Reason.BAD_CREDENTIALS), "20020004", "2003008600"),
        (Connack(reason=Reason.MALFORMED), "", "2003008100"),  # 3.1.1 has no code for it
        (
            Connack(reason=Reason.SUCCESS, properties={Property.RECEIVE_MAXIMUM: 5000}),
            "20020000",
            "20060000032113" + "88",
        ),
        (Puback(0x1234), "40021234", "40021234"),
        (Puback(1, Reason.NOT_AUTHORIZED), "40020001", "4003000187"),
        (
            Suback(7, (Reason.GRANTED_QOS_1, Reason.NOT_AUTHORIZED)),
            "900400070180",
            "90050007000187",
        ),
        (Unsuback(7, (Reason.NO_SUBSCRIPTION_EXISTED,)), "b0020007", "b00400070011"),
        (Pingresp(), "d000", "d000"),
        (Disconnect(Reason.TAKEN_OVER), "", "e0028e00"),
        (Publish(topic="a", payload=b"z", qos=1, packet_id=2), "320600016100027a", None),
        (Publish(topic="a", payload=b"z", retain=True), "310400016" + "17a", None),
    ],
)
def test_what_the_server_sends_is_what_the_specification_says(packet, v3, v5):
    assert encode(packet, V3_1_1).hex() == v3
    if v5 is not None:
        assert encode(packet, V5).hex() == v5
