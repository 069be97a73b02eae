"""An operator shuts a device out, or lets it in again; and the alert that asks for it."""

import hashlib

import msgspec

from edge_sdk.errors import RefusedError
from fleet_server.answers import NotFoundError
from fleet_server.fleet import alert_record
from fleet_server.records import DeviceRecord
from fleet_server.store import Store
from fleet_server.store.listing import AlertFilter
from fleet_server.twins import Twins
from fleet_server.views import AlertRow

KIND = "identity"


def revoke(store: Store, device: str, now: float) -> None:
    """Shut a device out; its alerts about a second holder are settled by that.

    Raises:
        NotFoundError: there is no such device.
        RefusedError: it is revoked already.
    """
    with store.transaction():
        if _known(store, device).revoked_at is not None:
            raise RefusedError(f"device {device} is revoked already")
        store.set_revoked(device, now)
        store.add_event(now, device, "revoked", "by the operator", device)
        for alert in store.open_alerts(AlertFilter(kind=KIND)):
            if alert.scope == device:
                store.save_alert(
                    msgspec.structs.replace(alert, state="closed", updated_at=now, closed_at=now)
                )


def readmit(store: Store, device: str, now: float) -> None:
    """Let a revoked device in again, with the key it had; raises as `revoke`."""
    with store.transaction():
        if _known(store, device).revoked_at is None:
            raise RefusedError(f"device {device} is not revoked")
        store.set_revoked(device, None)
        store.add_event(now, device, "readmitted", "by the operator", device)


def report_twins(store: Store, twins: Twins, now: float) -> bool:
    """Open an alert about them, unless one is open or acknowledged; whether it did."""
    with store.transaction():
        if any(a.scope == twins.device for a in store.open_alerts(AlertFilter(kind=KIND))):
            return False
        row = _alert(twins, now)
        store.decide_alert(alert_record(row, now), "server", "alert opened")
        store.add_event(now, "server", "alert opened", f"{row.id}: {row.title}", twins.device)
    return True


def _known(store: Store, device: str) -> DeviceRecord:
    found = store.device(device)
    if found is None:
        raise NotFoundError(f"there is no device {device[:64]!r}")
    return found


def _alert(twins: Twins, now: float) -> AlertRow:
    one, other = twins.addresses
    return AlertRow(
        id="a" + hashlib.sha256(f"{twins.device}/{KIND}/{now}".encode()).hexdigest()[:6],
        state="open",
        severity="critical",
        kind=KIND,
        scope=twins.device,
        title=f"device {twins.device} exists twice: at {one} and at {other}",
        detail=(
            f"Two processes (boots {twins.boots[0]} and {twins.boots[1]}) take turns with the key "
            f"of {twins.device}: most likely its SD card or state folder was copied. The one that "
            "connected last has the connection, so both work by halves. Stop the copy; or revoke "
            f"the identity ('edge device revoke {twins.device}') and let each machine enrol anew, "
            "from an empty state folder, one of them under another id."
        ),
        opened_at=now,
        devices=1,
    )
