"""A drift report of one model over 30 days, for fleets of 100 to 1,000 devices.

Each device has a window every six hours at one of ten sites, committed as they come: stored, and
summed by hour and day. The report reads the sums; beside it, what reading the windows costs. On
SQLite, and on PostgreSQL where its programs are installed.
"""

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from edge_sdk.bundle import Bundle, unpack
from edge_sdk.formats import to_msgpack
from edge_sdk.messages import Window
from edge_sdk.signing import SigningKey
from edge_sdk.sketch import sketch
from fleet_server import rollups
from fleet_server.drift_report import drift_report
from fleet_server.drift_views import DriftReport
from fleet_server.records import BundleRecord, NewWindow
from fleet_server.store import Store
from tests.bundles import make_bundle
from tests.postgres import missing, postgres

FLEETS = (100, 300, 1000)
DAYS, EVERY, SITES, ROWS = 30, 6 * 3600.0, 10, 600
START = 1_799_971_200.0
REPEATS = 5


def publish(store: Store) -> Bundle:
    """The demo's bundle in the registry."""
    key = SigningKey.generate()
    bundle = unpack(make_bundle(key), [key.public])
    store.add_bundle(
        BundleRecord(
            digest=bundle.digest,
            model=bundle.manifest.name,
            version=bundle.manifest.version,
            profile=bundle.manifest.profile,
            length=1,
            manifest=bundle.manifest,
            baseline=bundle.baseline,
            edges_id=bundle.baseline.edges_id,
            signed_by="",
            published_at=START,
        )
    )
    return bundle


def a_window(bundle: Bundle, rng: np.random.Generator) -> Window:
    """Rows like the training data."""
    manifest, baseline = bundle.manifest, bundle.baseline
    return Window(
        model=manifest.name,
        version=manifest.version,
        digest=bundle.digest,
        edges_id=baseline.edges_id,
        seconds=EVERY,
        rows=ROWS,
        channels={
            name: sketch(channel, rng.normal(channel.mean, channel.sd or 1.0, ROWS))
            for name, channel in baseline.channels.items()
            if channel.kind == "numeric"
        },
    )


def fill(store: Store, devices: int) -> str:
    """30 days of windows; the model's name."""
    bundle, rng = publish(store), np.random.default_rng(1)
    made = [(w, to_msgpack(w)) for w in (a_window(bundle, rng) for _ in range(50))]
    names = {bundle.digest: (bundle.manifest.name, bundle.manifest.version, "p")}
    for step in range(int(DAYS * 86400 / EVERY)):
        at = START + step * EVERY
        parts: dict[rollups.Key, list[Window]] = {}
        rows = []
        for i in range(devices):
            window, body = made[int(rng.integers(len(made)))]
            whose = rollups.slice_of(bundle.digest, {"site": f"s{i % SITES}"})
            for key in rollups.keys_of(at, whose):
                parts.setdefault(key, []).append(window)
            rows.append(_row(window, body, f"d{i}", step + 1, at))
        with store.transaction():
            store.add_windows(rows)
            store.roll_up({key: rollups.sums(found) for key, found in parts.items()}, names)
    return bundle.manifest.name


def _row(window: Window, body: bytes, device: str, seq: int, at: float) -> NewWindow:
    return NewWindow(
        device=device,
        boot="b",
        seq=seq,
        received_at=at,
        wall=at,
        model=window.model,
        version=window.version,
        digest=window.digest,
        edges_id=window.edges_id,
        seconds=window.seconds,
        rows=window.rows,
        errors=0,
        skew=0,
        confidence_mean=None,
        confidence_rows=0,
        latency_mean=None,
        body=body,
    )


def timed(what: Callable[[], object]) -> float:
    """Median seconds."""
    took = []
    for _ in range(REPEATS):
        begun = time.perf_counter()
        what()
        took.append(time.perf_counter() - begun)
    return statistics.median(took)


def measure(name: str, where: Callable[[int], Path | str]) -> dict[int, tuple[float, float]]:
    """By fleet: seconds of the report, and of adding the windows up themselves."""
    found = {}
    for devices in FLEETS:
        with Store(where(devices)) as store:
            model = fill(store, devices)
            until = START + DAYS * 86400

            def report(
                store: Store = store, model: str = model, until: float = until
            ) -> DriftReport:
                return drift_report(store, model, [], START, until)

            if sum(row.rows for row in report().trend) != devices * DAYS * 4 * ROWS:
                raise RuntimeError("the report does not tell of every row")
            begun = time.perf_counter()
            rollups.sums([stored.window for stored in store.window_bodies(0)])
            found[devices] = timed(report), time.perf_counter() - begun
        words = ", ".join(f"{1000 * seconds:.0f} ms" for seconds in found[devices])
        print(f"{name}, {devices} devices: report, windows themselves: {words}", flush=True)
    return found


def main() -> None:
    """How much longer ten times the fleet takes."""
    with tempfile.TemporaryDirectory() as folder:
        sqlite = measure("SQLite", lambda n: Path(folder) / f"{n}.db")
    words = [f"SQLite {_words(sqlite)}"]
    if missing():
        words.append(f"no PostgreSQL here: {missing()}")
    else:
        with postgres() as running:
            found = measure("PostgreSQL", lambda _: running.new_database())
        words.append(f"PostgreSQL {_words(found)}")
    few, many = FLEETS[0], FLEETS[-1]
    result = {
        "name": "drift-report-scale",
        "value": round(sqlite[many][0] / sqlite[few][0], 2),
        "unit": f"x the time for {many // few} x the devices (SQLite)",
        "better": "lower",
        "against": f"adding the {many:,} devices' windows up: "
        f"{sqlite[many][1] / sqlite[many][0]:.0f} x the report's time",
        "detail": f"{DAYS} days, a window every {EVERY / 3600:.0f} h, {SITES} sites, median of "
        f"{REPEATS}; {'; '.join(words)}",
    }
    print(json.dumps(result))


def _words(found: dict[int, tuple[float, float]]) -> str:
    return ", ".join(f"{n:,} devices {1000 * seconds:.0f} ms" for n, (seconds, _) in found.items())


if __name__ == "__main__":
    main()
