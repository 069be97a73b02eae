"""Lists are paged and filtered where the rows are; every page bears hostile strings."""

import re

import pytest
from starlette.testclient import TestClient

from fleet_server.records import NewEvent
from fleet_server.store.listing import DeviceFilter
from tests.server_side import NOW, backend, every_alert
from tests.unit.test_api_lists import an_alert
from tests.unit.test_server_fleet import confirm, windows

EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"
OURS = {"sec-fetch-site": "same-origin"}


class Site:
    """A fleet's pages, seen by the console."""

    def __init__(self, back):
        self.back = back
        self.app, self.parts = back.application()
        self.client = self.logged_in("console")

    def logged_in(self, name):
        client = TestClient(self.app, follow_redirects=False)
        client.cookies.set("edge_session", self.parts.guard.open_session(name))
        return client

    def names(self, query=""):
        text = self.client.get(f"/devices{query}").text
        return re.findall(r'<tr id="device-([^"]+)"', text), text


@pytest.fixture
def site(tmp_path, database):
    with backend(tmp_path, database) as back:
        yield Site(back)


def test_the_list_of_devices_is_paged_and_every_device_is_on_one_page(site):
    for number in range(120):
        site.back.device(f"pi-{number:03}")
    seen, query = [], ""
    while True:
        names, text = site.names(query)
        assert len(names) <= 50
        seen += names
        more = re.search(r'rel="next" href="([^"]+)"', text)
        if more is None:
            break
        query = more[1].replace("&amp;", "&")
    assert seen == [f"pi-{number:03}" for number in range(120)]


def test_devices_are_filtered_where_the_rows_are(site):
    back = site.back
    for name in ("a-1", "a-2", "b-1"):
        back.device(name)
    confirm(back, "a-1")
    back.store.seen({"a-1": NOW, "a-2": NOW - 7200}, {})
    assert site.names("?q=a-")[0] == ["a-1", "a-2"]
    assert site.names("?q=a%25")[0] == []
    assert site.names("?site=north")[0] == ["a-1", "a-2", "b-1"]
    assert site.names("?site=nor")[0] == []
    assert site.names("?model=digits")[0] == ["a-1"]
    assert site.names("?silent=1")[0] == ["a-2", "b-1"]
    assert site.names("?profile=raspberry-pi-4&q=b")[0] == ["b-1"]
    assert back.store.device_count(DeviceFilter(q="a-")) == 2


def test_the_api_gives_devices_page_by_page_and_one_by_name(site):
    for number in range(7):
        site.back.device(f"pi-{number}")
    http = TestClient(
        site.app, headers={"authorization": f"Bearer {site.back.keyring.admin_token}"}
    )
    first = http.get("/api/v1/devices", params={"limit": 5}).json()
    rest = http.get("/api/v1/devices", params={"limit": 5, "after": first["next"]}).json()
    assert [d["id"] for d in first["items"] + rest["items"]] == [f"pi-{n}" for n in range(7)]
    assert rest["next"] is None
    assert http.get("/api/v1/devices/pi-3").json()["site"] == "north"
    assert http.get("/api/v1/devices/none").status_code == 404
    assert http.get("/api/v1/devices", params={"limit": "x"}).status_code == 400


def test_a_device_shows_what_it_runs_what_it_sent_and_what_happened(site):
    back = site.back
    back.device()
    confirm(back, "pi-1", reason=EVIL, runtime=EVIL)
    windows(back, "pi-1", count=30)
    back.store.add_device_events(
        [NewEvent(at=NOW, device="pi-1", boot="b", seq=99, name=EVIL, detail=EVIL)]
    )
    text = site.client.get("/devices/pi-1").text
    assert "digits <b>1</b>" in text
    assert "<polyline" in text
    assert "0.900" in text
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert" in text
    assert site.client.get("/devices/nobody", headers={"accept": "text/html"}).status_code == 404


def test_an_operator_revokes_a_device_on_its_page_and_a_viewer_can_not(site):
    site.back.device()
    for role in ("operator", "viewer"):
        site.parts.guard.new_user(role, role, "a long password")
    viewer, operator = site.logged_in("viewer"), site.logged_in("operator")
    assert "Revoke" not in viewer.get("/devices/pi-1").text
    assert viewer.post("/devices/pi-1/revoke", headers=OURS).status_code == 403
    assert "Revoke" in operator.get("/devices/pi-1").text
    assert operator.post("/devices/pi-1/revoke", headers=OURS).status_code == 303
    assert site.back.store.device("pi-1").revoked_at == NOW
    assert "Readmit" in operator.get("/devices/pi-1").text
    assert operator.post("/devices/pi-1/readmit", headers=OURS).status_code == 303
    assert operator.post("/devices/pi-1/explode", headers=OURS).status_code == 404
    assert operator.post("/devices/pi-1/revoke").status_code == 403  # another site's form


def test_models_and_versions_show_where_they_came_from_and_who_runs_them(site):
    site.back.device()
    confirm(site.back, "pi-1")
    assert 'href="/models/digits/1"' in site.client.get("/models").text
    text = site.client.get("/models/digits/1").text
    assert site.back.bundle.digest in text
    assert site.back.bundle.manifest.lineage.source in text
    assert site.client.get("/models/digits/99").status_code == 404


def test_the_audit_page_shows_who_did_what(site):
    for number in range(60):
        site.back.store.add_audit(NOW, "ann", f"did {number}", "r1", EVIL)
    text = site.client.get("/audit?actor=ann").text
    assert "did 59" in text
    assert "did 9<" not in text
    assert "<script>alert" not in text
    more = re.search(r'rel="next" href="([^"]+)"', text)[1].replace("&amp;", "&")
    assert "did 9<" in site.client.get(f"/audit{more}").text


@pytest.mark.parametrize("path", ["/devices", "/models", "/audit", "/"])
def test_htmx_gets_the_content_alone_and_a_browser_the_whole_page(site, path):
    whole = site.client.get(path).text
    alone = site.client.get(path, headers={"hx-request": "true"}).text
    assert "<!doctype html>" in whole
    assert f'hx-get="{path}"' in whole
    assert "<!doctype" not in alone
    assert "<nav" not in alone.split("pager")[0]


def test_alerts_are_seen_to_on_their_page_and_found_again_when_they_are_over(site):
    store = site.back.store
    for number in range(27):
        store.save_alert(an_alert(number, title=f"moved {EVIL}"))
    first = site.client.get("/alerts").text
    assert EVIL not in first
    assert first.count("<article") == 25
    more = re.search(r'rel="next" href="([^"]+)"', first)[1].replace("&amp;", "&")
    assert site.client.get(f"/alerts{more}").text.count("<article") == 2
    assert "Nothing is over yet" in site.client.get("/alerts?show=over").text
    assert site.client.post("/alerts/a1/acknowledge").status_code == 403  # no page of ours sent it
    for do in ("acknowledge", "mute"):
        answer = site.client.post(f"/alerts/a1/{do}", headers=OURS)
        assert (answer.status_code, answer.headers["location"]) == (303, "/alerts")
    assert {a.state for a in every_alert(store) if a.id == "a1"} == {"muted"}
    assert site.client.post("/alerts/a1/dance", headers=OURS).status_code == 400
    assert site.client.post("/alerts/none/mute", headers=OURS).status_code == 404
    site.parts.guard.new_user("vera", "viewer", "")
    viewer = site.logged_in("vera")
    assert "Acknowledge" not in viewer.get("/alerts").text
    assert viewer.post("/alerts/a2/mute", headers=OURS).status_code == 403
