"""PURE: what an admitted device may do: publish upward, subscribe to its own, answer."""

from collections.abc import Sequence

from edge_sdk.topics import UPWARD, Downward, topic
from fleet_server.mqtt.actions import Action, Send, Store
from fleet_server.mqtt.admission import Terms
from fleet_server.mqtt.door import Door
from fleet_server.mqtt.outgoing import Outgoing
from fleet_server.mqtt.packets import Puback, Publish, Suback, Subscribe, Unsuback, Unsubscribe
from fleet_server.mqtt.reasons import MqttError, Reason
from fleet_server.mqtt.subscriptions import Subscriptions
from fleet_server.mqtt.wire import Property

OVERHEAD = 32  # bytes of a PUBLISH to a device besides topic and payload, at most


class Online:
    """The messages of one admitted device, both ways."""

    def __init__(self, terms: Terms, door: Door) -> None:
        self._terms = terms
        self._door = door
        self._upward = {topic(terms.device, kind): kind for kind in UPWARD}
        self._subscriptions = Subscriptions(terms.device)
        self._outgoing = Outgoing(terms.receive_maximum)
        self._stored: dict[int, bool] = {}  # QoS 1 messages in the order received

    def published(self, packet: Publish) -> list[Action]:
        if Property.TOPIC_ALIAS in packet.properties:
            raise MqttError(Reason.TOPIC_ALIAS_INVALID, "topic aliases are not offered")
        kind = self._upward.get(packet.topic)
        if kind is None:
            raise _misplaced(packet.topic)
        if packet.retain:
            raise MqttError(Reason.RETAIN_NOT_SUPPORTED, "devices can't leave retained messages")
        if packet.qos:
            if packet.packet_id in self._stored:
                if packet.dup:
                    return []  # its PUBACK is on its way
                raise MqttError(
                    Reason.PACKET_ID_IN_USE, f"packet identifier {packet.packet_id} is in use"
                )
            self._stored[packet.packet_id] = False
        return [Store(kind, packet.payload, packet.packet_id)]

    def stored(self, packet_ids: Sequence[int]) -> list[Action]:
        """PUBACKs that are due now: they keep the order of the messages (4.6)."""
        self._stored.update((packet_id, True) for packet_id in packet_ids if packet_id)
        actions: list[Action] = []
        while self._stored:
            first = next(iter(self._stored))
            if not self._stored[first]:
                break
            del self._stored[first]
            actions.append(Send(Puback(first)))
        return actions

    def publish(self, kind: Downward, payload: bytes) -> list[Action] | None:
        """A message to the device; None if it did not subscribe or does not take that much."""
        qos = self._subscriptions.qos(kind)
        name = topic(self._terms.device, kind)
        if qos is None or len(name) + len(payload) + OVERHEAD > self._terms.max_packet:
            return None
        message = Publish(topic=name, payload=payload, qos=qos)
        return [Send(packet) for packet in self._outgoing.send(message)]

    def answered(self, packet: Puback) -> list[Action]:
        return [Send(message) for message in self._outgoing.answered(packet.packet_id)]

    def subscribe(self, packet: Subscribe) -> list[Action]:
        if Property.SUBSCRIPTION_ID in packet.properties:
            raise MqttError(
                Reason.SUBSCRIPTION_ID_NOT_SUPPORTED, "subscription identifiers are not offered"
            )
        reasons: list[Reason] = []
        documents: list[Action] = []
        for wish in packet.subscriptions:
            reason, kinds = self._subscriptions.add(wish)
            reasons.append(reason)
            for kind in kinds:
                documents += self._document(kind, min(wish.qos, 1))
        return [Send(Suback(packet.packet_id, tuple(reasons))), *documents]

    def unsubscribe(self, packet: Unsubscribe) -> list[Action]:
        reasons = tuple(self._subscriptions.remove(name) for name in packet.filters)
        return [Send(Unsuback(packet.packet_id, reasons))]

    def _document(self, kind: Downward, qos: int) -> list[Action]:
        payload = self._door.retained(self._terms.device, kind)
        name = topic(self._terms.device, kind)
        if payload is None or len(name) + len(payload) + OVERHEAD > self._terms.max_packet:
            return []
        message = Publish(topic=name, payload=payload, qos=qos, retain=True)
        return [Send(packet) for packet in self._outgoing.send(message)]


def _misplaced(name: str) -> MqttError:
    if not name or "+" in name or "#" in name:
        return MqttError(Reason.TOPIC_INVALID, f"{name[:120]!r} is not a topic to publish to")
    return MqttError(Reason.NOT_AUTHORIZED, f"publishing to {name[:120]!r} is not allowed")
