"""What keeps a server going: webhooks, retention, backups, figures, repeated requests."""

import hashlib
import hmac
import json
import sqlite3
import tarfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
from fastapi import FastAPI
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from edge_sdk.errors import FormatError, InvalidInputError, ServerError
from edge_sdk.files import sha256
from fleet_server import alert_life as life
from fleet_server.api_trust import trust_router
from fleet_server.backup import backup, restore
from fleet_server.fleet import alert_record
from fleet_server.records import Delivery, Hook
from fleet_server.store import Store
from fleet_server.trust.keeper import Keeper
from fleet_server.trust.repository import Repository
from fleet_server.webhooks import Messenger, allowed_address, check_url
from tests.bundles import make_bundle
from tests.databases import new_file
from tests.server_side import NOW, Clock, backend, until
from tests.unit.test_decay_alerts import a_finding
from tests.unit.test_server_fleet import windows
from tests.unit.test_trust_repository import Client as TufClient


@contextmanager
def receiver(statuses):
    """A real web server that answers with these statuses in turn; what it got."""
    got, answers = [], iter(statuses)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            got.append((dict(self.headers), body))
            self.send_response(next(answers, 200))
            self.send_header("location", "http://127.0.0.1:1/")
            self.end_headers()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://hook.example:{server.server_port}/in", got
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def a_hook(url, **changes):
    made = {"id": "w1", "url": url, "secret": "s3cret", "events": "", "private": True}
    return Hook(**{**made, "created_at": NOW, **changes})


@pytest.fixture
def store(database):
    with Store(database) as opened:
        yield opened


@contextmanager
def messenger(store):
    made = Messenger(store, resolve=lambda _host, _port: ["127.0.0.1"])
    try:
        yield made
    finally:
        made.close()


def test_events_are_told_in_order_signed_and_from_where_the_hook_began(store):
    store.add_event(NOW, "server", "before", "the hook")
    with receiver([]) as (url, got), messenger(store) as told:
        store.add_hook(a_hook(url))
        for number in range(3):
            store.add_event(NOW, "decay", f"alert {number}", "moved")
        told.look(NOW + 1)
        told.look(NOW + 2)
    assert [json.loads(body)["name"] for _, body in got] == ["alert 0", "alert 1", "alert 2"]
    headers, body = got[0]
    stamp, mac = headers["edge-signature"].split(",")
    content = stamp.removeprefix("t=").encode() + b"." + body
    expected = hmac.new(b"s3cret", content, hashlib.sha256).hexdigest()
    assert mac == f"v1={expected}"
    assert headers["host"].startswith("hook.example:")
    assert store.hooks()[0].delivered == 3


def test_what_was_not_taken_is_told_again_later_and_nothing_is_left_out(store):
    with receiver([500, 302, 200, 200]) as (url, got), messenger(store) as told:
        store.add_hook(a_hook(url))
        store.add_event(NOW, "decay", "one", "")
        store.add_event(NOW, "decay", "two", "")
        told.look(NOW)
        told.look(NOW + 1)  # too early
        assert store.hooks()[0].failures == 1
        told.look(NOW + 5)
        assert "answered 302" in store.hooks()[0].last_error  # a redirect is not followed
        told.look(NOW + 15)
    assert [json.loads(body)["name"] for _, body in got] == ["one", "one", "one", "two"]
    hook = store.hooks()[0]
    assert (hook.delivered, hook.failures, hook.last_error) == (2, 0, "")


def test_every_try_is_written_down_with_what_the_receiver_said(store, http):
    with receiver([500, 200]) as (url, _), messenger(store) as told:
        store.add_hook(a_hook(url))
        store.add_event(NOW, "decay", "one", "")
        told.look(NOW)
        told.look(NOW + 5)
    [second, first] = store.deliveries("w1")
    assert (first.status, first.error) == (500, "hook.example answered 500")
    assert (second.status, second.error, second.name) == (200, "", "one")
    assert second.seconds > 0
    for number in range(1005):
        store.add_delivery(Delivery(hook="w1", event=number, name="n", at=NOW, status=0,
                                    error="", seconds=0.0))  # fmt: skip
    assert [d.event for d in store.deliveries("w1")] == list(range(1004, 4, -1))
    assert store.drop_hook("w1")
    assert store.deliveries("w1") == []
    assert http.get("/api/v1/webhooks/w1/deliveries").status_code == 404


def test_a_hook_hears_what_it_asked_for(store):
    with receiver([]) as (url, got), messenger(store) as told:
        store.add_hook(a_hook(url, events="alert rollout"))
        for name in ("enrolled", "alert opened", "rollout r1: start", "alert closed"):
            store.add_event(NOW, "x", name, "")
        told.look(NOW)
    names = [json.loads(body)["name"] for _, body in got]
    assert names == ["alert opened", "rollout r1: start", "alert closed"]


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.0.0.8", "192.168.1.1", "169.254.169.254", "::1", "fe80::1%eth0", "0.1.2.3",
     "::ffff:127.0.0.1", "224.0.0.1", "fd00::1"],
)  # fmt: skip
def test_a_hook_reaches_no_private_address_unless_it_was_allowed(address):
    url = "https://hook.example/in"
    both = ["93.184.216.34", address]
    with pytest.raises(ServerError, match="not public"):
        allowed_address(url, lambda _h, _p: both, private=False)
    assert allowed_address(url, lambda _h, _p: [address], private=True) == address
    assert allowed_address(url, lambda _h, _p: both[:1], private=False) == "93.184.216.34"


@pytest.mark.parametrize(
    "url",
    ["", "ftp://x/", "http://", "https://u:p@host/", "http://x:99999/", "http://" + "x" * 999],
)
def test_what_is_no_web_address_is_no_hook(url):
    with pytest.raises(InvalidInputError, match="a webhook needs"):
        check_url(url)


def test_windows_go_after_their_time_and_their_daily_sums_stay(tmp_path, database):
    with backend(tmp_path, database) as back:
        back.device()
        windows(back, "pi-1", count=10)
        back.store.add_event(NOW, "s", "old", "")
        back.store.add_event(NOW + 100, "s", "new", "")
        gone = back.store.prune(windows=NOW + 4, hours=NOW, events=NOW + 50)
        assert gone == 4 + 2  # "old", and that the bundle was published
        assert [w.seq for w in back.store.windows("digits", 0)] == [4, 5, 6, 7, 8, 9]
        assert "old" not in [event.name for event in back.store.events()]
        assert back.store.prune(windows=NOW + 4, hours=NOW, events=NOW + 50) == 0


def test_a_backup_made_while_the_server_writes_gives_back_what_was_committed(tmp_path):
    data, stop = tmp_path / "data", threading.Event()
    with backend(data, new_file(data)) as back:
        back.device()

        def write():
            number = 0
            while not stop.is_set():
                back.store.add_event(NOW, "s", f"event {number}", "")
                number += 1

        writer = threading.Thread(target=write)
        writer.start()
        try:
            made = backup(data, tmp_path / "b.tar")
        finally:
            stop.set()
            writer.join()
        assert made == ["fleet.db", "bundles", "trust", "keys"]
    assert (tmp_path / "b.tar").stat().st_mode & 0o077 == 0
    restore(tmp_path / "b.tar", tmp_path / "again", NOW)
    assert (tmp_path / "again" / "keys").stat().st_mode & 0o077 == 0
    with Store(tmp_path / "again" / "fleet.db") as store:
        assert [device.id for device in store.devices()] == ["pi-1"]
        names = [event.name for event in reversed(store.events(100_000))]
        assert names[1:] == [f"event {n}" for n in range(len(names) - 1)]
    with pytest.raises(InvalidInputError, match="is not empty"):
        restore(tmp_path / "b.tar", tmp_path / "again", NOW)
    with pytest.raises(InvalidInputError, match="exists"):
        backup(data, tmp_path / "b.tar")


def test_a_backup_amid_publishing_and_renewing_is_whole_and_devices_believe_what_is_restored(
    tmp_path, monkeypatch
):
    data, stop, clock = tmp_path / "data", threading.Event(), Clock()
    add = tarfile.TarFile.add

    def dawdling(tar, name, *more, **options):
        """Between the snapshot and the timestamp that leads to it there is time for a change."""
        deadline, before = time.monotonic() + 1, clock.now
        while Path(name).name == "timestamp.json" and time.monotonic() < deadline:
            if clock.now > before + 100_000:
                break
            threading.Event().wait(0.01)
        add(tar, name, *more, **options)

    monkeypatch.setattr(tarfile.TarFile, "add", dawdling)
    with backend(data, new_file(data)) as back:
        keeper = Keeper(back.repository, back.store)

        def change():
            while not stop.is_set():
                clock.now += 43_200  # more than a quarter of the timestamp's life
                keeper.look(clock.now)
                version = f"{clock.now:.0f}"
                back.registry.publish(make_bundle(back.publisher, version=version), clock.now)

        with ThreadPoolExecutor(1) as pool:
            changing = pool.submit(change)
            try:
                for number in range(3):
                    until(lambda before=clock.now: clock.now > before)
                    backup(data, tmp_path / f"{number}.tar")
            finally:
                stop.set()
            changing.result()
        known = TufClient(back.repository, tmp_path / "known")
        assert known.sees("digits", f"{clock.now:.0f}", now=clock.now)
    for number in range(3):
        again = tmp_path / f"again-{number}"
        clock.now += 60
        restore(tmp_path / f"{number}.tar", again, clock.now)
        known.made = Repository(again / "trust", again / "keys")
        with Store(again / "fleet.db") as store:
            bundles = store.bundles()
        assert len(bundles) > number
        for bundle in bundles:
            assert known.sees(bundle.model, bundle.version, now=clock.now) == bundle.digest
            held = again / "bundles" / f"{bundle.digest}.edge"
            assert sha256(held.read_bytes()) == bundle.digest
        http = TestClient(devices_door(known.made))
        for path in known.made.folder.metadata.glob("*.json"):
            assert http.get(f"/tuf/metadata/{path.name}").content == path.read_bytes()


def devices_door(repository):
    """What devices fetch the metadata by."""
    app, parts = FastAPI(), SimpleNamespace(registry=SimpleNamespace(repository=repository))
    app.include_router(trust_router(parts, lambda: "pi-1"))
    return app


def test_what_is_no_backup_or_reaches_out_of_its_folder_is_refused(tmp_path):
    (tmp_path / "junk").write_bytes(b"junk" * 1000)
    with pytest.raises(FormatError, match="can't be restored"):
        restore(tmp_path / "junk", tmp_path / "a", NOW)
    with tarfile.open(tmp_path / "evil.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("edge-server-backup-1"))
        tar.addfile(tarfile.TarInfo("../outside"))
    with pytest.raises(FormatError, match="can't be restored"):
        restore(tmp_path / "evil.tar", tmp_path / "b", NOW)
    assert not (tmp_path / "outside").exists()
    with tarfile.open(tmp_path / "other.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("something"))
    with pytest.raises(FormatError, match="is no backup"):
        restore(tmp_path / "other.tar", tmp_path / "c", NOW)
    with pytest.raises(InvalidInputError, match="holds no server"):
        backup(tmp_path, tmp_path / "x.tar")


@pytest.fixture
def http(tmp_path, database):
    with backend(tmp_path, database) as back:
        app, parts = back.application()
        token = {"authorization": f"Bearer {back.keyring.admin_token}"}
        client = TestClient(app, headers=token, raise_server_exceptions=False)
        client.back, client.parts = back, parts
        yield client


def test_prometheus_reads_the_ingest_and_the_fleet_with_a_token(http):
    http.back.device()
    http.parts.meters.watch(http.back.store)
    families = {f.name: f for f in text_string_to_metric_families(http.get("/metrics").text)}
    assert families["edge_devices"].samples[0].value == 1
    assert "edge_ingest_messages" in families
    assert "edge_ingest_commit_seconds" in families
    assert TestClient(http.app).get("/metrics").status_code == 401


def test_prometheus_hears_of_each_open_alert_and_what_it_costs(http):
    row = life.opened("digits", a_finding(), NOW)
    http.back.store.save_alert(alert_record(row, NOW))
    over = msgspec.structs.replace(row, id="a2", state="closed")
    http.back.store.save_alert(alert_record(over, NOW))
    http.parts.meters.watch(http.back.store)
    families = {f.name: f for f in text_string_to_metric_families(http.get("/metrics").text)}
    [devices] = families["edge_alert_devices"].samples
    [loss] = families["edge_alert_loss"].samples
    assert devices.labels == loss.labels == {
        "id": row.id, "model": "digits", "kind": "data drift", "scope": "site=north",
        "severity": "critical", "state": "open",
    }  # fmt: skip
    assert (devices.value, loss.value) == (2, 0.1)


def test_health_and_readiness_are_told_without_a_token_and_end_with_the_database(http):
    stranger = TestClient(http.app, raise_server_exceptions=False)
    assert stranger.get("/healthz").json() == {"status": "ok"}
    assert stranger.get("/readyz").json() == {"status": "ready"}


def test_a_request_with_a_key_is_carried_out_once_and_answered_alike(http):
    made = {"idempotency-key": "k1"}
    wish = {"name": "x", "role": "viewer", "password": "a long password"}
    http.back.device()
    first = http.post("/api/v1/devices/pi-1/revoke", headers=made)
    again = http.post("/api/v1/devices/pi-1/revoke", headers=made)
    assert (first.status_code, again.status_code) == (200, 200)
    assert first.json() == again.json()
    assert http.post("/api/v1/devices/pi-1/revoke").status_code == 409  # it is revoked already
    other = http.post("/api/v1/devices/pi-1/readmit", headers=made)
    assert other.status_code == 422
    for _ in range(2):
        user = http.post("/api/v1/users", json=wish, headers={"idempotency-key": "k2"})
        assert (user.status_code, user.json()["name"]) == (201, "x")
    wish["password"] = "another password"
    other = http.post("/api/v1/users", json=wish, headers={"idempotency-key": "k2"})
    assert other.status_code == 422


def test_what_answers_a_secret_is_done_once_too_and_the_secret_is_kept_nowhere(http):
    made = {"idempotency-key": "k3"}
    first = http.post("/api/v1/enrolment-keys", json={}, headers=made)
    again = http.post("/api/v1/enrolment-keys", json={}, headers=made)
    assert (first.status_code, again.status_code) == (201, 409)
    assert "shown once: end what was made then" in again.json()["detail"]
    with http.back.store._read() as c:
        kept = c.exec_driver_sql("SELECT * FROM repeated").fetchall()
    assert len(kept) == 1
    assert first.json()["token"] not in str(kept)


def test_what_did_not_change_is_not_sent_again(http):
    http.back.device()
    first = http.get("/api/v1/devices/pi-1")
    tag = first.headers["etag"]
    assert http.get("/api/v1/devices/pi-1", headers={"if-none-match": tag}).status_code == 304
    http.back.store.set_revoked("pi-1", NOW)
    changed = http.get("/api/v1/devices/pi-1", headers={"if-none-match": tag})
    assert changed.status_code == 200
    assert changed.headers["etag"] != tag


def test_hooks_are_administrators_business_and_their_secret_is_shown_once(http):
    made = http.post("/api/v1/webhooks", json={"url": "https://x.example/", "events": ["alert"]})
    assert made.status_code == 201
    secret = made.json()["secret"]
    assert secret not in http.get("/api/v1/webhooks").text
    assert http.post("/api/v1/webhooks", json={"url": "file:///etc/passwd"}).status_code == 400
    gone = http.post(f"/api/v1/webhooks/{made.json()['id']}/remove").json()
    assert gone["url"] == "https://x.example/"
    assert http.get("/api/v1/webhooks").json()["items"] == []
    assert http.post("/api/v1/webhooks/w0/remove").status_code == 404


def test_the_api_page_names_every_route_with_its_scope(http):
    cookie = http.parts.guard.open_session("console")
    text = http.get("/api/docs", headers={"cookie": f"edge_session={cookie}"}).text
    for path in http.app.openapi()["paths"]:
        assert path in text
    assert "<script" not in text


def test_a_damaged_database_is_noticed_when_it_is_restored(tmp_path):
    data = tmp_path / "data"
    with backend(data, new_file(data)):
        pass
    path = data / "fleet.db"
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    backup(data, tmp_path / "b.tar")
    whole = bytearray((tmp_path / "b.tar").read_bytes())
    at = whole.index(b"SQLite format 3")
    whole[at + 4096 : at + 12288] = b"\xff" * 8192
    (tmp_path / "b.tar").write_bytes(whole)
    with pytest.raises(FormatError, match="damaged"):
        restore(tmp_path / "b.tar", tmp_path / "again", NOW)
