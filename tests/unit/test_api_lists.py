"""Every list of the API in pages, filtered on the server; nobody changes what they did not see."""

from urllib.parse import quote

import numpy as np
import pytest
from msgspec.structs import replace
from starlette.testclient import TestClient

from edge_sdk.formats import to_json, to_msgpack
from edge_sdk.messages import Sample
from fleet_server.records import AlertRecord, Delivery, Hook, SampleRecord
from fleet_server.views import AlertRow
from tests.server_side import NOW, Clock, backend

FEW = 5


def an_alert(number, title="t", state="open", ended=None):
    row = AlertRow(
        id=f"a{number}", state=state, severity="warning", kind="drift", scope="digits site n",
        title=title, detail="d", opened_at=NOW + number, devices=1, loss=number / 100,
    )  # fmt: skip
    return AlertRecord(
        id=row.id, state=row.state, scope=row.scope, kind=row.kind, document=to_json(row),
        opened_at=row.opened_at, updated_at=NOW, closed_at=ended,
    )  # fmt: skip


def a_sample(back, number):
    manifest, data = back.bundle.manifest, np.zeros(back.bundle.manifest.input.shape, np.uint8)
    sample = Sample(
        model="digits", version="1", digest=back.bundle.digest, command=1, policy="margin",
        id=f"r{number}", score=0.5, probabilities=(1.0,) * len(manifest.labels), dtype="uint8",
        shape=data.shape, data=data.tobytes(),
    )  # fmt: skip
    return SampleRecord(
        device="pi-1", row=f"r{number}", subject="", model="digits", version="1",
        digest=back.bundle.digest, policy="margin", score=0.5, predicted=manifest.labels[0],
        confidence=0.5, body=to_msgpack(sample), received_at=NOW,
    )  # fmt: skip


@pytest.fixture
def admin(tmp_path, database):
    """A client of a server that has some of everything."""
    with backend(tmp_path, database) as back:
        app, parts = back.application(Clock(NOW))
        client = TestClient(app, headers={"authorization": f"Bearer {back.keyring.admin_token}"})
        store = back.store
        for number in range(FEW):
            back.device(f"pi-{number}", last_seen=NOW)
            store.save_alert(an_alert(number))
            store.add_samples([a_sample(back, number)])  # all as wanted
            parts.guard.new_user(f"user{number}", "viewer", "a long password")
            parts.guard.new_token(parts.guard._user("user0"), f"t{number}", frozenset({"read"}), 1)
            store.add_hook(Hook(id=f"w{number}", url="https://x.example/", secret="s", events="",
                                private=False, created_at=NOW))  # fmt: skip
            store.add_delivery(Delivery(hook="w1", event=number, name="n", at=NOW, status=200,
                                        error="", seconds=0.1))  # fmt: skip
            client.post(f"/api/v1/models/digits/aliases/x{number}", json={"version": "1"})
            body = {"model": "digits", "version": "1", "strategy": {"name": "all-at-once"}}
            made = client.post("/api/v1/rollouts", json={**body, "supersede": True})
            assert made.status_code == 201, made.text
        client.rollout, client.app_, client.back = made.json()["id"], app, back
        client.guard = parts.guard
        yield client


def lists(admin):
    """The path of every route that answers a page, with ids that there are."""
    ids = {"model": "digits", "device": "pi-0", "rollout_id": admin.rollout, "hook": "w1"}
    document = admin.app_.openapi()
    for path, known in document["paths"].items():
        answer = known.get("get", {}).get("responses", {}).get("200", {})
        schema = answer.get("content", {}).get("application/json", {}).get("schema", {})
        if "Page" in schema.get("$ref", "") and path.startswith("/api/v1"):
            yield path.format_map(ids)
        else:
            assert schema.get("type") != "array" or path.endswith("/latency"), path


def walk(admin, path, cursor, limit):
    found, after = [], {}
    while True:
        page = admin.get(path, params={"limit": limit, **after}).json()
        assert len(page["items"]) <= limit
        found += page["items"]
        if page["next"] is None:
            return found
        after = {cursor: page["next"]}


def test_every_list_comes_in_pages_that_together_are_the_whole(admin):
    paths = list(lists(admin))
    assert len(paths) > 12
    long = []
    for path in paths:
        if path == "/api/v1/audit":
            continue  # grows while it is read; its own test walks through it
        whole = admin.get(path, params={"limit": 500}).json()["items"]
        assert walk(admin, path, "after", 2) == whole, path
        if len(whole) >= FEW:
            long.append(path)
    assert len(long) >= 10, long


def test_alerts_come_the_costliest_first_and_then_what_ended_last(admin):
    for number, ended in ((10, 1), (11, 3), (12, 3), (13, 2)):
        state = "closed" if number % 2 else "re-baselined"
        admin.back.store.save_alert(an_alert(number, state=state, ended=NOW + ended))
    live, over = [f"a{n}" for n in (4, 3, 2, 1, 0)], ["a12", "a11", "a13", "a10"]
    for limit in range(1, 11):
        walked = walk(admin, "/api/v1/alerts", "after", limit)
        assert [row["id"] for row in walked] == live + over, limit
    closed = admin.get("/api/v1/alerts", params={"state": "closed", "kind": "drift", "limit": 1})
    assert [row["id"] for row in closed.json()["items"]] == ["a11"]
    assert closed.json()["next"] == "a11"
    assert admin.get("/api/v1/alerts", params={"model": "Digits"}).json()["items"] == []
    admin.cookies.set("edge_session", admin.guard.open_session("console"))
    page = admin.get("/alerts", params={"show": "over", "after": "a11"}).text
    assert ("4 over" in page, "alert-a13" in page, "alert-a12" in page) == (True, True, False)
    assert admin.get("/alerts", params={"show": "over", "after": "a0"}).status_code == 400
    while admin.back.store.prune(windows=0.0, hours=0.0, events=NOW + 2.5):
        pass
    assert [row["id"] for row in walk(admin, "/api/v1/alerts", "after", 9)] == [*live, *over[:2]]


def test_lists_are_filtered_on_the_server(admin):
    def count(path, **asked):
        return len(admin.get(f"/api/v1/{path}", params=asked).json()["items"])

    assert count("alerts", state="open", model="digits") == FEW
    assert count("alerts", kind="identity") == count("alerts", state="closed") == 0
    assert count("rollouts", status="superseded") == FEW - 1
    assert count("rollouts", version="2") == count("bundles", model="other") == 0
    assert count("bundles", profile="raspberry-pi-4") == 1
    assert count(f"rollouts/{admin.rollout}/devices", standing="not reached yet") == FEW
    assert count(f"rollouts/{admin.rollout}/devices", standing="confirmed") == 0
    assert count("users", role="admin") == 0
    assert count("events", name="rollout", device="") > 0
    for path in lists(admin):  # a misspelt filter that answers all would be taken for few
        refused = admin.get(path, params={"sight": "north"})
        assert (refused.status_code, "no parameter 'sight'" in refused.text) == (400, True), path


def test_names_are_found_and_paged_alike_in_every_database_however_it_sorts(admin):
    odd = ["Cam_2", "cam-1", "Zoo", "cam%2", "_x", "\u00e4", "cam_1"]
    for name in odd:
        admin.back.device(name)
    store = admin.back.store
    store.rekey(replace(store.device("Zoo"), labels={"site": "North"}))

    def ids(path):
        return [row["id"] for row in admin.get(f"/api/v1/{path}").json()["items"]]

    paged, place = [], "devices?limit=2"
    while place:
        page = admin.get(f"/api/v1/{place}").json()
        paged += [row["id"] for row in page["items"]]
        place = page["next"] and f"devices?limit=2&after={quote(page['next'])}"
    assert paged == ids("devices?limit=100")
    assert sorted(paged) == sorted([*odd, *(f"pi-{n}" for n in range(FEW))])
    assert sorted(ids("devices?q=CAM_")) == ["Cam_2", "cam_1"]
    assert ids("devices?q=cam%25") == ["cam%2"]
    assert ids("devices?site=North") == ["Zoo"]
    assert "Zoo" not in ids("devices?site=north")


def test_a_cursor_that_is_none_is_refused_in_words(admin):
    numbered = 0
    for path in lists(admin):
        if path == "/api/v1/audit":
            continue  # its cursor is a number by its type
        gives = admin.get(path, params={"limit": 1}).json()["next"] or ""
        for cursor in ("a99", "-1", "9" * 30, "\u0663", "\0"):
            answer = admin.get(path, params={"after": cursor})
            assert answer.status_code in (200, 400), (path, cursor)
            if gives.isdecimal() or (path == "/api/v1/alerts" and cursor != "\0"):
                assert "begin without" in answer.json().get("detail", ""), (path, cursor)
        numbered += gives.isdecimal()
    assert numbered >= 3
    headers = {"last-event-id": "9" * 30}
    refused = admin.get("/api/v1/events/stream", headers=headers)
    assert (refused.status_code, "at most 18" in refused.text) == (400, True), refused.text


def test_what_changed_since_it_was_read_is_not_changed_by_who_did_not_see_it(admin):
    for resource, change, body in (
        ("alerts/a0", "acknowledge", None),
        ("alerts/a0", "mute", {"hours": 1}),
        (f"rollouts/{admin.rollout}", "pause", None),
        ("users/user1", "role", {"role": "operator"}),
    ):
        path, tag = f"/api/v1/{resource}", admin.get(f"/api/v1/{resource}").headers["etag"]
        stale = admin.post(f"{path}/{change}", json=body, headers={"if-match": '"other"'})
        assert (stale.status_code, "has changed" in stale.text) == (412, True), resource
        assert admin.get(path).headers["etag"] == tag
        fresh = admin.post(f"{path}/{change}", json=body, headers={"if-match": tag})
        assert fresh.status_code == 200, fresh.text
        assert admin.get(path).headers["etag"] != tag


def test_a_device_that_asks_without_end_has_to_wait(admin):
    device = admin.back.device("pi-busy")
    headers = {"authorization": f"Bearer {device.name}:{device.secrets.http_token}"}
    assert admin.get("/device/v1/desired", headers=headers).status_code == 204
    for _ in range(999):
        admin.guard.slow_down(device.name)
    refused = admin.get("/device/v1/desired", headers=headers)
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
