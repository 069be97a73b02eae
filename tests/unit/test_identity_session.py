"""An MQTT session and who may have it: besides the password, where and with what it comes."""

from edge_sdk.topics import topic
from fleet_server.mqtt.actions import Close, Opened, Send
from fleet_server.mqtt.admission import Offer
from fleet_server.mqtt.door import Peer
from fleet_server.mqtt.packets import Connect, Publish, Will
from fleet_server.mqtt.reasons import Reason
from fleet_server.mqtt.session import Session

PEER = Peer("10.0.0.7:4711", b"a certificate")


class Door:
    """Lets everyone in who says the word."""

    def authenticate(self, username, password):
        return username if password == b"right" else None

    def retained(self, device, kind):
        return None


def session(vet):
    offer = Offer(receive_maximum=10, max_packet=100_000)
    return Session(Door(), offer, deadline=10, vet=vet, peer=PEER)


def hello(password=b"right", will=None):
    return Connect(
        version=5, client_id="c", clean=True, keep_alive=60, username="pi-7",
        password=password, will=will,
    )  # fmt: skip


def test_a_device_is_vetted_with_its_address_and_certificate_after_its_password():
    asked = []

    def vet(device, peer):
        asked.append((device, peer))
        return ""

    assert session(vet).received(hello(), 0)[0] == Opened("pi-7")
    session(vet).received(hello(password=b"wrong"), 0)
    assert asked == [("pi-7", PEER)]


def test_a_refusal_is_answered_with_its_reason_and_ends_the_connection():
    actions = session(lambda *_: "not from there").received(hello(), 0)
    assert isinstance(actions[0], Send)
    assert actions[0].packet.reason is Reason.NOT_AUTHORIZED
    assert actions[-1] == Close("not from there")


def test_a_revoked_session_ends_with_words_and_without_its_will():
    will = Will(topic=topic("pi-7", "link"), payload=b"gone", qos=1, retain=False)
    open_one = session(lambda *_: "")
    open_one.received(hello(will=will), 0)
    send, close = open_one.revoked()
    assert send.packet.reason is Reason.NOT_AUTHORIZED
    assert isinstance(close, Close)
    assert open_one.gone() == []
    late = Publish(topic=topic("pi-7", "event"), payload=b"x")
    assert open_one.received(late, 1) == []
    assert open_one.revoked() == []
