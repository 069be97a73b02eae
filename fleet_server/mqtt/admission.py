"""PURE: whether a CONNECT gets a session, and what both sides may then expect of each other."""

import msgspec

from edge_sdk.topics import topic
from fleet_server.mqtt.door import Door, Peer, Vet, anyone
from fleet_server.mqtt.packets import V5, Connack, Connect, Will
from fleet_server.mqtt.reasons import MqttError, Reason
from fleet_server.mqtt.wire import Properties, Property, number

# What an MQTT client may have unanswered if it does not say (3.1.2.11.3).
DEFAULT_RECEIVE_MAXIMUM = 65_535
NO_LIMIT = 1 << 28


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """What was agreed on.

    Attributes:
        device: as authenticated; it is the session's identity, whatever the client id says.
        patience: seconds of silence after which the device counts as gone; None is never.
        receive_maximum: QoS 1 messages it takes unanswered.
        max_packet: bytes of the longest packet it takes.
    """

    device: str
    version: int
    patience: float | None
    receive_maximum: int
    max_packet: int
    will: Will | None


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """What CONNACK announces."""

    receive_maximum: int
    max_packet: int


NOBODY = Peer()


def admit(connect: Connect, door: Door, vet: Vet = anyone, peer: Peer = NOBODY) -> Terms:
    """The terms of a new session; raises MqttError with the reason why there is none."""
    if Property.AUTHENTICATION_METHOD in connect.properties:
        raise MqttError(
            Reason.BAD_AUTHENTICATION_METHOD,
            "extended authentication is not offered: give user name and password",
        )
    if not connect.client_id and connect.version != V5 and not connect.clean:
        raise MqttError(Reason.CLIENT_ID_NOT_VALID, "an empty client id needs a clean session")
    if connect.username is None or connect.password is None:
        raise MqttError(Reason.BAD_CREDENTIALS, "user name and password are needed")
    device = door.authenticate(connect.username, connect.password)
    if device is None:
        raise MqttError(Reason.BAD_CREDENTIALS, "user name or password is wrong")
    if refusal := vet(device, peer):
        raise MqttError(Reason.NOT_AUTHORIZED, refusal)
    if connect.will is not None:
        _check_will(connect.will, device)
    return Terms(
        device=device,
        version=connect.version,
        patience=connect.keep_alive * 1.5 or None,
        receive_maximum=number(
            connect.properties, Property.RECEIVE_MAXIMUM, DEFAULT_RECEIVE_MAXIMUM
        ),
        max_packet=number(connect.properties, Property.MAXIMUM_PACKET_SIZE, NO_LIMIT),
        will=connect.will,
    )


def welcome(connect: Connect, device: str, offer: Offer) -> Connack:
    """CONNACK for an admitted device.

    Session state ends with the connection: what a device must know comes from the database each
    time it subscribes. So session present is 0 and any session expiry is cut to 0.
    """
    properties: Properties = {
        Property.RECEIVE_MAXIMUM: offer.receive_maximum,
        Property.MAXIMUM_QOS: 1,
        Property.RETAIN_AVAILABLE: 0,
        Property.MAXIMUM_PACKET_SIZE: offer.max_packet,
        Property.SUBSCRIPTION_ID_AVAILABLE: 0,
        Property.SHARED_AVAILABLE: 0,
    }
    if number(connect.properties, Property.SESSION_EXPIRY, 0):
        properties[Property.SESSION_EXPIRY] = 0
    if not connect.client_id:
        properties[Property.ASSIGNED_CLIENT_ID] = device
    return Connack(reason=Reason.SUCCESS, properties=properties if connect.version == V5 else {})


def _check_will(will: Will, device: str) -> None:
    if will.topic != topic(device, "link"):
        raise MqttError(Reason.NOT_AUTHORIZED, f"a will goes to {topic(device, 'link')} or nowhere")
    if will.qos == 2:
        raise MqttError(Reason.QOS_NOT_SUPPORTED, "QoS 2 is not offered: give the will QoS 1")
    if will.retain:
        raise MqttError(Reason.RETAIN_NOT_SUPPORTED, "devices can't leave retained messages")
