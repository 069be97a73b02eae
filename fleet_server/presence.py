"""PURE: whether a device's connection stands, by what it tells at its birth and by its last will.

A will names its connection and is believed for that one alone: one that comes late, after the
device connected anew, or that somebody who listened sends again, changes nothing. The own endpoint
and an external broker bring the same messages.
"""

from collections.abc import Mapping

import msgspec

from edge_sdk.messages import Connection, Sealed
from fleet_server.records import DeviceRecord


def told(
    device: DeviceRecord,
    sealed: Sealed,
    connection: Connection,
    at: float,
    places: Mapping[str, int],
) -> DeviceRecord:
    """The device after this message.

    `at` is when it came; `places` are the device's boots with the order in which the server first
    heard of them.
    """
    same = sealed.boot == device.link_boot
    if not connection.up:
        left = same and connection.number == device.link_number
        return msgspec.structs.replace(device, left_at=at) if left else device
    newest = max(places.values(), default=0)
    if places.get(sealed.boot, newest) < newest or (
        same and connection.number <= device.link_number
    ):
        return device
    return msgspec.structs.replace(
        device, link_boot=sealed.boot, link_number=connection.number, left_at=None
    )
