"""PURE: two machines with one identity (a cloned SD card), told by their boots taking turns.

A device sends what it kept of an older boot before anything of its newer one, so its boots follow
each other: A, then B, never A again. Two machines take the connection from each other and each goes
on counting in its own boot: A, B, A, B. Both must have come back, so that somebody who looked in
once (`edge agent doctor`) is no twin.
"""

from collections import OrderedDict

import msgspec

WITHIN = 3600.0  # seconds in which the boots must take turns
BOOTS = 8  # remembered for each device


class Twins(msgspec.Struct, frozen=True):
    """One identity, seen on two machines."""

    device: str
    addresses: tuple[str, str]
    boots: tuple[str, str]


class _Boot(msgspec.Struct):
    highest: int = 0
    address: str = ""
    returned: float | None = None


class _Device(msgspec.Struct):
    address: str = ""
    current: str = ""
    boots: OrderedDict[str, _Boot] = msgspec.field(default_factory=OrderedDict)


class Lookout:
    """Follows every device's boots in memory; after a restart it learns anew."""

    def __init__(self) -> None:
        self._devices: dict[str, _Device] = {}
        self._found: dict[str, Twins] = {}

    def connects(self, device: str, address: str) -> None:
        """A session begins; what is heard from now on comes from there."""
        self._devices.setdefault(device, _Device()).address = address

    def hears(self, device: str, boot: str, seq: int, now: float) -> None:
        """A message that the device's key authenticated."""
        known = self._devices.get(device) or self._devices.setdefault(device, _Device())
        this = known.boots.get(boot) or known.boots.setdefault(boot, _Boot())
        if seq <= this.highest:
            return  # sent again: it says nothing about who is alive
        before, this.highest, this.address = this.highest, seq, known.address
        if known.current == boot:
            return
        if known.current and before:
            this.returned = now
        known.current = boot
        known.boots.move_to_end(boot)
        while len(known.boots) > BOOTS:
            known.boots.popitem(last=False)
        twins = _twins(device, known, now)
        if twins is not None:
            self._found[device] = twins

    def forget(self, device: str) -> None:
        """The device was revoked or has another key: what was seen is over."""
        self._devices.pop(device, None)
        self._found.pop(device, None)

    def take(self) -> list[Twins]:
        """What was found since the last call."""
        found, self._found = list(self._found.values()), {}
        return found


def _twins(device: str, known: _Device, now: float) -> Twins | None:
    back = [
        (name, boot)
        for name, boot in known.boots.items()
        if boot.returned is not None and now - boot.returned <= WITHIN
    ]
    if len(back) < 2:
        return None
    (first, one), (second, other) = back[-2:]
    one.returned = other.returned = None  # told; they must come back again to be told again
    return Twins(device, (one.address, other.address), (first, second))
