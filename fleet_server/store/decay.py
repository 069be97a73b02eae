"""What is known about decay: roll-ups by hour and day, and labels."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Row, Select, and_, delete, func, insert, or_, select, update

from edge_sdk.formats import from_msgpack, to_msgpack
from fleet_server.labels import Label
from fleet_server.records import RollupRecord
from fleet_server.rollups import Key, Slice, Span, Sums, Whereabouts, slice_of, together
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

    def whereabouts(self, devices: Iterable[str]) -> dict[str, Whereabouts]:
        """Profile, site and labels of these devices."""
        table, names = tables.devices, sorted(set(devices))
        found: dict[str, Whereabouts] = {}
        with self._read() as c:
            for start in range(0, len(names), BATCH):
                wanted = select(table.c.id, table.c.profile, table.c.labels).where(
                    table.c.id.in_(names[start : start + BATCH])
                )
                for row in c.execute(wanted):
                    labels = msgspec.json.decode(row.labels, type=dict[str, str])
                    found[row.id] = Whereabouts(row.profile, slice_of("", labels))
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
                        or_(*(is_key(key) for key in keys[start : start + BATCH]))
                    )
                )
                known.update({_key(row): _sums(row.body) for row in rows})
            for key, part in parts.items():
                if key in known:
                    body = to_msgpack(together([known[key], part]))
                    c.execute(update(table).where(is_key(key)).values(body=body))
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
        wanted = _rollups(model, span).where(table.c.start >= since)
        if until != float("inf"):
            wanted = wanted.where(table.c.start < until)
        with self._read() as c:
            return [_rollup(row) for row in c.execute(wanted)]

    def rollup_page(
        self, model: str, span: Span, since: float, behind: tuple[float, int], limit: int
    ) -> list[RollupRecord]:
        """Some that begin at `since` or later, oldest first, behind this start and id."""
        table, (start, number) = tables.rollups, behind
        wanted = _rollups(model, span).where(table.c.start >= max(since, start))
        wanted = wanted.where((table.c.start > start) | (table.c.id > number)).limit(limit)
        with self._read() as c:
            return [_rollup(row) for row in c.execute(wanted)]

    def pasts(self) -> Iterator[tuple[str, str, bytes]]:
        """Model, device and what is known of it, as it was saved."""
        table = tables.pasts
        with self._read() as c:
            for row in c.execute(select(table).where(table.c.device != "")):
                yield row.model, row.device, row.body

    def save_pasts(self, model: str, bodies: Mapping[str, bytes], at: float) -> None:
        rows = [
            {"model": model, "device": device, "body": body, "updated_at": at}
            for device, body in bodies.items()
        ]
        new = self._upsert(tables.pasts)
        newest = {"body": new.excluded.body, "updated_at": new.excluded.updated_at}
        statement = new.on_conflict_do_update(index_elements=["model", "device"], set_=newest)
        if rows:
            with self._write() as c:
                c.execute(statement, rows)

    def forget_pasts(self, devices: Sequence[str]) -> None:
        table = tables.pasts
        with self._write() as c:
            for start in range(0, len(devices), BATCH):
                chunk = devices[start : start + BATCH]
                c.execute(delete(table).where(table.c.device.in_(chunk)))

    def tails(self) -> dict[str, bytes]:
        """By model, how large scores get while nothing is wrong, as it was saved."""
        table = tables.pasts
        with self._read() as c:
            rows = c.execute(select(table).where(table.c.device == "", table.c.model != ""))
            return {row.model: row.body for row in rows}

    def read_to(self) -> int:
        """The id of the last window that is in the saved pasts."""
        table = tables.pasts
        with self._read() as c:
            row = c.execute(select(table.c.body).where(table.c.model == "")).first()
        return int.from_bytes(row.body, "big") if row else 0

    def save_read_to(self, window: int, at: float) -> None:
        self.save_pasts("", {"": window.to_bytes(8, "big")}, at)

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

    def labelled_at(self) -> dict[str, float]:
        """By model, when the newest of its labels came."""
        table = tables.labels
        wanted = select(table.c.model, func.max(table.c.received_at)).group_by(table.c.model)
        with self._read() as c:
            return {row[0]: row[1] for row in c.execute(wanted)}

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


def _rollups(model: str, span: Span) -> Select[Any]:
    table = tables.rollups
    mine = (table.c.model == model, table.c.span == span)
    return select(table).where(*mine).order_by(table.c.start, table.c.id)


def _rollup(row: Row[Any]) -> RollupRecord:
    return RollupRecord(
        id=row.id,
        start=row.start,
        model=row.model,
        version=row.version,
        profile=row.profile,
        slice=_key(row).slice,
        sums=_sums(row.body),
    )


_KEY = [tables.rollups.c[name] for name in ("span", "start", "digest", "site", "labels")]


def is_key(key: Key) -> ColumnElement[bool]:
    """The row of a roll-up."""
    values = (key.span, key.start, key.slice.digest, key.slice.site, key.slice.labels)
    return and_(*(column == value for column, value in zip(_KEY, values, strict=True)))


def _key(row: Any) -> Key:  # noqa: ANN401 - a row of the table, whatever its columns
    return Key(row.span, row.start, Slice(row.digest, row.site, row.labels))


def _sums(body: bytes) -> Sums:
    return from_msgpack(Sums, body, "a stored roll-up")
