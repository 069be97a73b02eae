"""The control packets of MQTT 3.1.1 and 5.0 that a star of devices around one server needs.

No PUBREC, PUBREL, PUBCOMP (QoS 2 is not offered) and no AUTH (nor is extended authentication).
"""

import msgspec

from fleet_server.mqtt.reasons import Reason
from fleet_server.mqtt.wire import Properties

V3_1_1 = 4
V5 = 5


class Will(msgspec.Struct, frozen=True, kw_only=True):
    topic: str
    payload: bytes
    qos: int
    retain: bool
    properties: Properties = {}


class Connect(msgspec.Struct, frozen=True, kw_only=True):
    version: int
    client_id: str
    clean: bool
    keep_alive: int
    username: str | None = None
    password: bytes | None = None
    will: Will | None = None
    properties: Properties = {}


class Connack(msgspec.Struct, frozen=True, kw_only=True):
    """Session present is always 0: the endpoint keeps no session state."""

    reason: Reason
    properties: Properties = {}


class Publish(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """`packet_id` is 0 at QoS 0."""

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    dup: bool = False
    packet_id: int = 0
    properties: Properties = {}


class Puback(msgspec.Struct, frozen=True, gc=False):
    packet_id: int
    reason: int = Reason.SUCCESS


class Subscription(msgspec.Struct, frozen=True, kw_only=True):
    """`retain_handling` 0: retained documents at once; 1: if the subscription is new; 2: none."""

    filter: str
    qos: int
    retain_handling: int = 0


class Subscribe(msgspec.Struct, frozen=True):
    packet_id: int
    subscriptions: tuple[Subscription, ...]
    properties: Properties = {}


class Suback(msgspec.Struct, frozen=True):
    packet_id: int
    reasons: tuple[Reason, ...]


class Unsubscribe(msgspec.Struct, frozen=True):
    packet_id: int
    filters: tuple[str, ...]


class Unsuback(msgspec.Struct, frozen=True):
    packet_id: int
    reasons: tuple[Reason, ...]


class Pingreq(msgspec.Struct, frozen=True):
    pass


class Pingresp(msgspec.Struct, frozen=True):
    pass


class Disconnect(msgspec.Struct, frozen=True):
    reason: int = Reason.SUCCESS
    properties: Properties = {}


FromDevice = Connect | Publish | Puback | Subscribe | Unsubscribe | Pingreq | Disconnect
ToDevice = Connack | Publish | Puback | Suback | Unsuback | Pingresp | Disconnect
