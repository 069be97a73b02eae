"""Enrolment keys, devices, and the orders given to them."""

from collections.abc import Collection, Iterable, Mapping, Sequence

import msgspec
from sqlalchemy import Float, RowMapping, bindparam, case, insert, null, select, update

from edge_sdk.errors import RefusedError
from edge_sdk.messages import Assignment
from fleet_server.records import AssignmentRecord, DeviceRecord, EnrolmentKey
from fleet_server.store import tables
from fleet_server.store.database import Database

BATCH = 1000  # names in one question


class Devices(Database):
    """Who is in the fleet, and what each was told to run."""

    def add_enrolment_key(self, key: EnrolmentKey) -> None:
        with self._write() as c:
            c.execute(insert(tables.enrolment_keys).values(msgspec.structs.asdict(key)))

    def enrolment_key(self, key_id: str) -> EnrolmentKey | None:
        table = tables.enrolment_keys
        with self._read() as c:
            row = c.execute(select(table).where(table.c.id == key_id)).mappings().first()
        return EnrolmentKey(**row) if row else None

    def use_enrolment_key(self, key_id: str) -> None:
        table = tables.enrolment_keys
        with self._write() as c:
            c.execute(
                update(table).where(table.c.id == key_id).values(uses_left=table.c.uses_left - 1)
            )

    def void_enrolment_keys(self) -> None:
        """No token made so far lets another device in."""
        with self._write() as c:
            c.execute(update(tables.enrolment_keys).values(uses_left=0))

    def add_device(self, device: DeviceRecord) -> None:
        values = msgspec.structs.asdict(device)
        values["labels"] = msgspec.json.encode(device.labels).decode()
        with self._write() as c:
            c.execute(insert(tables.devices).values(values))

    def rekey(self, device: DeviceRecord) -> None:
        """A known device has this key, profile and labels now, and is welcome; the rest stays."""
        table = tables.devices
        values = {
            "public": device.public,
            "profile": device.profile,
            "labels": msgspec.json.encode(device.labels).decode(),
            "tls_key": device.tls_key,
            "revoked_at": None,
        }
        with self._write() as c:
            c.execute(update(table).where(table.c.id == device.id).values(values))

    def set_revoked(self, device: str, at: float | None) -> None:
        """Shut a device out, or with None let it in again."""
        table = tables.devices
        with self._write() as c:
            c.execute(update(table).where(table.c.id == device).values(revoked_at=at))

    def set_tls_key(self, device: str, tls_key: str) -> None:
        """Which key the device's certificate is for."""
        table = tables.devices
        with self._write() as c:
            c.execute(update(table).where(table.c.id == device).values(tls_key=tls_key))

    def device(self, device: str) -> DeviceRecord | None:
        table = tables.devices
        with self._read() as c:
            row = c.execute(select(table).where(table.c.id == device)).mappings().first()
        return device_of(row) if row else None

    def devices(self) -> list[DeviceRecord]:
        """All, by id."""
        with self._read() as c:
            rows = c.execute(select(tables.devices).order_by(tables.devices.c.id)).mappings().all()
        return [device_of(row) for row in rows]

    def save_report(self, device: DeviceRecord) -> None:
        """Replace what the device last said about itself."""
        table = tables.devices
        said = {
            name: getattr(device, name)
            for name in (
                "boot", "boot_order", "report_seq", "running_model", "running_version",
                "running_digest", "phase", "reason", "generation", "runtime", "agent", "resumed_at",
                "beside_digest",
            )
        }  # fmt: skip
        with self._write() as c:
            c.execute(update(table).where(table.c.id == device.id).values(said))

    def save_presence(self, device: DeviceRecord) -> None:
        """Replace what is known of the device's connection."""
        table = tables.devices
        values = {
            "link_boot": device.link_boot,
            "link_number": device.link_number,
            "left_at": device.left_at,
        }
        with self._write() as c:
            c.execute(update(table).where(table.c.id == device.id).values(values))

    def seen(
        self,
        at: Mapping[str, float],
        rows: Mapping[str, int],
        spoke: Collection[str] = (),
        periods: Mapping[str, float] | None = None,
    ) -> None:
        """Devices were heard of at these times and answered these many rows more.

        `periods` are the seconds of the last window of those that sent one.
        Those that `spoke` are there, whatever a last will said before.
        """
        if not at:
            return
        table = tables.devices
        later, told = table.c.last_seen > bindparam("at"), bindparam("told", type_=Float)
        statement = (
            update(table)
            .where(table.c.id == bindparam("who"))
            .values(
                last_seen=case((later, table.c.last_seen), else_=bindparam("at")),
                rows=table.c.rows + bindparam("more"),
                period=case((told > 0, told), else_=table.c.period),
                left_at=case((bindparam("spoke"), null()), else_=table.c.left_at),
            )
        )
        with self._write() as c:
            c.execute(
                statement,
                [
                    {
                        "who": who,
                        "at": when,
                        "more": rows.get(who, 0),
                        "spoke": who in spoke,
                        "told": (periods or {}).get(who, 0.0),
                    }
                    for who, when in at.items()
                ],
            )

    def order(self, orders: Iterable[tuple[Assignment, bytes]]) -> None:
        """Give devices new orders; each pair is an assignment and its signed envelope.

        Raises:
            RefusedError: a generation is not above the device's current one; nothing is written.
        """
        records = [_record(assignment, envelope) for assignment, envelope in orders]
        if not records:
            return
        new = self._upsert(tables.assignments)
        newer = {column.name: new.excluded[column.name] for column in tables.assignments.c}
        rows = [msgspec.structs.asdict(record) for record in records]
        with self.transaction(), self._write() as c:
            _refuse_older(records, self._generations({record.device for record in records}))
            c.execute(insert(tables.orders), rows)
            c.execute(
                new.on_conflict_do_update(index_elements=["device", "slot"], set_=newer), rows
            )

    def _generations(self, devices: set[str]) -> dict[tuple[str, str], int]:
        """Device and slot to the generation of the current order."""
        table, names = tables.assignments, sorted(devices)
        found: dict[tuple[str, str], int] = {}
        with self._read() as c:
            for start in range(0, len(names), BATCH):
                wanted = select(table.c.device, table.c.slot, table.c.generation).where(
                    table.c.device.in_(names[start : start + BATCH])
                )
                found.update({(row[0], row[1]): row[2] for row in c.execute(wanted)})
        return found

    def assignment(self, device: str, slot: str = "main") -> AssignmentRecord | None:
        table = tables.assignments
        wanted = select(table).where(table.c.device == device, table.c.slot == slot)
        with self._read() as c:
            row = c.execute(wanted).mappings().first()
        return AssignmentRecord(**row) if row else None

    def orders_of(self, device: str) -> list[tuple[int, str, str]]:
        """Generation, digest and role of every order a device was ever given, oldest first."""
        table = tables.orders
        wanted = select(table.c.generation, table.c.digest, table.c.role)
        wanted = wanted.where(table.c.device == device).order_by(table.c.generation)
        with self._read() as c:
            return [(row[0], row[1], row[2]) for row in c.execute(wanted)]

    def assignments(self, devices: Sequence[str] | None = None) -> dict[str, AssignmentRecord]:
        """The current order of every device that has one, by device; or of some devices."""
        table = tables.assignments
        wanted = select(table).where(table.c.slot == "main")
        if devices is not None:
            wanted = wanted.where(table.c.device.in_(devices))
        with self._read() as c:
            rows = c.execute(wanted).mappings().all()
        return {row["device"]: AssignmentRecord(**row) for row in rows}


def device_of(row: RowMapping) -> DeviceRecord:
    """A row of the table as a record."""
    labels = msgspec.json.decode(row["labels"], type=dict[str, str])
    return DeviceRecord(**{**row, "labels": labels})


def _record(assignment: Assignment, envelope: bytes) -> AssignmentRecord:
    return AssignmentRecord(
        device=assignment.device,
        slot=assignment.slot,
        generation=assignment.generation,
        model=assignment.model,
        version=assignment.version,
        profile=assignment.profile,
        digest=assignment.digest,
        length=assignment.length,
        rollout=assignment.rollout,
        envelope=envelope,
        issued_at=assignment.not_before,
        role=assignment.role,
    )


def _refuse_older(records: list[AssignmentRecord], known: dict[tuple[str, str], int]) -> None:
    for record in records:
        slot = (record.device, record.slot)
        current = known.get(slot)
        if current is not None and record.generation <= current:
            raise RefusedError(
                f"an order of generation {record.generation} for {record.device} was "
                f"refused: its current one has generation {current}"
            )
        known[slot] = record.generation
