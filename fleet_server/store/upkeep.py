"""What keeps a server going: counts for Prometheus, retention, webhooks, repeated requests."""

import msgspec
from sqlalchemy import delete, func, insert, select, update

from fleet_server.api_types import DeliveryRow
from fleet_server.records import Delivery, EventRecord, Hook, Repeated
from fleet_server.store import tables
from fleet_server.store.database import Database

DELIVERIES_KEPT = 1000
PRUNED = 5000  # rows in one transaction, so that nobody waits long for it


class Upkeep(Database):
    """The server about itself."""

    def counts(self) -> dict[str, dict[str, int]]:
        """How many rows there are by what Prometheus tells them apart by."""
        devices, counted = tables.devices, func.count()
        by = {
            "edge_devices": devices.c.phase,
            "edge_running": devices.c.running_model + " " + devices.c.running_version,
            "edge_rollouts": tables.rollouts.c.status,
            "edge_alerts": tables.alerts.c.state,
        }
        with self._read() as c:
            found = {
                name: {
                    row[0]: row[1] for row in c.execute(select(column, counted).group_by(column))
                }
                for name, column in by.items()
            }
            poison = c.execute(select(counted).select_from(tables.poison)).scalar_one()
        return {**found, "poison": {"all": int(poison)}}

    def prune(self, *, windows: float, hours: float, events: float) -> int:
        """Forget windows, hourly roll-ups, events and past alerts of before these times; how many.

        Some at a time: call again until it returns 0. Daily roll-ups stay.
        """
        kinds = (
            (tables.windows, tables.windows.c.received_at < windows),
            (tables.rollups, (tables.rollups.c.span == "hour") & (tables.rollups.c.start < hours)),
            (tables.events, tables.events.c.at < events),
            (tables.alerts, tables.alerts.c.closed_at < events),
        )
        gone = 0
        for table, old in kinds:
            oldest = select(table.c.id).where(old).order_by(table.c.id).limit(PRUNED)
            with self._write() as c:
                gone += c.execute(delete(table).where(table.c.id.in_(oldest))).rowcount
        return gone

    def events_after(self, event: int, limit: int) -> list[EventRecord]:
        """The history behind the event with this id, oldest first."""
        table = tables.events
        columns = [table.c[name] for name in EventRecord.__struct_fields__]
        query = select(*columns).where(table.c.id > event).order_by(table.c.id).limit(limit)
        with self._read() as c:
            return [EventRecord(**row) for row in c.execute(query).mappings()]

    def add_hook(self, hook: Hook) -> Hook:
        """Keep a hook; it begins behind the newest event."""
        with self.transaction(), self._write() as c:
            newest = c.execute(select(func.max(tables.events.c.id))).scalar() or 0
            made = msgspec.structs.replace(hook, position=newest)
            c.execute(insert(tables.hooks).values(_plain(made)))
        return made

    def save_hook(self, hook: Hook) -> None:
        with self._write() as c:
            c.execute(update(tables.hooks).where(tables.hooks.c.id == hook.id).values(_plain(hook)))

    def hooks(self) -> list[Hook]:
        """By id."""
        with self._read() as c:
            rows = c.execute(select(tables.hooks).order_by(tables.hooks.c.id)).mappings()
            return [Hook(**{**row, "private": bool(row["private"])}) for row in rows]

    def add_delivery(self, made: Delivery) -> None:
        """Write down a try; the newest `DELIVERIES_KEPT` of each hook stay."""
        table = tables.deliveries
        of_hook = select(table.c.id).where(table.c.hook == made.hook)
        oldest = of_hook.order_by(table.c.id.desc()).offset(DELIVERIES_KEPT)
        with self.transaction(), self._write() as c:
            c.execute(insert(table).values(msgspec.structs.asdict(made)))
            c.execute(delete(table).where(table.c.id.in_(oldest.limit(PRUNED))))

    def deliveries(self, hook: str) -> list[DeliveryRow]:
        """The last tries, newest first."""
        table = tables.deliveries
        columns = [table.c[name] for name in DeliveryRow.__struct_fields__]
        query = select(*columns).where(table.c.hook == hook).order_by(table.c.id.desc())
        with self._read() as c:
            return [DeliveryRow(**row) for row in c.execute(query).mappings()]

    def drop_hook(self, hook: str) -> bool:
        """Whether there was one; what it was told is forgotten with it."""
        with self.transaction(), self._write() as c:
            c.execute(delete(tables.deliveries).where(tables.deliveries.c.hook == hook))
            return c.execute(delete(tables.hooks).where(tables.hooks.c.id == hook)).rowcount > 0

    def repeated(self, key: str) -> Repeated | None:
        """The answer that this key got before."""
        table = tables.repeated
        with self._read() as c:
            row = c.execute(select(table).where(table.c.key == key)).mappings().first()
        return Repeated(**row) if row else None

    def remember(self, answer: Repeated, forget_before: float) -> None:
        """Keep an answer; those of before are forgotten."""
        table = tables.repeated
        with self.transaction(), self._write() as c:
            c.execute(delete(table).where(table.c.at < forget_before))
            c.execute(
                self._upsert(table).on_conflict_do_nothing(), [msgspec.structs.asdict(answer)]
            )


def _plain(hook: Hook) -> dict[str, object]:
    return msgspec.structs.asdict(hook) | {"private": int(hook.private)}
