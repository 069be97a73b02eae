"""Pages of long lists: only the rows that are shown are read, however long the list is."""

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import Column, ColumnElement, Select, Table, and_, case, func, select

from fleet_server.records import (
    AlertRecord,
    BundleRecord,
    DeviceRecord,
    EventRecord,
    MemberRecord,
    RolloutRecord,
    WindowRecord,
)
from fleet_server.rollout.state import NO_BUNDLE, NOT_REACHED
from fleet_server.store import tables
from fleet_server.store.control import bundle_of
from fleet_server.store.devices import device_of
from fleet_server.store.telemetry import NUMBERS, Telemetry

# In its own reporting periods a device is live for so long after it was heard of, then late.
LIVE_PERIODS, LATE_PERIODS = 2, 10
SHORTEST_PERIOD = 5.0
PERIOD_OF_SILENT = 30.0


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


class BundleFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which bundles; empty leaves a question out."""

    model: str = ""
    version: str = ""
    profile: str = ""


class RolloutFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which rollouts; empty leaves a question out."""

    model: str = ""
    version: str = ""
    status: str = ""


class MemberFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which devices of a rollout: of these names, and those that stand so.

    `NOT_REACHED` and `NO_BUNDLE` are standings here.
    """

    standing: str = ""
    devices: Sequence[str] | None = None


class EventFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which lines of the history; empty leaves a question out.

    Attributes:
        name: how theirs begins.
        of_server: only what the server itself did, nothing of single devices.
    """

    device: str = ""
    name: str = ""
    of_server: bool = False


class AlertFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which alerts; empty leaves a question out. The `model` is the first word of their scope."""

    state: str = ""
    kind: str = ""
    model: str = ""


EVERY_ALERT = AlertFilter()


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

    def silences(self, now: float) -> tuple[dict[str, int], list[DeviceRecord]]:
        """How many devices are live, late, offline, new or revoked by what they say themselves.

        And those of whom a connection would change that: late, offline, or without a window yet.
        """
        table = tables.devices
        state = _state(now)
        counts = select(state, func.count()).group_by(state)
        doubtful = state.in_(("late", "offline")) | and_(table.c.period == 0, state == "live")
        columns = [table.c[name] for name in ("id", "last_seen", "period", "left_at")]
        with self._read() as c:
            found = {row[0]: row[1] for row in c.execute(counts)}
            rows = c.execute(select(*columns).where(doubtful).order_by(table.c.id)).mappings()
            return found, [
                DeviceRecord(public="", profile="", labels={}, enrolled_at=0.0, **row)
                for row in rows
            ]

    def devices_in(self, phases: Sequence[str], limit: int) -> list[str]:
        """Ids of devices whose last order is in one of these phases."""
        table = tables.devices
        query = select(table.c.id).where(table.c.phase.in_(phases)).order_by(table.c.id)
        with self._read() as c:
            return list(c.execute(query.limit(limit)).scalars())

    def devices_named(self, names: Sequence[str]) -> list[DeviceRecord]:
        """Those that there are, by id."""
        table = tables.devices
        query = select(table).where(table.c.id.in_(names)).order_by(table.c.id)
        with self._read() as c:
            return [device_of(row) for row in c.execute(query).mappings()]

    def running_counts(self) -> dict[str, int]:
        """How many devices report to run each digest."""
        table = tables.devices
        query = select(table.c.running_digest, func.count()).group_by(table.c.running_digest)
        with self._read() as c:
            return {row[0]: row[1] for row in c.execute(query)}

    def bundle_page(self, wanted: BundleFilter, after: str, limit: int) -> list[BundleRecord]:
        """Bundles, newest first, behind the digest `after`."""
        table = tables.bundles
        query = _newest_first(table, table.c.digest, table.c.published_at, wanted, after)
        with self._read() as c:
            return [bundle_of(row) for row in c.execute(query.limit(limit)).mappings()]

    def rollout_page(self, wanted: RolloutFilter, after: str, limit: int) -> list[RolloutRecord]:
        """Rollouts, newest first, behind the one with the id `after`."""
        table = tables.rollouts
        query = _newest_first(table, table.c.id, table.c.created_at, wanted, after)
        with self._read() as c:
            return [RolloutRecord(**row) for row in c.execute(query.limit(limit)).mappings()]

    def member_page(
        self, rollout: str, wanted: MemberFilter, after: str, limit: int
    ) -> list[MemberRecord]:
        """A rollout's devices in the order in which they are reached, behind the device `after`."""
        m, s = tables.members, tables.standings
        both = m.outerjoin(s, and_(s.c.rollout == m.c.rollout, s.c.device == m.c.device))
        columns = [m.c[name] for name in MemberRecord.__struct_fields__[:6]]
        query = select(*columns, s.c.standing, s.c.reason, s.c.at).select_from(both)
        query = query.where(m.c.rollout == rollout).order_by(m.c.place).limit(limit)
        if after:
            last = select(m.c.place).where(m.c.rollout == rollout, m.c.device == after)
            query = query.where(m.c.place > last.scalar_subquery())
        if wanted.devices is not None:
            query = query.where(m.c.device.in_(wanted.devices))
        if wanted.standing in (NOT_REACHED, NO_BUNDLE):
            able = int(wanted.standing == NOT_REACHED)
            query = query.where(s.c.standing.is_(None), m.c.possible == able)
        elif wanted.standing:
            query = query.where(s.c.standing == wanted.standing)
        with self._read() as c:
            rows = [dict(row) for row in c.execute(query).mappings()]
        return [MemberRecord(**{**row, "possible": bool(row["possible"])}) for row in rows]

    def devices_standing(self, rollout: str, standings: Sequence[str], limit: int) -> list[str]:
        """Some of a rollout's devices that stand so."""
        table = tables.standings
        query = select(table.c.device).where(
            table.c.rollout == rollout, table.c.standing.in_(standings)
        )
        with self._read() as c:
            return list(c.execute(query.limit(limit)).scalars())

    def member_exists(self, rollout: str, device: str) -> bool:
        table = tables.members
        query = select(table.c.place).where(table.c.rollout == rollout, table.c.device == device)
        with self._read() as c:
            return c.execute(query).first() is not None

    def places_without_bundle(self, rollout: str) -> list[int]:
        """In a rollout's order the places of devices that it has no bundle for."""
        table = tables.members
        query = select(table.c.place).where(table.c.rollout == rollout, table.c.possible == 0)
        with self._read() as c:
            return list(c.execute(query.order_by(table.c.place)).scalars())

    def event_page(self, wanted: EventFilter, before: int, limit: int) -> list[EventRecord]:
        """The history, newest first, up to the event before the one with the id `before`."""
        table = tables.events
        columns = [table.c[name] for name in EventRecord.__struct_fields__]
        query = select(*columns).order_by(table.c.id.desc())
        if before:
            query = query.where(table.c.id < before)
        if wanted.device:
            query = query.where(table.c.device == wanted.device)
        if wanted.of_server:
            query = query.where(table.c.device.is_(None))
        if wanted.name:
            query = query.where(table.c.name.istartswith(wanted.name, autoescape=True))
        with self._read() as c:
            return [EventRecord(**row) for row in c.execute(query.limit(limit)).mappings()]

    def open_alerts(self, wanted: AlertFilter = EVERY_ALERT) -> list[AlertRecord]:
        """Those that are not over, newest first: as many as there are causes."""
        table = tables.alerts
        query = _alerts(select(table), wanted).where(table.c.closed_at.is_(None))
        with self._read() as c:
            rows = c.execute(query.order_by(table.c.opened_at.desc(), table.c.id)).mappings()
            return [AlertRecord(**row) for row in rows]

    def past_alerts(
        self, wanted: AlertFilter, behind: AlertRecord | None, limit: int
    ) -> list[AlertRecord]:
        """Those that are over, what ended last first, from the first on or `behind` one."""
        table = tables.alerts
        at, name = table.c.closed_at, table.c.id
        query = _alerts(select(table), wanted).where(at.is_not(None))
        if behind is not None:  # so that the index leads to where the page begins
            query = query.where(at <= behind.closed_at)
            query = query.where((at < behind.closed_at) | (name < behind.id))
        with self._read() as c:
            rows = c.execute(query.order_by(at.desc(), name.desc()).limit(limit)).mappings()
            return [AlertRecord(**row) for row in rows]

    def past_alert_count(self, wanted: AlertFilter) -> int:
        query = _alerts(select(func.count()).select_from(tables.alerts), wanted)
        with self._read() as c:
            return int(c.execute(query.where(tables.alerts.c.closed_at.is_not(None))).scalar_one())

    def alert_kinds(self) -> list[str]:
        """The kinds that there ever were."""
        kind = tables.alerts.c.kind
        with self._read() as c:
            return list(c.execute(select(kind).distinct().order_by(kind)).scalars())

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

    def confidences(self, devices: Sequence[str], windows: int) -> dict[str, float | None]:
        """Mean confidence of each device's last windows that are of the same bundle as the newest.

        One question whose parts each read a device's newest rows by their index, so that neither
        the fleet nor its past makes it slower.
        """
        device = tables.devices.c.id
        last = _last_windows(windows, "digest", "confidence_mean", "confidence_rows").subquery()
        rows = func.nullif(func.sum(last.c.confidence_rows), 0)
        mean = (
            select(func.sum(last.c.confidence_mean * last.c.confidence_rows) / rows)
            .where(last.c.digest == _last_windows(1, "digest").scalar_subquery())
            .correlate(tables.devices)
            .scalar_subquery()
        )
        with self._read() as c:
            return {
                row[0]: row[1] for row in c.execute(select(device, mean).where(device.in_(devices)))
            }

    def events_of(self, device: str, limit: int) -> list[EventRecord]:
        """A device's history, newest first."""
        table = tables.events
        columns = [table.c[name] for name in EventRecord.__struct_fields__]
        query = select(*columns).where(table.c.device == device).order_by(table.c.id.desc())
        with self._read() as c:
            return [EventRecord(**row) for row in c.execute(query.limit(limit)).mappings()]


def _last_windows(count: int, *columns: str) -> Select[Any]:
    """Of the device that the question around this is about."""
    table = tables.windows
    return (
        select(*(table.c[name] for name in columns))
        .where(table.c.device == tables.devices.c.id)
        .order_by(table.c.received_at.desc(), table.c.id.desc())
        .limit(count)
        .correlate(tables.devices)
    )


def _state(now: float) -> ColumnElement[str]:
    """`fleet.health` of a device without a connection, in SQL."""
    table = tables.devices
    period = case(
        (table.c.period > SHORTEST_PERIOD, table.c.period),
        (table.c.period > 0, SHORTEST_PERIOD),
        else_=PERIOD_OF_SILENT,
    )
    periods = (now - table.c.last_seen) / period
    return case(
        (table.c.revoked_at.is_not(None), "revoked"),
        (table.c.last_seen.is_(None), "new"),
        (table.c.left_at.is_not(None), "offline"),
        (periods <= LIVE_PERIODS, "live"),
        (periods <= LATE_PERIODS, "late"),
        else_="offline",
    )


def _alerts(query: Select, wanted: AlertFilter) -> Select:  # type: ignore[type-arg]
    table = tables.alerts
    if wanted.state:
        query = query.where(table.c.state == wanted.state)
    if wanted.kind:
        query = query.where(table.c.kind == wanted.kind)
    if wanted.model:
        begins = f"{wanted.model} "
        start = func.substr(table.c.scope, 1, len(begins))  # LIKE takes capitals for small letters
        query = query.where((table.c.scope == wanted.model) | (start == begins))
    return query


def _newest_first(
    table: Table,
    key: Column[str],
    at: Column[float],
    wanted: msgspec.Struct,
    after: str,
) -> Select[Any]:
    """By `at`, then `key`; `wanted` has columns' names with what they must be."""
    query = select(table).order_by(at.desc(), key)
    for name, value in msgspec.structs.asdict(wanted).items():
        if value:
            query = query.where(table.c[name] == value)
    if after:
        last = select(at).where(key == after).scalar_subquery()
        query = query.where((at < last) | ((at == last) & (key > after)))
    return query


def _filtered(query: Select, wanted: DeviceFilter) -> Select:  # type: ignore[type-arg]
    table = tables.devices
    if wanted.q:
        query = query.where(table.c.id.istartswith(wanted.q, autoescape=True))
    if wanted.profile:
        query = query.where(table.c.profile == wanted.profile)
    if wanted.site:  # labels are JSON without spaces, as `add_device` writes them
        told = msgspec.json.encode({"site": wanted.site}).decode()[1:-1]
        query = query.where(func.replace(table.c.labels, told, "") != table.c.labels)
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
