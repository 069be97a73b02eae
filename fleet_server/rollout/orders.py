"""What each device shall be told, and how many of them now. Pure."""

from collections import Counter
from collections.abc import Mapping, Sequence

import msgspec

from edge_sdk.messages import Role
from fleet_server.rollout.grammar import Limits
from fleet_server.rollout.state import (
    LIVE,
    UNDER_WAY,
    UNDONE,
    Device,
    Member,
    Rollout,
    Standing,
)

LEAP = 1_000_000  # a device that claims more orders than this beyond ours is not believed


def next_generation(ours: int, reported: int) -> int:
    """Of an order that a device takes, though it had some that a restored server does not know.

    >>> next_generation(3, 2), next_generation(3, 7), next_generation(3, 2**60)
    (4, 8, 4)
    """
    return (reported if ours < reported <= ours + LEAP else ours) + 1


class Target(msgspec.Struct, frozen=True):
    """A version, and what to do with it."""

    version: str
    role: Role = "serve"


def target(rollout: Rollout, member: Member, device: Device) -> Target | None:
    """What a rollout wants of a member; None if nothing (any more)."""
    ours = device.ordered_at is not None
    if rollout.status in UNDONE:
        kept = rollout.status != "rolled back" and device.running == rollout.version
        undo = ours and member.previous and not kept
        return Target(member.previous) if undo else None
    if not member.possible:
        return None
    if rollout.status in ("promoted", "reopened"):
        return Target(rollout.version)
    return Target(rollout.version, rollout.current.role)


def due(
    rollout: Rollout, fleet: Mapping[str, Device], standings: Mapping[str, Standing], now: float
) -> list[tuple[Member, Target]]:
    """The devices to be given an order now, with it; limits hold for giving, not for taking back.

    A paused rollout orders nothing more. A device that was superseded or revoked is not ours.
    """
    wanted = []
    for member in _candidates(rollout):
        device = fleet.get(member.device)
        if device is None or device.gone or device.superseded:
            continue
        found = target(rollout, member, device)
        if found and _needs(rollout, device, found):
            wanted.append((member, found))
    if rollout.status in UNDONE:
        return wanted
    rest = [pair for pair in wanted if standings.get(pair[0].device) != "quarantined"]
    return _within(rollout, fleet, standings, rest, now)


def _candidates(rollout: Rollout) -> Sequence[Member]:
    if rollout.status in ("running", "held"):
        return rollout.treated
    if rollout.status in LIVE:  # scheduled, to approve, paused: nothing new
        return ()
    return rollout.members


def _needs(rollout: Rollout, device: Device, wanted: Target) -> bool:
    given = Target(device.ordered, device.role) if device.ordered_at is not None else None
    if given is None and wanted.role == "serve" and device.running == wanted.version:
        return False  # it runs it already, by whoever's order
    again = rollout.retried.get(device.id, 0) >= device.generation > 0
    return given != wanted or (again and rollout.status not in UNDONE)


def _within(
    rollout: Rollout,
    fleet: Mapping[str, Device],
    standings: Mapping[str, Standing],
    wanted: Sequence[tuple[Member, Target]],
    now: float,
) -> list[tuple[Member, Target]]:
    """As many of them, in their order, as the limits allow."""
    limits = rollout.strategy.limits
    per_minute = _per_minute(limits, rollout.bundle_bytes)
    if not (per_minute or limits.in_flight or limits.in_flight_per_site):
        return list(wanted)
    site_of = {m.device: m.stratum for m in rollout.members}
    flying = [device for device, where in standings.items() if where in UNDER_WAY]
    sites = Counter(site_of[device] for device in flying)
    room = limits.in_flight - len(flying) if limits.in_flight else len(wanted)
    if per_minute:
        given = (d.ordered_at for d in fleet.values() if d.ordered_at is not None)
        room = min(room, per_minute - sum(now - at < 60 for at in given))
    chosen: list[tuple[Member, Target]] = []
    for member, found in wanted:
        if len(chosen) >= room:
            break
        device = fleet[member.device]
        if now - (device.last_seen or 0.0) > rollout.unreached_after:
            continue  # it would take its turn whenever it comes back, beside all others
        if limits.in_flight_per_site and sites[member.stratum] >= limits.in_flight_per_site:
            continue
        sites[member.stratum] += 1
        chosen.append((member, found))
    return chosen


def _per_minute(limits: Limits, bundle_bytes: int) -> int:
    """Orders that may be given in any minute, so that their bytes stay under the limit too."""
    found = [limits.per_minute] if limits.per_minute else []
    if limits.bytes_per_second and bundle_bytes:
        found.append(max(1, 60 * limits.bytes_per_second // bundle_bytes))
    return min(found, default=0)
