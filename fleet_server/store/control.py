"""Published bundles, and alerts."""

import msgspec
from sqlalchemy import RowMapping, insert, select

from edge_sdk.bundle import Manifest
from edge_sdk.formats import from_json, to_json
from edge_sdk.sketch import Baseline
from fleet_server.records import (
    AlertRecord,
    BundleRecord,
)
from fleet_server.store import tables
from fleet_server.store.people import People


class Control(People):
    """What the operator and the controller decide about."""

    def add_bundle(self, bundle: BundleRecord) -> None:
        values = msgspec.structs.asdict(bundle)
        del values["edges_id"]
        values["manifest"] = to_json(bundle.manifest).decode()
        values["baseline"] = to_json(bundle.baseline).decode()
        with self._write() as c:
            c.execute(insert(tables.bundles).values(values))

    def bundles(self, model: str | None = None) -> list[BundleRecord]:
        """Oldest first."""
        table = tables.bundles
        wanted = select(table).order_by(table.c.published_at, table.c.digest)
        if model is not None:
            wanted = wanted.where(table.c.model == model)
        with self._read() as c:
            return [bundle_of(row) for row in c.execute(wanted).mappings()]

    def bundle(self, digest: str) -> BundleRecord | None:
        table = tables.bundles
        with self._read() as c:
            row = c.execute(select(table).where(table.c.digest == digest)).mappings().first()
        return bundle_of(row) if row else None

    def bundle_digests(self) -> set[str]:
        """Of all that were published."""
        with self._read() as c:
            return set(c.execute(select(tables.bundles.c.digest)).scalars())

    def save_alert(self, alert: AlertRecord) -> None:
        values = msgspec.structs.asdict(alert)
        with self._write() as c:
            c.execute(
                self._upsert(tables.alerts)
                .values(values)
                .on_conflict_do_update(index_elements=["id"], set_=values)
            )

    def decide_alert(self, alert: AlertRecord, by: str, what: str) -> None:
        """Keep an alert that a rule opened, worsened or closed; the audit log gets its evidence."""
        with self.transaction():
            self.save_alert(alert)
            self.add_audit(alert.updated_at, by, what, alert.id, alert.document.decode())

    def alert(self, alert: str) -> AlertRecord | None:
        with self._read() as c:
            found = c.execute(select(tables.alerts).where(tables.alerts.c.id == alert)).mappings()
            row = found.first()
        return AlertRecord(**row) if row else None


def bundle_of(row: RowMapping) -> BundleRecord:
    """A row of the table."""
    baseline = from_json(Baseline, row["baseline"].encode(), "a stored baseline")
    manifest = from_json(Manifest, row["manifest"].encode(), "a stored manifest")
    values = {**row, "manifest": manifest, "baseline": baseline, "edges_id": baseline.edges_id}
    return BundleRecord(**values)
