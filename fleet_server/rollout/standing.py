"""Where each device of a rollout stands, told from facts alone. Pure."""

from collections import Counter
from collections.abc import Mapping

from edge_sdk.messages import Role
from fleet_server.rollout.state import BAD, Device, Look, Member, Rollout, Standing

UNTOLD = ("empty", "confirmed", "standby", "shadow")  # phases that say nothing of an open order


def standing(rollout: Rollout, member: Member, device: Device | None, now: float) -> Standing:
    """Where one device stands; only a reported digest makes it confirmed."""
    if not member.possible:
        return "no bundle"
    if device is None or device.gone:
        return "gone"
    if device.superseded:
        return "superseded"
    if _has_it(rollout, device):
        return "confirmed"
    tries = rollout.strategy.limits.quarantine_after
    if tries and device.failures >= tries:
        return "quarantined"
    if device.phase in ("reverted", "refused", "failed"):
        return device.phase
    return _silent_or_busy(rollout, device, now)


def _silent_or_busy(rollout: Rollout, device: Device, now: float) -> Standing:
    last = device.last_seen or 0.0
    told = (device.ordered, device.role) == (rollout.version, _role(rollout))
    if device.ordered_at is None or not told:  # or told by the phase before to do something else
        silent = now - max(last, rollout.entered_at)
        return "unreached" if silent > rollout.unreached_after else "waiting"
    silent = now - max(last, device.ordered_at)
    if last <= device.ordered_at:
        return "unreached" if silent > rollout.unreached_after else "offline"
    if silent > rollout.lost_after:
        return "lost"
    if device.phase == "deferred":
        return "deferred"
    return "ordered" if device.phase in UNTOLD else "updating"


def reason_of(device: Device | None) -> str:
    """Why a device stands where it does, in its own words; "" if it gave none."""
    if device is None or not device.reason:
        return ""
    return f"{device.phase}: {device.reason}"


def look_at(
    rollout: Rollout, fleet: Mapping[str, Device], now: float
) -> tuple[Look, dict[str, Standing]]:
    """Count where the devices of the present phase stand; the gates are added by who asks them."""
    found = {m.device: standing(rollout, m, fleet.get(m.device), now) for m in rollout.treated}
    reasons = Counter(
        reason_of(fleet.get(device)) for device, where in found.items() if where in BAD
    )
    told = tuple((words, n) for words, n in reasons.most_common(4) if words)
    return Look(at=now, standings=dict(Counter(found.values())), reasons=told), found


def _has_it(rollout: Rollout, device: Device) -> bool:
    role = _role(rollout)
    if role == "serve":
        return device.running == rollout.version and not _failed(device)
    return device.beside == rollout.version and device.beside_as == role


def _role(rollout: Rollout) -> Role:
    return "serve" if rollout.status in ("promoted", "reopened") else rollout.current.role


def _failed(device: Device) -> bool:
    """It runs the version still, or again, but its newest order for it ended badly."""
    return device.phase in ("reverted", "refused", "failed")
