"""Pages of long lists: only the rows that are shown are read, however long the list is."""

import msgspec
from sqlalchemy import Select, func, select

from fleet_server.records import DeviceRecord, EventRecord, WindowRecord
from fleet_server.store import tables
from fleet_server.store.devices import device_of
from fleet_server.store.telemetry import NUMBERS, Telemetry


class DeviceFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which devices; empty and None leave a question out.

    Attributes:
        q: the id begins with it.
        running: a version that they report.
        silent_since: not heard of at this time or later (Unix seconds), or never.
    """

    q: str = ""
    profile: str = ""
    site: str = ""
    model: str = ""
    running: str = ""
    phase: str = ""
    silent_since: float | None = None


class Listing(Telemetry):
    """What pages show, page by page."""

    def device_page(self, wanted: DeviceFilter, after: str, limit: int) -> list[DeviceRecord]:
        """Devices by id, beginning behind `after`."""
        table = tables.devices
        query = _filtered(select(table), wanted).where(table.c.id > after)
        with self._read() as c:
            rows = c.execute(query.order_by(table.c.id).limit(limit)).mappings()
            return [device_of(row) for row in rows]

    def device_count(self, wanted: DeviceFilter) -> int:
        with self._read() as c:
            query = _filtered(select(func.count()).select_from(tables.devices), wanted)
            return int(c.execute(query).scalar_one())

    def running_counts(self) -> dict[str, int]:
        """How many devices report to run each digest."""
        table = tables.devices
        query = select(table.c.running_digest, func.count()).group_by(table.c.running_digest)
        with self._read() as c:
            return {row[0]: row[1] for row in c.execute(query)}

    def profiles_and_models(self) -> tuple[list[str], list[str]]:
        """What devices can be filtered by: that for which there are bundles."""
        table = tables.bundles
        with self._read() as c:
            profiles = c.execute(select(table.c.profile).distinct().order_by(table.c.profile))
            models = c.execute(select(table.c.model).distinct().order_by(table.c.model))
            return list(profiles.scalars()), list(models.scalars())

    def windows_of(self, device: str, limit: int) -> list[WindowRecord]:
        """The numbers of a device's last windows, newest first."""
        table = tables.windows
        query = (
            select(*NUMBERS)
            .where(table.c.device == device)
            .order_by(table.c.received_at.desc(), table.c.id.desc())
            .limit(limit)
        )
        with self._read() as c:
            return [WindowRecord(**row) for row in c.execute(query).mappings()]

    def events_of(self, device: str, limit: int) -> list[EventRecord]:
        """A device's history, newest first."""
        table = tables.events
        columns = [table.c[name] for name in EventRecord.__struct_fields__]
        query = select(*columns).where(table.c.device == device).order_by(table.c.id.desc())
        with self._read() as c:
            return [EventRecord(**row) for row in c.execute(query.limit(limit)).mappings()]


def _filtered(query: Select, wanted: DeviceFilter) -> Select:  # type: ignore[type-arg]
    table = tables.devices
    if wanted.q:
        query = query.where(table.c.id.startswith(wanted.q, autoescape=True))
    if wanted.profile:
        query = query.where(table.c.profile == wanted.profile)
    if wanted.site:  # labels are JSON without spaces, as `add_device` writes them
        told = msgspec.json.encode({"site": wanted.site}).decode()[1:-1]
        query = query.where(table.c.labels.contains(told, autoescape=True))
    if wanted.model:
        query = query.where(table.c.running_model == wanted.model)
    if wanted.running:
        query = query.where(table.c.running_version == wanted.running)
    if wanted.phase:
        query = query.where(table.c.phase == wanted.phase)
    if wanted.silent_since is not None:
        silent = (table.c.last_seen < wanted.silent_since) | table.c.last_seen.is_(None)
        query = query.where(silent)
    return query
