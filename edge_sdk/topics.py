"""MQTT topic names, built and parsed here and nowhere else: `edge/1/<device>/<kind>`."""

import re
from typing import Literal, get_args

from edge_sdk.errors import FormatError

Upward = Literal["report", "telemetry", "event", "sample", "link"]
Downward = Literal["desired", "ack", "command"]

PREFIX = "edge/1"
UPWARD: tuple[Upward, ...] = get_args(Upward)
DOWNWARD: tuple[Downward, ...] = get_args(Downward)
DEVICE_ID = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?")


def valid_device_id(device: str) -> bool:
    """Whether a device id may stand in a topic, a path and a table.

    >>> valid_device_id("pi-7"), valid_device_id("../x"), valid_device_id("a/#")
    (True, False, False)
    """
    return DEVICE_ID.fullmatch(device) is not None and ".." not in device


def topic(device: str, kind: Upward | Downward) -> str:
    """The topic of one kind of message of one device.

    >>> topic("pi-7", "report")
    'edge/1/pi-7/report'
    """
    return f"{PREFIX}/{device}/{kind}"


def parse_upward(name: str) -> tuple[str, Upward]:
    """Device and kind of an upward topic; raises FormatError for any other name."""
    parts = name.split("/")
    if len(parts) == 4 and name.startswith(f"{PREFIX}/") and parts[3] in UPWARD:
        return parts[2], parts[3]
    raise FormatError(f"{name[:120]!r} is not a topic that devices publish to")
