"""What a session asks the endpoint to do."""

import msgspec

from fleet_server.mqtt.packets import ToDevice


class Send(msgspec.Struct, frozen=True):
    packet: ToDevice


class Store(msgspec.Struct, frozen=True, gc=False):
    """Hand to the door; then tell the session that this `packet_id` is `stored`."""

    kind: str
    payload: bytes
    packet_id: int = 0


class Opened(msgspec.Struct, frozen=True):
    """The device is authenticated; any older connection of it must go."""

    device: str


class Close(msgspec.Struct, frozen=True):
    """Send what is due and close. `why` is for the log; empty after a clean end."""

    why: str


Action = Send | Store | Opened | Close
