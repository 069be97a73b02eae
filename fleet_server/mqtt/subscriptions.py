"""PURE: what one device has subscribed to: its own downward topics and nothing else."""

from edge_sdk.topics import DOWNWARD, PREFIX, Downward, topic
from fleet_server.mqtt.packets import Subscription
from fleet_server.mqtt.reasons import Reason


class Subscriptions:
    """Filters of one device with their QoS; at most its own topics and `edge/1/<device>/+`."""

    def __init__(self, device: str) -> None:
        self._own: dict[str, tuple[Downward, ...]] = {f"{PREFIX}/{device}/+": DOWNWARD}
        self._own |= {topic(device, kind): (kind,) for kind in DOWNWARD}
        self._qos: dict[str, int] = {}

    def add(self, wish: Subscription) -> tuple[Reason, tuple[Downward, ...]]:
        """The answer to one filter of a SUBSCRIBE, and the kinds whose document goes out now."""
        kinds = self._own.get(wish.filter)
        if kinds is None:
            return _refusal(wish.filter), ()
        known = wish.filter in self._qos
        self._qos[wish.filter] = min(wish.qos, 1)
        wanted = wish.retain_handling == 0 or (wish.retain_handling == 1 and not known)
        return Reason.GRANTED_QOS_1 if wish.qos else Reason.SUCCESS, kinds if wanted else ()

    def remove(self, topic_filter: str) -> Reason:
        if self._qos.pop(topic_filter, None) is None:
            return Reason.NO_SUBSCRIPTION_EXISTED
        return Reason.SUCCESS

    def qos(self, kind: Downward) -> int | None:
        """The QoS a message of this kind is sent with: the highest granted; None: not at all."""
        granted = (qos for name, qos in self._qos.items() if kind in self._own[name])
        return max(granted, default=None)


def _refusal(topic_filter: str) -> Reason:
    if topic_filter.startswith("$share/"):
        return Reason.SHARED_NOT_SUPPORTED
    levels = topic_filter.split("/")
    whole = all(level in ("+", "#") or not set(level) & {"+", "#"} for level in levels)
    if not topic_filter or not whole or "#" in levels[:-1]:
        return Reason.FILTER_INVALID
    return Reason.NOT_AUTHORIZED
