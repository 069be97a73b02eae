"""Rollouts: their documents, decisions and members, who owns which device, where each stands."""

from collections.abc import Iterable, Mapping, Sequence

import msgspec
from sqlalchemy import and_, delete, exists, func, insert, or_, select, update

from edge_sdk.errors import RefusedError
from fleet_server.records import (
    AssignmentRecord,
    DecisionRecord,
    RolloutRecord,
    Seat,
    StandingRecord,
)
from fleet_server.rollout.state import Member
from fleet_server.store import tables
from fleet_server.store.people import People
from fleet_server.views import AliasRow, RunRow

BATCH = 5000  # rows in one statement
SLOT = "main"


class Rollouts(People):
    """What the controller remembers."""

    def save_rollout(
        self, rollout: str, model: str, version: str, status: str, document: bytes, at: float
    ) -> None:
        values = {
            "id": rollout,
            "model": model,
            "version": version,
            "status": status,
            "document": document,
            "updated_at": at,
        }
        with self._write() as c:
            c.execute(
                self._upsert(tables.rollouts)
                .values(created_at=at, **values)
                .on_conflict_do_update(index_elements=["id"], set_=values)
            )

    def rollouts(self, status: str | None = None) -> list[RolloutRecord]:
        """Oldest first."""
        table = tables.rollouts
        wanted = select(table).order_by(table.c.created_at, table.c.id)
        if status is not None:
            wanted = wanted.where(table.c.status == status)
        with self._read() as c:
            return [RolloutRecord(**row) for row in c.execute(wanted).mappings()]

    def rollout(self, rollout: str) -> RolloutRecord | None:
        table = tables.rollouts
        with self._read() as c:
            row = c.execute(select(table).where(table.c.id == rollout)).mappings().first()
        return RolloutRecord(**row) if row else None

    def add_decision(self, rollout: str, at: float, document: bytes) -> None:
        values = {"rollout": rollout, "at": at, "document": document}
        with self.transaction(), self._write() as c:
            c.execute(insert(tables.decisions).values(values))
            self.add_audit(at, "controller", "rollout decision", rollout, document.decode())

    def decisions(
        self, rollout: str, limit: int = 100, before: int | None = None
    ) -> list[DecisionRecord]:
        """Newest first, those with an id below `before`."""
        table = tables.decisions
        wanted = (
            select(table).where(table.c.rollout == rollout).order_by(table.c.id.desc()).limit(limit)
        )
        if before is not None:
            wanted = wanted.where(table.c.id < before)
        with self._read() as c:
            return [DecisionRecord(**row) for row in c.execute(wanted).mappings()]

    def rollouts_in(self, statuses: Sequence[str]) -> list[RolloutRecord]:
        """Those with one of these statuses, oldest first."""
        table = tables.rollouts
        wanted = select(table).where(table.c.status.in_(statuses))
        with self._read() as c:
            found = c.execute(wanted.order_by(table.c.created_at, table.c.id)).mappings()
            return [RolloutRecord(**row) for row in found]

    def ages(self) -> list[tuple[str, str, str, str]]:
        """Id, model, version and status of every rollout, oldest first."""
        table = tables.rollouts
        wanted = select(table.c.id, table.c.model, table.c.version, table.c.status)
        with self._read() as c:
            found = c.execute(wanted.order_by(table.c.created_at, table.c.id))
            return [(row[0], row[1], row[2], row[3]) for row in found]

    def add_members(self, rollout: str, members: Sequence[Member]) -> None:
        rows = [
            {
                "rollout": rollout,
                "place": place,
                **msgspec.structs.asdict(member),
                "possible": int(member.possible),
            }
            for place, member in enumerate(members)
        ]
        with self._write() as c:
            for start in range(0, len(rows), BATCH):
                c.execute(insert(tables.members), rows[start : start + BATCH])

    def members(self, rollout: str) -> tuple[Member, ...]:
        """In the order in which they are reached."""
        table = tables.members
        columns = [table.c[name] for name in Member.__struct_fields__]
        wanted = select(*columns).where(table.c.rollout == rollout).order_by(table.c.place)
        with self._read() as c:
            return tuple(
                Member(row[0], row[1], row[2], bool(row[3]), row[4]) for row in c.execute(wanted)
            )

    def claim(self, rollout: str, devices: Iterable[str]) -> None:
        """Make a rollout the one owner of these devices' slots.

        Raises:
            RefusedError: another rollout owns one of them; none is claimed then.
        """
        table = tables.claims
        rows = [{"device": device, "slot": SLOT, "rollout": rollout} for device in devices]
        with self.transaction(), self._write() as c:
            for start in range(0, len(rows), BATCH):
                part = rows[start : start + BATCH]
                c.execute(self._upsert(table).on_conflict_do_nothing(), part)
            ours = select(func.count()).where(table.c.rollout == rollout)
            if c.execute(ours).scalar_one() != len(rows):
                raise RefusedError(
                    f"another rollout owns devices that {rollout} was to reach: try again"
                )

    def release(self, rollout: str) -> None:
        """Give up every claim of a rollout."""
        table = tables.claims
        with self._write() as c:
            c.execute(delete(table).where(table.c.rollout == rollout))

    def claims(self) -> dict[str, str]:
        """The owning rollout by device."""
        table = tables.claims
        with self._read() as c:
            return {row[0]: row[1] for row in c.execute(select(table.c.device, table.c.rollout))}

    def seats(self) -> list[Seat]:
        """Every device with its newest order, in no order."""
        d, a = tables.devices.c, tables.assignments.c
        wanted = select(
            d.id, d.profile, d.last_seen, d.revoked_at, d.running_model, d.running_version,
            d.running_digest, d.beside_digest, d.phase, d.reason, d.generation,
            a.generation, a.model, a.version, a.digest, a.rollout, a.issued_at, a.role,
        ).select_from(
            tables.devices.outerjoin(
                tables.assignments, and_(a.device == d.id, a.slot == SLOT)
            )
        )  # fmt: skip
        with self._read() as c:
            return [_seat(tuple(row)) for row in c.execute(wanted)]

    def standings(self, rollout: str) -> dict[str, StandingRecord]:
        """Where each device of a rollout stands, by device."""
        table = tables.standings
        with self._read() as c:
            found = c.execute(select(table).where(table.c.rollout == rollout)).mappings()
            return {row["device"]: StandingRecord(**row) for row in found}

    def rollout_size(self, rollout: str) -> tuple[int, int]:
        """How many members it has, and how many of them there is a bundle for."""
        table = tables.members
        query = select(func.count(), func.coalesce(func.sum(table.c.possible), 0))
        with self._read() as c:
            row = c.execute(query.where(table.c.rollout == rollout)).one()
        return int(row[0]), int(row[1])

    def confirmed(self, rollout: str, model: str, version: str) -> int:
        """How many members report that they run this, and that it is confirmed."""
        device, member = tables.devices, tables.members
        ours = exists().where(
            member.c.rollout == rollout, member.c.device == device.c.id, member.c.possible == 1
        )
        query = select(func.count()).where(
            device.c.running_model == model,
            device.c.running_version == version,
            device.c.phase == "confirmed",
            ours,
        )
        with self._read() as c:
            return int(c.execute(query).scalar_one())

    def standing_counts(self, rollout: str) -> dict[str, int]:
        """How many of a rollout's devices stand where."""
        table = tables.standings
        wanted = select(table.c.standing, func.count()).where(table.c.rollout == rollout)
        with self._read() as c:
            return {row[0]: row[1] for row in c.execute(wanted.group_by(table.c.standing))}

    def move(self, changed: Sequence[StandingRecord]) -> None:
        """Devices came to stand elsewhere: remembered as where they are, and as what happened."""
        if not changed:
            return
        table, rows = tables.standings, [msgspec.structs.asdict(one) for one in changed]
        new = self._upsert(table)
        newer = {c.name: new.excluded[c.name] for c in table.c}
        statement = new.on_conflict_do_update(index_elements=["rollout", "device"], set_=newer)
        with self.transaction(), self._write() as c:
            for start in range(0, len(rows), BATCH):
                c.execute(statement, rows[start : start + BATCH])
                c.execute(insert(tables.transitions), rows[start : start + BATCH])

    def transitions(self, rollout: str, device: str | None = None) -> list[StandingRecord]:
        """What happened to a rollout's devices, or to one, oldest first."""
        table = tables.transitions
        columns = [table.c[name] for name in StandingRecord.__struct_fields__]
        wanted = select(*columns).where(table.c.rollout == rollout).order_by(table.c.id)
        if device is not None:
            wanted = wanted.where(table.c.device == device)
        with self._read() as c:
            return [StandingRecord(**row) for row in c.execute(wanted).mappings()]

    def newest_of_rollouts(self) -> tuple[int, int, int]:
        """The highest ids of orders, moves and decisions there are; 0 where there is none."""
        kinds = (tables.orders, tables.transitions, tables.decisions)
        with self._read() as c:
            found = [c.execute(select(func.max(kind.c.id))).scalar() or 0 for kind in kinds]
        return found[0], found[1], found[2]

    def decisions_after(self, number: int, limit: int) -> list[DecisionRecord]:
        """Those with a higher id, oldest first."""
        table = tables.decisions
        wanted = select(table).where(table.c.id > number).order_by(table.c.id).limit(limit)
        with self._read() as c:
            return [DecisionRecord(**row) for row in c.execute(wanted).mappings()]

    def orders_after(self, number: int, limit: int) -> list[tuple[int, AssignmentRecord]]:
        """Orders with a higher id, with it, oldest first."""
        table = tables.orders
        wanted = select(table).where(table.c.id > number).order_by(table.c.id).limit(limit)
        with self._read() as c:
            rows = [dict(row) for row in c.execute(wanted).mappings()]
        return [(row.pop("id"), AssignmentRecord(**row)) for row in rows]

    def moves_after(self, number: int, limit: int) -> list[tuple[int, StandingRecord]]:
        """Devices' moves with a higher id, with it, oldest first."""
        table = tables.transitions
        wanted = select(table).where(table.c.id > number).order_by(table.c.id).limit(limit)
        with self._read() as c:
            rows = [dict(row) for row in c.execute(wanted).mappings()]
        return [(row.pop("id"), StandingRecord(**row)) for row in rows]

    def failures(self, since: float, standings: Sequence[str]) -> dict[str, int]:
        """How often each device came to stand so since then, over all rollouts."""
        table = tables.transitions
        wanted = (
            select(table.c.device, func.count())
            .where(table.c.at >= since, table.c.standing.in_(standings))
            .group_by(table.c.device)
        )
        with self._read() as c:
            return {row[0]: row[1] for row in c.execute(wanted)}

    def hold_lease(self, name: str, holder: str, now: float, seconds: float) -> bool:
        """Take or keep a lease; False while somebody else holds it."""
        table = tables.leases
        with self._read() as c:
            found = c.execute(select(table).where(table.c.name == name)).first()
        if found and found.holder == holder and now + seconds / 2 < found.until <= now + seconds:
            return True  # young enough: no write
        values = {"holder": holder, "until": now + seconds}
        with self._write() as c:
            if not found:
                fresh = self._upsert(table).values(name=name, **values).on_conflict_do_nothing()
                return bool(c.execute(fresh).rowcount)
            wrong = table.c.until > now + 10 * seconds  # by a clock that was ahead
            free = or_(table.c.holder == holder, table.c.until <= now, wrong)
            taken = update(table).where(table.c.name == name, free).values(values)
            return bool(c.execute(taken).rowcount)

    def add_runs(self, runs: Iterable[RunRow]) -> None:
        rows = [msgspec.structs.asdict(run) for run in runs]
        if rows:
            with self._write() as c:
                c.execute(insert(tables.runs), rows)

    def ran(self, device: str, at: float, slot: str = SLOT) -> RunRow | None:
        """What ran on a device at a time; None if nothing was ever heard until then."""
        table = tables.runs
        columns = [table.c[name] for name in RunRow.__struct_fields__]
        wanted = (
            select(*columns)
            .where(table.c.device == device, table.c.slot == slot, table.c.at <= at)
            .order_by(table.c.at.desc(), table.c.id.desc())
            .limit(1)
        )
        with self._read() as c:
            row = c.execute(wanted).mappings().first()
        return RunRow(**row) if row else None

    def runs(self, device: str, limit: int = 100) -> list[RunRow]:
        """What a device ran, newest first."""
        table = tables.runs
        columns = [table.c[name] for name in RunRow.__struct_fields__]
        wanted = select(*columns).where(table.c.device == device)
        wanted = wanted.order_by(table.c.at.desc(), table.c.id.desc()).limit(limit)
        with self._read() as c:
            return [RunRow(**row) for row in c.execute(wanted).mappings()]

    def set_alias(self, alias: AliasRow) -> None:
        with self._write() as c:
            c.execute(insert(tables.aliases).values(msgspec.structs.asdict(alias)))

    def alias_history(self, model: str | None = None) -> list[AliasRow]:
        """Every change of every alias, oldest first."""
        table = tables.aliases
        columns = [table.c[name] for name in AliasRow.__struct_fields__]
        wanted = select(*columns).order_by(table.c.id)
        if model is not None:
            wanted = wanted.where(table.c.model == model)
        with self._read() as c:
            return [AliasRow(**row) for row in c.execute(wanted).mappings()]

    def aliases(self, model: str | None = None) -> Mapping[tuple[str, str], str]:
        """The version that each alias means now, by model and alias."""
        now = {(one.model, one.alias): one.version for one in self.alias_history(model)}
        return {key: version for key, version in now.items() if version}


def _seat(row: tuple) -> Seat:  # type: ignore[type-arg]
    ordered = row[11] is not None
    return Seat(
        device=row[0],
        profile=row[1],
        last_seen=row[2],
        revoked=row[3] is not None,
        running_model=row[4],
        running_version=row[5],
        running_digest=row[6],
        beside_digest=row[7],
        phase=row[8],
        reason=row[9],
        generation=row[10],
        order_generation=row[11] if ordered else 0,
        order_model=row[12] if ordered else "",
        order_version=row[13] if ordered else "",
        order_digest=row[14] if ordered else "",
        order_rollout=row[15] if ordered else "",
        ordered_at=row[16],
        role=row[17] if ordered else "serve",
    )
