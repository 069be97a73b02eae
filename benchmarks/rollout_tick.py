"""One tick of the controller in a canary phase, over 10,000 and over 100,000 devices.

A quarter of the devices are canaries and confirmed; every device sent windows before and after.
Before each timed tick every 20th canary has sent one more window and 20 canaries reported
something new, so the tick reads the fleet, judges seven gates, and writes what changed. Drift is
left out: the windows are of edges that no bundle has. Both sizes take turns, so that a busy machine
slows both. SQLite and PostgreSQL, if it is installed; the larger ratio of medians is the value.
"""

import json
import statistics
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import perf_counter

import msgspec
from msgspec.structs import replace
from sqlalchemy import insert, update

from edge_sdk.bundle import unpack
from edge_sdk.formats import to_msgpack
from edge_sdk.messages import Window
from edge_sdk.signing import SigningKey
from fleet_server.controller import Controller
from fleet_server.evidence.measures import Measures
from fleet_server.planning import Wish
from fleet_server.records import BundleRecord, DeviceRecord, NewWindow
from fleet_server.rollout.strategies import shipped
from fleet_server.store import Store, tables
from tests.bundles import make_bundle
from tests.postgres import missing, postgres

SIZES = (10_000, 100_000)
START = 1_800_000_000.0
PAST, NOW, TICKS, BATCH = 2, 2, 5, 5000
NO_EDGES = "none"
MEASURES = msgspec.msgpack.encode(Measures(memory=50_000_000, classes=(30, 30)))


@contextmanager
def places(folder: Path) -> Iterator[dict[str, list[Path | str]]]:
    """A database of each kind for each size."""
    found: dict[str, list[Path | str]] = {"SQLite": [folder / f"{n}.db" for n in SIZES]}
    with ExitStack() as stack:
        if missing():
            print(missing(), flush=True)
        else:
            running = stack.enter_context(postgres(durable=True))
            found["PostgreSQL"] = [running.new_database() for _ in SIZES]
        yield found


class Fleet:
    """A store with devices in the middle of a rollout."""

    def __init__(self, where: Path | str, size: int) -> None:
        key = SigningKey.generate()
        self.store, self.now, self.size = Store(where), START, size
        self.bundles = [self._publish(key, version) for version in ("1", "2")]
        self.controller = Controller(self.store, key, lambda _device, _envelope: None)
        self.names = [f"d{number:06}" for number in range(size)]
        self._enrol()
        self._windows("1", self.names, PAST)
        strategy = replace(
            shipped("canary"),
            max_failed_share=0.9,
            phases=tuple(
                replace(p, min_windows=2, soak_seconds=1e6 if p.judged else 0.0)
                for p in shipped("canary").phases
            ),
        )
        wish = Wish(model="digits", version="2", strategy=msgspec.to_builtins(strategy))
        self.rollout = self.controller.create(wish, self.now)
        self.until_canaries()

    def _publish(self, key: SigningKey, version: str) -> BundleRecord:
        found = unpack(make_bundle(key, version=version), [key.public])
        record = BundleRecord(
            digest=found.digest,
            model="digits",
            version=version,
            profile="raspberry-pi-4",
            length=4000,
            manifest=found.manifest,
            baseline=found.baseline,
            edges_id=found.baseline.edges_id,
            signed_by=found.signed_by,
            published_at=START + float(version),
        )
        self.store.add_bundle(record)
        return record

    def _enrol(self) -> None:
        rows = []
        for number, name in enumerate(self.names):
            record = DeviceRecord(
                id=name,
                public="0" * 64,
                profile="raspberry-pi-4",
                labels={},
                enrolled_at=START,
                last_seen=START,
                boot="b",
                running_model="digits",
                running_version="1",
                running_digest=self.bundles[0].digest,
                phase="confirmed",
            )
            values = msgspec.structs.asdict(record)
            rows.append({**values, "labels": json.dumps({"site": f"s{number % 50}"})})
        with self.store._write() as c:
            for start in range(0, len(rows), BATCH):
                c.execute(insert(tables.devices), rows[start : start + BATCH])

    def _windows(self, version: str, names: list[str], each: int) -> None:
        bundle = self.bundles[int(version) - 1]
        empty = Window(
            model="digits",
            version=version,
            digest=bundle.digest,
            edges_id=NO_EDGES,
            seconds=60.0,
            rows=60,
        )
        body = to_msgpack(empty)
        for _ in range(each):
            self.now += 60.0
            rows = [
                NewWindow(
                    device=name,
                    boot="b",
                    seq=int(self.now - START) + int(version),
                    received_at=self.now,
                    wall=self.now,
                    model="digits",
                    version=version,
                    digest=bundle.digest,
                    edges_id=NO_EDGES,
                    seconds=60.0,
                    rows=60,
                    errors=0,
                    skew=0,
                    confidence_mean=0.9 + 0.001 * (number % 7),
                    confidence_rows=60,
                    latency_mean=2.0,
                    body=body,
                    measures=MEASURES,
                )
                for number, name in enumerate(names)
            ]
            with self.store.transaction():
                for start in range(0, len(rows), BATCH):
                    self.store.add_windows(rows[start : start + BATCH])
        self._heard()

    def _heard(self) -> None:
        with self.store._write() as c:
            c.execute(update(tables.devices).values(last_seen=self.now))

    def until_canaries(self) -> None:
        """Tick until every canary has its order, take all orders, and send windows since."""
        orders: dict[str, int] = {}
        for _ in range(100):
            self.now += 60.0
            self._heard()
            self.controller.tick(self.now)
            ordered = {s.device: s for s in self.store.seats() if s.order_rollout}
            if len(ordered) == self.size // 4:
                orders = {name: seat.order_generation for name, seat in ordered.items()}
                break
        self.canaries = sorted(orders)
        with self.store._write() as c:
            values = {
                "running_version": "2",
                "running_digest": self.bundles[1].digest,
                "generation": 1,
            }
            for start in range(0, len(self.canaries), BATCH):
                part = self.canaries[start : start + BATCH]
                c.execute(
                    update(tables.devices).where(tables.devices.c.id.in_(part)).values(values)
                )
        others = sorted(set(self.names) - set(self.canaries))
        self._windows("2", self.canaries, NOW - 1)
        self._windows("1", others, NOW - 1)
        self.now += 60.0
        self.controller.tick(self.now)

    def tick(self, number: int) -> float:
        """Seconds of one tick, with something new to see."""
        self._windows("2", self.canaries[::20], 1)
        with self.store._write() as c:
            part = self.canaries[20 * number : 20 * (number + 1)]
            failed = {"phase": "reverted", "reason": "it crashed"}
            c.execute(update(tables.devices).where(tables.devices.c.id.in_(part)).values(failed))
        self.now += 60.0
        self._heard()
        begun = perf_counter()
        changed = self.controller.tick(self.now)
        took = perf_counter() - begun
        if not changed or self.store.rollout(self.rollout).status != "running":  # type: ignore[union-attr]
            raise SystemExit("the tick saw nothing, or the rollout is over: nothing was measured")
        return took


def main() -> None:
    """Both sizes on both databases."""
    medians: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder, places(Path(folder)) as found:
        for kind, wheres in found.items():
            fleets = [Fleet(where, size) for where, size in zip(wheres, SIZES, strict=True)]
            turns = [[fleet.tick(number) for fleet in fleets] for number in range(TICKS)]
            medians[kind] = [statistics.median(times) for times in zip(*turns, strict=True)]
            for fleet in fleets:
                fleet.store.close()
            print(kind, [f"{median:.2f} s" for median in medians[kind]], flush=True)
    ratios = {kind: big / small for kind, (small, big) in medians.items()}
    told = "; ".join(
        f"{kind} {small:.2f} s and {big:.2f} s, x{ratios[kind]:.1f}"
        for kind, (small, big) in medians.items()
    )
    result = {
        "name": "rollout-tick",
        "value": round(max(ratios.values()), 2),
        "unit": "x time for 10 x devices",
        "better": "lower",
        "against": "the same tick over a tenth of the devices; 10 is linear",
        "detail": f"a tick over 10,000 and 100,000 devices, medians of {TICKS}: {told}",
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
