"""The rules of one MQTT connection, told as packets in and actions out."""

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from edge_sdk.topics import DOWNWARD, UPWARD, topic
from fleet_server.mqtt.actions import Close, Opened, Send, Store
from fleet_server.mqtt.admission import Offer
from fleet_server.mqtt.outgoing import MAX_WAITING
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
from fleet_server.mqtt.session import Session
from fleet_server.mqtt.wire import Property


class FakeDoor:
    """Knows pi-7 and pi-8; keeps one order for pi-7."""

    def authenticate(self, username, password):
        return username if username in ("pi-7", "pi-8") and password == b"right" else None

    def connected(self, device):
        raise AssertionError("the session only returns actions")

    disconnected = connected

    def retained(self, device, kind):
        return b"order" if (device, kind) == ("pi-7", "desired") else None

    async def received(self, device, messages):
        raise AssertionError("the session only returns actions")


def connect(version=V5, **changes):
    values = {
        "version": version,
        "client_id": "c",
        "clean": True,
        "keep_alive": 60,
        "username": "pi-7",
        "password": b"right",
    }
    return Connect(**(values | changes))


def new_session():
    return Session(FakeDoor(), Offer(receive_maximum=5000, max_packet=100_000), deadline=10)


def online(version=V5, **changes):
    session = new_session()
    actions = session.received(connect(version, **changes), 0)
    assert actions[0] == Opened("pi-7")
    return session


def sent(actions):
    return [action.packet for action in actions if isinstance(action, Send)]


def refusal(actions):
    """The reason of a connection's end, None if it goes on."""
    if not any(isinstance(action, Close) for action in actions):
        return None
    packets = sent(actions)
    assert len(packets) == 1
    return packets[0].reason


def upward(kind="telemetry", **changes):
    return Publish(topic=topic("pi-7", kind), payload=b"w", **changes)


def wish(name, **changes):
    return Subscribe(1, (Subscription(filter=name, **({"qos": 1} | changes)),))


def test_a_known_device_is_let_in_and_told_the_limits():
    opened, welcome = new_session().received(connect(), 0)
    assert opened == Opened("pi-7")
    assert welcome.packet.reason is Reason.SUCCESS
    assert welcome.packet.properties[Property.RECEIVE_MAXIMUM] == 5000
    assert welcome.packet.properties[Property.MAXIMUM_PACKET_SIZE] == 100_000
    assert welcome.packet.properties[Property.MAXIMUM_QOS] == 1


def test_an_asked_for_session_expiry_is_cut_to_none_and_an_empty_client_id_is_named():
    hello = connect(client_id="", properties={Property.SESSION_EXPIRY: 3600})
    welcome = new_session().received(hello, 0)[1].packet
    assert welcome.properties[Property.SESSION_EXPIRY] == 0
    assert welcome.properties[Property.ASSIGNED_CLIENT_ID] == "pi-7"


@pytest.mark.parametrize(
    ("hello", "reason"),
    [
        (connect(password=b"wrong"), Reason.BAD_CREDENTIALS),
        (connect(username="nobody"), Reason.BAD_CREDENTIALS),
        (connect(username=None, password=None), Reason.BAD_CREDENTIALS),
        (connect(V3_1_1, password=b"wrong"), Reason.BAD_CREDENTIALS),
        (connect(V3_1_1, client_id="", clean=False), Reason.CLIENT_ID_NOT_VALID),
        (
            connect(properties={Property.AUTHENTICATION_METHOD: "SCRAM"}),
            Reason.BAD_AUTHENTICATION_METHOD,
        ),
        (
            connect(will=Will(topic="edge/1/pi-8/link", payload=b"", qos=0, retain=False)),
            Reason.NOT_AUTHORIZED,
        ),
        (
            connect(will=Will(topic="edge/1/pi-7/report", payload=b"", qos=0, retain=False)),
            Reason.NOT_AUTHORIZED,
        ),
        (
            connect(will=Will(topic="edge/1/pi-7/link", payload=b"", qos=2, retain=False)),
            Reason.QOS_NOT_SUPPORTED,
        ),
        (
            connect(will=Will(topic="edge/1/pi-7/link", payload=b"", qos=0, retain=True)),
            Reason.RETAIN_NOT_SUPPORTED,
        ),
    ],
)
def test_a_connection_is_refused_with_its_reason(hello, reason):
    assert refusal(new_session().received(hello, 0)) is reason


@pytest.mark.parametrize("first", [Pingreq(), upward(), Disconnect()])
def test_anything_before_connect_closes_without_an_answer(first):
    actions = new_session().received(first, 0)
    assert [type(action) for action in actions] == [Close]


def test_a_second_connect_ends_the_connection():
    assert refusal(online().received(connect(), 1)) is Reason.PROTOCOL_ERROR


@pytest.mark.parametrize("kind", UPWARD)
def test_what_a_device_publishes_on_its_own_topics_is_to_be_stored(kind):
    actions = online().received(upward(kind, qos=1, packet_id=9), 1)
    assert actions == [Store(kind, b"w", 9)]


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        (Publish(topic="edge/1/pi-8/report", payload=b""), Reason.NOT_AUTHORIZED),
        (Publish(topic="edge/1/pi-7/desired", payload=b""), Reason.NOT_AUTHORIZED),
        (Publish(topic="edge/1/pi-7/report/x", payload=b""), Reason.NOT_AUTHORIZED),
        (Publish(topic="$SYS/broker", payload=b""), Reason.NOT_AUTHORIZED),
        (Publish(topic="edge/1/pi-7/+", payload=b""), Reason.TOPIC_INVALID),
        (Publish(topic="", payload=b""), Reason.TOPIC_INVALID),
        (upward(retain=True), Reason.RETAIN_NOT_SUPPORTED),
        (upward(properties={Property.TOPIC_ALIAS: 1}), Reason.TOPIC_ALIAS_INVALID),
    ],
)
def test_publishing_elsewhere_or_otherwise_ends_the_connection(packet, reason):
    assert refusal(online().received(packet, 1)) is reason


def test_a_puback_follows_the_storing_and_keeps_the_order():
    session = online()
    for packet_id in (1, 2, 3):
        session.received(upward(qos=1, packet_id=packet_id), 1)
    assert session.stored([2]) == []
    assert sent(session.stored([1])) == [Puback(1), Puback(2)]
    assert sent(session.stored([3])) == [Puback(3)]


def test_a_repeated_message_is_stored_once_while_it_is_in_work():
    session = online()
    session.received(upward(qos=1, packet_id=5), 1)
    assert session.received(upward(qos=1, packet_id=5, dup=True), 1) == []
    again = session.received(upward(qos=1, packet_id=5), 1)
    assert refusal(again) is Reason.PACKET_ID_IN_USE


@pytest.mark.parametrize("name", ["edge/1/pi-7/desired", "edge/1/pi-7/+"])
def test_a_subscriber_gets_the_kept_document_at_once(name):
    answer, document = sent(online().received(wish(name), 1))
    assert answer == Suback(1, (Reason.GRANTED_QOS_1,))
    assert (document.topic, document.payload) == ("edge/1/pi-7/desired", b"order")
    assert (document.retain, document.qos) == (True, 1)


@pytest.mark.parametrize(("handling", "first", "second"), [(0, 2, 2), (1, 2, 1), (2, 1, 1)])
def test_retain_handling_decides_when_the_document_is_sent(handling, first, second):
    session = online()
    packet = wish("edge/1/pi-7/desired", retain_handling=handling)
    assert len(sent(session.received(packet, 1))) == first
    assert len(sent(session.received(packet, 1))) == second


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("edge/1/pi-8/desired", Reason.NOT_AUTHORIZED),
        ("edge/1/pi-7/report", Reason.NOT_AUTHORIZED),
        ("edge/1/+/desired", Reason.NOT_AUTHORIZED),
        ("#", Reason.NOT_AUTHORIZED),
        ("edge/1/pi-7/de+", Reason.FILTER_INVALID),
        ("#/x", Reason.FILTER_INVALID),
        ("", Reason.FILTER_INVALID),
        ("$share/g/edge/1/pi-7/desired", Reason.SHARED_NOT_SUPPORTED),
    ],
)
def test_a_foreign_subscription_is_refused_and_gives_nothing(name, reason):
    session = online()
    assert sent(session.received(wish(name), 1)) == [Suback(1, (reason,))]
    assert session.publish("desired", b"x") is None


def test_subscription_identifiers_are_refused():
    packet = Subscribe(
        1, (Subscription(filter="edge/1/pi-7/+", qos=1),), {Property.SUBSCRIPTION_ID: 1}
    )
    assert refusal(online().received(packet, 1)) is Reason.SUBSCRIPTION_ID_NOT_SUPPORTED


def test_a_message_reaches_the_device_only_while_it_is_subscribed():
    session = online()
    assert session.publish("ack", b"1") is None
    session.received(wish("edge/1/pi-7/ack"), 1)
    (message,) = sent(session.publish("ack", b"1"))
    assert (message.topic, message.qos, message.retain) == ("edge/1/pi-7/ack", 1, False)
    assert session.publish("desired", b"x") is None
    bye = session.received(Unsubscribe(2, ("edge/1/pi-7/ack", "edge/1/pi-7/+")), 1)
    assert sent(bye) == [Unsuback(2, (Reason.SUCCESS, Reason.NO_SUBSCRIPTION_EXISTED))]
    assert session.publish("ack", b"1") is None


def test_a_message_longer_than_the_device_takes_is_not_sent():
    session = online(properties={Property.MAXIMUM_PACKET_SIZE: 100})
    session.received(wish("edge/1/pi-7/ack"), 1)
    assert session.publish("ack", bytes(100)) is None
    assert session.publish("ack", bytes(40)) is not None


def test_a_device_that_takes_one_message_gets_the_next_after_its_answer():
    session = online(properties={Property.RECEIVE_MAXIMUM: 1})
    session.received(wish("edge/1/pi-7/ack"), 1)
    (first,) = sent(session.publish("ack", b"1"))
    assert session.publish("ack", b"2") == []
    (second,) = sent(session.received(Puback(first.packet_id), 2))
    assert second.payload == b"2"


def test_a_device_that_never_answers_is_cut_off():
    session = online(properties={Property.RECEIVE_MAXIMUM: 1})
    session.received(wish("edge/1/pi-7/ack"), 1)
    for _ in range(MAX_WAITING + 1):
        assert refusal(session.publish("ack", b"")) is None
    assert refusal(session.publish("ack", b"")) is Reason.QUOTA_EXCEEDED


def test_silence_of_one_and_a_half_keep_alives_ends_the_connection():
    session = online(keep_alive=10)
    session.received(Pingreq(), 100)
    assert session.tick(114.9) == []
    assert refusal(session.tick(115)) is Reason.KEEP_ALIVE_TIMEOUT
    assert session.tick(116) == []


def test_silence_is_not_held_against_a_device_that_was_not_read():
    session = online(keep_alive=10)
    session.unheard(14)
    assert session.tick(28) == []


def test_without_keep_alive_a_device_may_be_silent():
    assert online(keep_alive=0).tick(1e9) == []


def test_a_connection_without_connect_is_given_up():
    session = new_session()
    assert session.tick(9) == []
    assert [type(action) for action in session.tick(10)] == [Close]


WILL = Will(topic="edge/1/pi-7/link", payload=b"gone", qos=1, retain=False)


@pytest.mark.parametrize(
    ("end", "executed"),
    [
        (lambda session: session.received(Disconnect(), 1), False),
        (lambda session: session.received(Disconnect(Reason.DISCONNECT_WITH_WILL), 1), True),
        (lambda session: session.displaced(), True),
        (lambda session: session.tick(1e9), True),
        (lambda session: session.shut_down(), False),
        (lambda session: session.failed(MqttError(Reason.MALFORMED, "junk"), V5), True),
        (lambda session: None, True),  # the socket just died
    ],
)
def test_the_last_will_is_executed_unless_it_was_revoked(end, executed):
    session = online(will=WILL)
    end(session)
    assert session.gone() == ([Store("link", b"gone")] if executed else [])
    assert session.gone() == []


def test_a_refused_device_leaves_no_will():
    session = new_session()
    session.received(connect(password=b"wrong", will=WILL), 0)
    assert session.gone() == []


def test_a_peer_that_takes_short_packets_gets_the_code_without_words():
    session = online(properties={Property.MAXIMUM_PACKET_SIZE: 64})
    assert sent(session.displaced()) == [Disconnect(Reason.TAKEN_OVER)]


class Conversation(RuleBasedStateMachine):
    """Any order of packets, storing and time: what must hold at every step."""

    def __init__(self):
        super().__init__()
        self.session = new_session()
        self.now = 0.0
        self.opened = self.closed = False
        self.received: list[int] = []
        self.stored: set[int] = set()
        self.acknowledged: list[int] = []

    def take(self, actions):
        if self.closed:
            assert actions == []
        for action in actions:
            match action:
                case Opened():
                    assert not self.opened
                    self.opened = True
                case Store(_, _, packet_id):
                    assert self.opened
                    if packet_id:
                        self.received.append(packet_id)
                case Send(Puback(packet_id)):
                    assert packet_id in self.stored
                    self.acknowledged.append(packet_id)
                    self.stored.discard(packet_id)
                case Send(Connack()):
                    assert not self.closed
                case Send(Publish()):
                    assert self.opened
                case Close():
                    self.closed = True

    def give(self, packet):
        self.take(self.session.received(packet, self.now))

    @rule(password=st.sampled_from([b"right", b"right", b"wrong"]))
    def connect(self, password):
        self.give(connect(password=password, keep_alive=20))

    @rule(packet_id=st.integers(0, 4), kind=st.sampled_from([*UPWARD, *UPWARD, "desired"]))
    def publish(self, packet_id, kind):
        in_work = packet_id in self.received[len(self.acknowledged) :]
        self.give(upward(kind, qos=bool(packet_id), packet_id=packet_id, dup=in_work))

    @rule(name=st.sampled_from(["edge/1/pi-7/+", "edge/1/pi-8/+"]))
    def subscribe(self, name):
        self.give(wish(name))

    @rule(kind=st.sampled_from(DOWNWARD))
    def order(self, kind):
        self.take(self.session.publish(kind, b"x") or [])

    @precondition(lambda self: len(self.received) > len(self.acknowledged))
    @rule(data=st.data())
    def store_one(self, data):
        waiting = [i for i in self.received[len(self.acknowledged) :] if i not in self.stored]
        if waiting and not self.closed:
            packet_id = data.draw(st.sampled_from(waiting))
            self.stored.add(packet_id)
            self.take(self.session.stored([packet_id]))

    @rule(seconds=st.sampled_from([1, 9, 31]))
    def wait(self, seconds):
        self.now += seconds
        self.take(self.session.tick(self.now))

    @rule()
    def ping(self):
        actions = self.session.received(Pingreq(), self.now)
        if self.opened and not self.closed:
            assert sent(actions) == [Pingresp()]
        self.take(actions)

    @invariant()
    def acknowledged_in_order_and_only_what_is_stored(self):
        assert self.acknowledged == self.received[: len(self.acknowledged)]


TestConversation = Conversation.TestCase
