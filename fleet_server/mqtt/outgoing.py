"""PURE: messages on their way to one device, never more unanswered than it takes (4.9)."""

from collections import deque

import msgspec

from fleet_server.mqtt.packets import Publish
from fleet_server.mqtt.reasons import MqttError, Reason

MAX_WAITING = 1000


class Outgoing:
    """Numbers QoS 1 messages and holds back what is over the device's receive maximum."""

    def __init__(self, receive_maximum: int) -> None:
        self._receive_maximum = receive_maximum
        self._unanswered: set[int] = set()
        self._waiting: deque[Publish] = deque()
        self._last_id = 0

    def send(self, message: Publish) -> list[Publish]:
        """What may go out now; raises MqttError when too much waits."""
        if not message.qos:
            return [message]
        if len(self._unanswered) < self._receive_maximum:
            return [self._numbered(message)]
        if len(self._waiting) >= MAX_WAITING:
            raise MqttError(
                Reason.QUOTA_EXCEEDED, f"{MAX_WAITING} messages wait for the device's answers"
            )
        self._waiting.append(message)
        return []

    def answered(self, packet_id: int) -> list[Publish]:
        """PUBACK came; what may follow now. An unknown identifier is of no consequence."""
        self._unanswered.discard(packet_id)
        if self._waiting and len(self._unanswered) < self._receive_maximum:
            return [self._numbered(self._waiting.popleft())]
        return []

    def _numbered(self, message: Publish) -> Publish:
        self._last_id = self._last_id % 65_535 + 1
        while self._last_id in self._unanswered:
            self._last_id = self._last_id % 65_535 + 1
        self._unanswered.add(self._last_id)
        return msgspec.structs.replace(message, packet_id=self._last_id)
