"""Rows that devices were asked for, and the commands that ask."""

from collections.abc import Iterable, Mapping, Sequence

import msgspec
from sqlalchemy import and_, delete, exists, func, or_, select, update

from fleet_server.records import SampleRecord
from fleet_server.store import tables
from fleet_server.store.database import Database

BATCH = 500  # names in one question


class Samples(Database):
    """Commands down, samples up."""

    def command_numbers(self, devices: Iterable[str]) -> dict[str, int]:
        """The number of each device's last command; those without one are left out."""
        table, names = tables.commands, sorted(set(devices))
        found: dict[str, int] = {}
        with self._read() as c:
            for start in range(0, len(names), BATCH):
                wanted = select(table.c.device, table.c.number).where(
                    table.c.device.in_(names[start : start + BATCH])
                )
                found.update({row.device: row.number for row in c.execute(wanted)})
        return found

    def save_commands(self, signed: Mapping[str, tuple[int, bytes]], at: float) -> None:
        """Each device's command, which replaces the one before."""
        rows = [
            {"device": device, "number": number, "envelope": envelope, "issued_at": at}
            for device, (number, envelope) in signed.items()
        ]
        new = self._upsert(tables.commands)
        newest = {name: new.excluded[name] for name in ("number", "envelope", "issued_at")}
        with self._write() as c:
            c.execute(new.on_conflict_do_update(index_elements=["device"], set_=newest), rows)

    def command(self, device: str) -> bytes | None:
        """The device's signed command, as it goes over the wire."""
        table = tables.commands
        with self._read() as c:
            row = c.execute(select(table.c.envelope).where(table.c.device == device)).first()
        return row.envelope if row else None

    def add_samples(self, samples: Sequence[SampleRecord]) -> None:
        """Keep samples; the same row of a device is kept once."""
        if samples:
            rows = [msgspec.structs.asdict(sample) for sample in samples]
            with self._write() as c:
                c.execute(self._upsert(tables.samples).on_conflict_do_nothing(), rows)

    def samples(
        self,
        model: str,
        *,
        labelled: bool | None = None,
        limit: int | None = None,
        behind: SampleRecord | None = None,
    ) -> list[SampleRecord]:
        """A model's samples, the most wanted first; `labelled` tells which, None is all."""
        table, labels = tables.samples, tables.labels
        known = exists().where(and_(labels.c.device == table.c.device, labels.c.row == table.c.row))
        wanted = (
            select(*(table.c[name] for name in SampleRecord.__struct_fields__))
            .where(table.c.model == model)
            .order_by(table.c.score.desc(), table.c.id)
        )
        if labelled is not None:
            wanted = wanted.where(known if labelled else ~known)
        if labelled is False:
            wanted = wanted.where(table.c.skipped == 0)
        if limit is not None:
            wanted = wanted.limit(limit)
        if behind is not None:
            here = and_(table.c.device == behind.device, table.c.row == behind.row)
            place = select(table.c.id).where(here).scalar_subquery()
            later = and_(table.c.score == behind.score, table.c.id > place)
            wanted = wanted.where(or_(table.c.score < behind.score, later))
        with self._read() as c:
            return [SampleRecord(**row) for row in c.execute(wanted).mappings()]

    def sample(self, device: str, row: str) -> SampleRecord | None:
        table = tables.samples
        columns = [table.c[name] for name in SampleRecord.__struct_fields__]
        wanted = select(*columns).where(table.c.device == device, table.c.row == row)
        with self._read() as c:
            found = c.execute(wanted).mappings().first()
        return SampleRecord(**found) if found else None

    def skip_sample(self, device: str, row: str) -> None:
        """Nobody can say what this row shows."""
        table = tables.samples
        here = and_(table.c.device == device, table.c.row == row)
        with self._write() as c:
            c.execute(update(table).where(here).values(skipped=1))

    def count_samples(self) -> dict[str, int]:
        """How many samples each model has."""
        table = tables.samples
        wanted = select(table.c.model, func.count()).group_by(table.c.model)
        with self._read() as c:
            return {row[0]: row[1] for row in c.execute(wanted)}

    def drop_samples(self, before: float) -> int:
        """Forget samples that came before a time; how many there were."""
        table = tables.samples
        with self._write() as c:
            return c.execute(delete(table).where(table.c.received_at < before)).rowcount
