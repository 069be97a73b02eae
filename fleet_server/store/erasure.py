"""Erasing what came from one device."""

import re

import msgspec
from sqlalchemy import Connection, delete, select, update

from edge_sdk.formats import from_msgpack, to_json, to_msgpack
from edge_sdk.messages import Window
from fleet_server.rollups import Key, Sums, keys_of, less, slice_of, sums, taken_at
from fleet_server.store import tables
from fleet_server.store.decay import Decay, is_key
from fleet_server.views import AlertRow

OF_A_DEVICE = (
    tables.samples,
    tables.labels,
    tables.windows,
    tables.events,
    tables.poison,
    tables.pasts,
    tables.commands,
    tables.runs,
    tables.standings,
    tables.transitions,
)


class Erasure(Decay):
    """What a person may ask for (GDPR, Art. 17)."""

    def forget_device(self, device: str) -> dict[str, int]:
        """Erase what came from a device: how many rows of each table there were.

        Its record stays, so that it can't come back under the same name unnoticed, and so does what
        rollouts decided and what operators did. Its windows are taken out of the sums of hours and
        days as long as they are stored; of older ones the sums hold no single row.
        """
        erased: dict[str, int] = {}
        with self.transaction(), self._write() as c:
            erased["rollups"] = self._take_out(c, device)
            erased["alerts"] = _scrub_alerts(c, device)
            named = [
                row.id
                for row in c.execute(
                    select(tables.events.c.id, tables.events.c.detail).where(
                        tables.events.c.detail.contains(device, autoescape=True)
                    )
                )
                if _names(device, row.detail)
            ]
            for start in range(0, len(named), 500):
                chunk = named[start : start + 500]
                c.execute(delete(tables.events).where(tables.events.c.id.in_(chunk)))
            for table in OF_A_DEVICE:
                gone = c.execute(delete(table).where(table.c.device == device)).rowcount
                erased[table.name] = gone
            erased["events"] += len(named)
        return erased

    def _take_out(self, c: Connection, device: str) -> int:
        """Take a device's windows out of the sums they are in; how many sums that changed."""
        table, changed = tables.rollups, 0
        for key, part in _sums_of(c, device).items():
            row = c.execute(select(table.c.id, table.c.body).where(is_key(key))).first()
            if row is None:
                continue
            rest = less(from_msgpack(Sums, row.body, "a stored roll-up"), part)
            here = table.c.id == row.id
            if rest.windows > 0:
                c.execute(update(table).where(here).values(body=to_msgpack(rest)))
            else:
                c.execute(delete(table).where(here))
            changed += 1
        return changed


def _sums_of(c: Connection, device: str) -> dict[Key, Sums]:
    """What the device's stored windows added to each sum."""
    known = c.execute(select(tables.devices.c.labels).where(tables.devices.c.id == device)).first()
    labels = msgspec.json.decode(known.labels, type=dict[str, str]) if known else {}
    table, parts = tables.windows, dict[Key, list[Window]]()
    columns = (table.c.digest, table.c.received_at, table.c.wall, table.c.body)
    for row in c.execute(select(*columns).where(table.c.device == device)):
        window = from_msgpack(Window, row.body, "a stored window")
        at = taken_at(row.received_at, row.wall)
        for key in keys_of(at, slice_of(row.digest, labels)):
            parts.setdefault(key, []).append(window)
    return {key: sums(windows) for key, windows in parts.items()}


def _scrub_alerts(c: Connection, device: str) -> int:
    """Take a device out of the alerts that name it; those about it alone go."""
    table, changed = tables.alerts, 0
    for row in c.execute(select(table.c.id, table.c.scope, table.c.document)).all():
        alert = msgspec.json.decode(row.document, type=AlertRow)
        others = tuple(name for name in alert.device_ids if name != device)
        here = table.c.id == row.id
        if _names(device, row.scope) or (alert.device_ids and not others):
            c.execute(delete(table).where(here))
        elif len(others) < len(alert.device_ids):
            rest = msgspec.structs.replace(alert, device_ids=others)
            c.execute(update(table).where(here).values(document=to_json(rest)))
        else:
            continue
        changed += 1
    return changed


def _names(device: str, text: str) -> bool:
    """Whether a text has the device's name as a word."""
    return re.search(rf"(?<![\w-]){re.escape(device)}(?![\w-])", text) is not None
