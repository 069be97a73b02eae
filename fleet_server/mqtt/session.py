"""PURE: one connection's state machine. Packets and the time in, actions out; no socket, no clock.

The session asks its door two things that are answered at once (credentials, retained documents);
all else it returns as actions for `endpoint` to carry out, in order.
"""

from collections.abc import Sequence

from edge_sdk.topics import Downward
from fleet_server.mqtt.actions import Action, Close, Opened, Send, Store
from fleet_server.mqtt.admission import NOBODY, Offer, Terms, admit, welcome
from fleet_server.mqtt.door import Door, Peer, Vet, anyone
from fleet_server.mqtt.online import Online
from fleet_server.mqtt.packets import (
    V5,
    Connack,
    Connect,
    Disconnect,
    FromDevice,
    Pingreq,
    Pingresp,
    Puback,
    Publish,
    Subscribe,
    Unsubscribe,
)
from fleet_server.mqtt.reasons import MqttError, Reason
from fleet_server.mqtt.wire import Properties, Property

ROOM_FOR_WORDS = 1024  # a peer that takes shorter packets gets the reason code alone


class Session:
    """One connection from its first byte to its end. Every method returns what is to be done."""

    def __init__(
        self,
        door: Door,
        offer: Offer,
        *,
        deadline: float,
        vet: Vet = anyone,
        peer: Peer = NOBODY,
    ) -> None:
        """`deadline` is when a connection without CONNECT is given up."""
        self._door = door
        self._vet, self._peer = vet, peer
        self._offer = offer
        self._deadline: float | None = deadline
        self._terms: Terms | None = None
        self._online: Online | None = None
        self._will: Store | None = None
        self._closed = False

    def received(self, packet: FromDevice, now: float) -> list[Action]:
        """A packet arrived. What breaks a rule is answered and ends the connection."""
        if self._closed:
            return []
        try:
            if self._online is None or self._terms is None:
                return self._open(packet, now)
            if self._terms.patience is not None:
                self._deadline = now + self._terms.patience
            return self._serve(packet, self._online)
        except MqttError as error:
            version = packet.version if isinstance(packet, Connect) else 0
            return self.failed(error, version)

    def failed(self, error: MqttError, version: int) -> list[Action]:
        """The peer broke a rule; `version` is what its CONNECT told, 0 if it got no so far."""
        if self._closed:
            return []
        if self._terms is not None or not version:
            return self._end(error.reason, error.text)
        properties: Properties = {Property.REASON_STRING: error.text} if version == V5 else {}
        refusal = Connack(reason=error.reason, properties=properties)
        return [Send(refusal), *self._end(error.reason, error.text)]

    def stored(self, packet_ids: Sequence[int]) -> list[Action]:
        """The door has stored these messages."""
        return [] if self._closed or self._online is None else self._online.stored(packet_ids)

    def publish(self, kind: Downward, payload: bytes) -> list[Action] | None:
        """A message for the device; None if it is not going to get it."""
        if self._closed or self._online is None:
            return None
        try:
            return self._online.publish(kind, payload)
        except MqttError as error:
            return self._end(error.reason, error.text)

    def tick(self, now: float) -> list[Action]:
        """Time has passed: too long without a packet ends the connection (3.1.2.10)."""
        if self._deadline is None or now < self._deadline:
            return []
        if self._terms is None:
            return self._end(Reason.KEEP_ALIVE_TIMEOUT, "no CONNECT in time")
        return self._end(Reason.KEEP_ALIVE_TIMEOUT, "silent for 1.5 times its keep-alive")

    def unheard(self, now: float) -> None:
        """This side has not been reading: the silence is not the device's."""
        if self._terms is not None and self._terms.patience is not None:
            self._deadline = now + self._terms.patience

    def displaced(self) -> list[Action]:
        """The same device has connected anew."""
        return self._end(Reason.TAKEN_OVER, "the device connected again")

    def revoked(self) -> list[Action]:
        """The device is not welcome any more; nor is its will."""
        self._will = None
        return self._end(Reason.NOT_AUTHORIZED, "the device was revoked")

    def shut_down(self) -> list[Action]:
        """The server stops. That says nothing about the device, so its will is not executed."""
        self._will = None
        return self._end(Reason.SHUTTING_DOWN, "the server stops")

    def broken(self, text: str) -> list[Action]:
        """This side can't go on with the device, which will try again."""
        return self._end(Reason.IMPLEMENTATION_ERROR, text)

    def gone(self) -> list[Action]:
        """The socket is closed, by whomever: execute the last will, unless it was revoked."""
        self._closed = True
        will, self._will = self._will, None
        return [] if will is None else [will]

    def _open(self, packet: FromDevice, now: float) -> list[Action]:
        if not isinstance(packet, Connect):
            raise MqttError(Reason.PROTOCOL_ERROR, "the first packet is not CONNECT")
        terms = admit(packet, self._door, self._vet, self._peer)
        self._terms = terms
        self._online = Online(terms, self._door)
        self._deadline = None if terms.patience is None else now + terms.patience
        if terms.will is not None:
            self._will = Store("link", terms.will.payload)
        return [Opened(terms.device), Send(welcome(packet, terms.device, self._offer))]

    def _serve(self, packet: FromDevice, online: Online) -> list[Action]:
        match packet:
            case Publish():
                return online.published(packet)
            case Puback():
                return online.answered(packet)
            case Subscribe():
                return online.subscribe(packet)
            case Unsubscribe():
                return online.unsubscribe(packet)
            case Pingreq():
                return [Send(Pingresp())]
            case Disconnect():
                if packet.reason != Reason.DISCONNECT_WITH_WILL:
                    self._will = None
                self._closed = True
                return [Close("")]
            case Connect():
                raise MqttError(Reason.PROTOCOL_ERROR, "a second CONNECT on one connection")

    def _end(self, reason: Reason, text: str) -> list[Action]:
        if self._closed:
            return []
        self._closed = True
        if self._terms is None:
            return [Close(text)]
        wordy = self._terms.max_packet >= ROOM_FOR_WORDS
        properties: Properties = {Property.REASON_STRING: text} if wordy else {}
        return [Send(Disconnect(reason, properties)), Close(text)]
