"""What is known about decay: roll-ups by hour and day, and labels."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, and_, insert, or_, select, update

from edge_sdk.formats import from_msgpack, to_msgpack
from fleet_server.labels import Label
from fleet_server.records import RollupRecord
from fleet_server.rollups import Key, Slice, Span, Sums, together
from fleet_server.store import tables
from fleet_server.store.database import Database

BATCH = 500  # keys in one question


class Decay(Database):
    """Sums of windows, and the truth about some rows."""

    def labels_of(self, devices: Iterable[str]) -> dict[str, dict[str, str]]:
        """The labels of these devices."""
        table, names = tables.devices, sorted(set(devices))
        found: dict[str, dict[str, str]] = {}
        with self._read() as c:
            for start in range(0, len(names), BATCH):
                wanted = select(table.c.id, table.c.labels).where(
                    table.c.id.in_(names[start : start + BATCH])
                )
                for row in c.execute(wanted):
                    found[row.id] = msgspec.json.decode(row.labels, type=dict[str, str])
        return found

    def roll_up(
        self, parts: Mapping[Key, Sums], bundles: Mapping[str, tuple[str, str, str]]
    ) -> None:
        """Add to the roll-ups; `bundles` tells model, version and profile of each digest."""
        table, keys = tables.rollups, list(parts)
        with self.transaction(), self._write() as c:
            known: dict[Key, Sums] = {}
            for start in range(0, len(keys), BATCH):
                rows = c.execute(
                    select(*_KEY, table.c.body).where(
                        or_(*(_is(key) for key in keys[start : start + BATCH]))
                    )
                )
                known.update({_key(row): _sums(row.body) for row in rows})
            for key, part in parts.items():
                if key in known:
                    body = to_msgpack(together([known[key], part]))
                    c.execute(update(table).where(_is(key)).values(body=body))
                else:
                    model, version, profile = bundles[key.slice.digest]
                    c.execute(
                        insert(table).values(
                            span=key.span,
                            start=key.start,
                            digest=key.slice.digest,
                            site=key.slice.site,
                            labels=key.slice.labels,
                            model=model,
                            version=version,
                            profile=profile,
                            body=to_msgpack(part),
                        )
                    )

    def rollups(
        self, model: str, span: Span, since: float, until: float = float("inf")
    ) -> list[RollupRecord]:
        """A model's roll-ups that begin in [since, until), oldest first."""
        table = tables.rollups
        wanted = (
            select(table)
            .where(table.c.model == model, table.c.span == span, table.c.start >= since)
            .order_by(table.c.start, table.c.id)
        )
        if until != float("inf"):
            wanted = wanted.where(table.c.start < until)
        with self._read() as c:
            return [
                RollupRecord(
                    start=row.start,
                    model=row.model,
                    version=row.version,
                    profile=row.profile,
                    slice=_key(row).slice,
                    sums=_sums(row.body),
                )
                for row in c.execute(wanted)
            ]

    def add_labels(self, labels: Sequence[Label], now: float) -> int:
        """Keep labels; a later one for the same row of a device replaces the earlier.

        Returns how many rows are labelled for the first time.
        """
        table, fresh = tables.labels, 0
        with self._write() as c:
            for label in labels:
                values = {**msgspec.structs.asdict(label), "received_at": now}
                values["audit"] = int(label.audit)
                here = and_(table.c.device == label.device, table.c.row == label.row)
                if not c.execute(update(table).where(here).values(values)).rowcount:
                    c.execute(insert(table).values(values))
                    fresh += 1
        return fresh

    def labels(self, model: str, since: float = 0.0) -> list[Label]:
        """The labels of a model's rows taken at `since` or later, in the order they were taken."""
        table = tables.labels
        columns = [table.c[name] for name in Label.__struct_fields__]
        wanted = (
            select(*columns)
            .where(table.c.model == model, table.c.taken_at >= since)
            .order_by(table.c.taken_at, table.c.id)
        )
        with self._read() as c:
            return [
                Label(**{**row, "audit": bool(row["audit"])})
                for row in c.execute(wanted).mappings()
            ]


_KEY = [tables.rollups.c[name] for name in ("span", "start", "digest", "site", "labels")]


def _is(key: Key) -> ColumnElement[bool]:
    values = (key.span, key.start, key.slice.digest, key.slice.site, key.slice.labels)
    return and_(*(column == value for column, value in zip(_KEY, values, strict=True)))


def _key(row: Any) -> Key:  # noqa: ANN401 - a row of the table, whatever its columns
    return Key(row.span, row.start, Slice(row.digest, row.site, row.labels))


def _sums(body: bytes) -> Sums:
    return from_msgpack(Sums, body, "a stored roll-up")
