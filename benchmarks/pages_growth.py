"""How much slower each list gets when the fleet is ten times as large.

Two SQLite databases with 1,000 and 10,000 devices and 30 days of history (a window and an event a
day each, a row to label, the audit log with them), a rollout to all of them, some alerts that are
open and as many that are over as there are devices; every list is asked in turn, from both, in one
process.
"""

import json
import logging
import statistics
import tempfile
import time
from pathlib import Path

import msgspec
from starlette.testclient import TestClient

from edge_sdk.formats import to_msgpack
from edge_sdk.messages import Sample, Window
from fleet_server.controller import Controller
from fleet_server.fleet import alert_record
from fleet_server.planning import Wish
from fleet_server.records import (
    AlertRecord,
    DeviceRecord,
    NewEvent,
    NewWindow,
    SampleRecord,
    StandingRecord,
)
from fleet_server.views import AlertRow
from tests.bundles import make_bundle
from tests.server_side import NOW, Backend

LISTS = (
    "/", "/devices", "/devices?site=north", "/devices/d-00500", "/models", "/models/digits/1",
    "/rollouts", "/rollouts/{rollout}", "/drift", "/drift/digits", "/alerts", "/alerts?show=over",
    "/alerts?show=over&kind=novelty&after=p500", "/labels",
    "/labels/digits", "/audit", "/audit?target=r1", "/api/v1/overview", "/api/v1/devices",
    "/api/v1/bundles", "/api/v1/rollouts", "/api/v1/rollouts/{rollout}/devices",
    "/api/v1/rollouts/{rollout}/decisions", "/api/v1/alerts",
    "/api/v1/alerts?state=closed&model=digits", "/api/v1/alerts?after=p500",
    "/api/v1/samples/digits",
    "/api/v1/events", "/api/v1/audit",
)  # fmt: skip
SIZES, DAYS, TIMES, DAY, MINUTE = (1_000, 10_000), 30, 15, 86_400.0, 60.0
ALERTS = 30
EMPTY = to_msgpack(Window(model="", version="", digest="", edges_id="", seconds=60.0, rows=0))
SAMPLE = to_msgpack(
    Sample(
        model="digits", version="1", digest="", command=1, policy="margin", id="r1", score=0.5,
        probabilities=(0.5, 0.5), dtype="uint8", shape=(8, 8, 1), data=bytes(64),
    )
)  # fmt: skip


def fill(back: Backend, devices: int) -> None:
    """Devices with a window and an event a day."""
    store, bundle = back.store, back.bundle
    names = [f"d-{number:05}" for number in range(devices)]
    with store.transaction():
        for number, name in enumerate(names):
            store.add_device(
                DeviceRecord(
                    id=name, public="00", profile="raspberry-pi-4", enrolled_at=NOW - 30 * DAY,
                    labels={"site": ("north", "south", "east")[number % 3]}, last_seen=NOW,
                    running_model="digits", running_version="1", running_digest=bundle.digest,
                    phase="confirmed", period=60.0,
                )
            )  # fmt: skip
        for day in range(DAYS):
            at = NOW - (DAYS - day) * DAY
            store.add_windows(window(name, day + 1, at, bundle.digest) for name in names)
            store.add_device_events(
                NewEvent(at=at, device=name, boot="b", seq=1000 + day, name="started", detail="")
                for name in names
            )
        store.add_samples([sample(back, name, number) for number, name in enumerate(names)])
    with store.transaction():
        for number in range(devices):
            store.save_alert(alert(number, NOW - number * MINUTE))
    for number in range(devices // 10):
        store.add_audit(NOW, "ann", "did", f"r{number % 50}", "")


def busy(back: Backend) -> str:
    """A rollout to everyone under way, some of whom failed, and alerts; the rollout's id."""
    back.registry.publish(make_bundle(back.publisher, version="2"), NOW)
    controller = Controller(back.store, back.keyring.director, lambda *_: None)
    wish = Wish(model="digits", version="2", strategy={"name": "all-at-once"}, by="ann")
    rollout = controller.create(wish, NOW)
    controller.tick(NOW)
    failed = [f"d-{number:05}" for number in range(100, 120)]
    back.store.move(
        [
            StandingRecord(
                rollout=rollout, device=name, standing="failed", reason="self-test", generation=1,
                at=NOW,
            )
            for name in failed
        ]
    )  # fmt: skip
    for number in range(ALERTS):
        back.store.save_alert(alert(number))
    return rollout


def alert(number: int, ended: float | None = None) -> AlertRecord:
    """An alert about one site; open unless it `ended`."""
    row = AlertRow(
        id=f"{'a' if ended is None else 'p'}{number}",
        state="open" if ended is None else "closed",
        severity="warning", kind=("data drift", "novelty")[number % 2],
        scope=f"digits site=s{number}", title="brightness fell",
        detail="estimated loss of accuracy 3 points; also moved: contrast", opened_at=NOW - DAY,
        devices=4, device_ids=tuple(f"d-{number % 1000 + k:05}" for k in range(4)),
    )  # fmt: skip
    return msgspec.structs.replace(alert_record(row, NOW), closed_at=ended)


def sample(back: Backend, device: str, number: int) -> SampleRecord:
    """A row that a device sent to be labelled."""
    return SampleRecord(
        device=device, row="r1", subject="", model="digits", version="1",
        digest=back.bundle.digest, policy="margin", score=number / 1e6, predicted="0",
        confidence=0.5, body=SAMPLE, received_at=NOW,
    )  # fmt: skip


def window(device: str, seq: int, at: float, digest: str) -> NewWindow:
    return NewWindow(
        device=device, boot="b", seq=seq, received_at=at, wall=at, model="digits", version="1",
        digest=digest, edges_id="e", seconds=60.0, rows=100, errors=0, skew=0,
        confidence_mean=0.9, confidence_rows=100, latency_mean=3.0, body=EMPTY,
    )  # fmt: skip


def main() -> None:
    logging.disable()
    with tempfile.TemporaryDirectory() as name:
        clients = {}
        for size in SIZES:
            folder = Path(name) / str(size)
            back = Backend(folder, folder / "fleet.db")
            fill(back, size)
            rollout = busy(back)
            app, parts = back.application()
            client = TestClient(app)
            client.cookies.set("edge_session", parts.guard.open_session("console"))
            client.headers["Authorization"] = f"Bearer {back.keyring.admin_token}"
            clients[size] = client, rollout
        took: dict[str, dict[int, list[float]]] = {path: {s: [] for s in SIZES} for path in LISTS}
        for path in LISTS:
            for _ in range(TIMES):
                for size, (client, rollout) in clients.items():
                    began = time.perf_counter()
                    client.get(path.replace("{rollout}", rollout)).raise_for_status()
                    took[path][size].append(time.perf_counter() - began)
    middle = {p: {s: statistics.median(t) for s, t in by.items()} for p, by in took.items()}
    ratios = {path: by[SIZES[1]] / by[SIZES[0]] for path, by in middle.items()}
    worst = max(ratios, key=lambda path: ratios[path])
    told = ", ".join(
        f"{path} {1000 * by[SIZES[1]]:.0f} over {1000 * by[SIZES[0]]:.0f} ms"
        for path, by in middle.items()
    )
    result = {
        "name": "pages-growth",
        "value": round(ratios[worst], 2),
        "unit": "x",
        "better": "lower",
        "against": f"the same list at {SIZES[0]:,} devices (at most 1.5)",
        "detail": (
            f"{SIZES[1]:,} devices, {DAYS} days, {SIZES[1]:,} alerts that are over; the worst is "
            f"{worst}; medians of {TIMES}: {told}"
        ),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
