"""Rollouts over HTTP and on their pages: steered by people, approved by a second one."""

import re
import stat
from contextlib import ExitStack

import msgspec
import pytest
from click.testing import CliRunner
from starlette.testclient import TestClient

from edge_sdk.errors import ServerError
from fleet_server.cli.logins import login, logout, place
from fleet_server.cli.rollouts import STRATEGIES, rollout
from fleet_server.client import Client
from fleet_server.rollout.strategies import SHIPPED
from tests.server_side import NOW, Clock, backend, serving

OURS = {"sec-fetch-site": "same-origin"}
PASSWORD = "a-long-password"
EVIL = "<script>alert(1)</script>"


class World:
    """A server with four devices, and clients for programs and browsers."""

    def __init__(self, back):
        self.back = back
        for number in range(4):
            back.device(f"pi-{number}", last_seen=NOW)
        self.app, self.parts = back.application(Clock(NOW))
        self.admin = TestClient(self.app, headers=bearer(back.keyring.admin_token))

    def token(self, user, role):
        made = self.admin.post(
            "/api/v1/users", json={"name": user, "role": role, "password": PASSWORD}
        )
        assert made.status_code == 201, made.text
        return self.browser(user)

    def browser(self, user):
        client = TestClient(self.app, follow_redirects=False)
        form = {"name": user, "password": PASSWORD}
        assert client.post("/login", data=form, headers=OURS).status_code == 303
        return client

    def create(self, strategy, **more):
        body = {"model": "digits", "version": "1", "strategy": strategy, **more}
        return self.admin.post("/api/v1/rollouts", json=body)


def bearer(token):
    return {"authorization": f"Bearer {token}"}


@pytest.fixture
def world(tmp_path, database):
    with backend(tmp_path, database) as back:
        yield World(back)


def test_a_plan_says_what_a_rollout_would_do_and_starts_nothing(world):
    body = {"model": "digits", "version": "1", "strategy": {"name": "all-at-once"}}
    plan = world.admin.post("/api/v1/rollouts/plan", json=body).json()
    assert plan["phases"] == [["everyone", "serve", 4]]
    assert world.admin.get("/api/v1/rollouts").json()["items"] == []


def test_a_rollout_is_steered_over_http_and_tells_of_every_device(world):
    made = world.create({"name": "all-at-once"}).json()["id"]
    for command, status in (
        ("pause", "paused"),
        ("resume", "running"),
        ("rollback", "rolled back"),
    ):
        answer = world.admin.post(f"/api/v1/rollouts/{made}/{command}", json={"reason": "a test"})
        assert answer.json()["rollout"]["status"] == status
        assert answer.json()["rollout"]["by"] == "console"
    rows = world.admin.get(f"/api/v1/rollouts/{made}/devices").json()["items"]
    assert {row["standing"] for row in rows} == {"not reached yet"}
    refused = world.admin.post(f"/api/v1/rollouts/{made}/pause")
    assert (refused.status_code, "is rolled back: it can't pause now" in refused.text) == (
        409,
        True,
    )
    for path in (f"{made}/dance", "r-none/pause"):
        assert world.admin.post(f"/api/v1/rollouts/{path}").status_code == 404


def test_approval_comes_from_a_second_person_by_api_and_page(world):
    phase = {"name": "everyone", "share": 1.0, "judged": False, "approval": True}
    made = world.create({"name": "mine", "phases": [phase]}).json()["id"]
    own = world.admin.post(f"/api/v1/rollouts/{made}/approve")
    assert (own.status_code, "must come from somebody else" in own.text) == (409, True)
    operator = world.token("olga", "operator")
    assert "Approve" not in operator.get(f"/rollouts/{made}").text
    assert operator.post(f"/rollouts/{made}/approve", headers=OURS).status_code == 403
    approver = world.token("anna", "approver")
    assert "Approve" in approver.get(f"/rollouts/{made}").text
    assert approver.post(f"/rollouts/{made}/approve").status_code == 403  # no page of ours sent it
    done = approver.post(f"/rollouts/{made}/approve", headers=OURS)
    assert (done.status_code, done.headers["location"]) == (303, f"/rollouts/{made}")
    page = approver.get(f"/rollouts/{made}").text
    assert "by anna" in page
    assert "running" in page


def test_pages_show_a_rollout_and_trust_no_word_of_it(world):
    operator = world.token("olga", "operator")
    assert "None yet" in operator.get("/rollouts").text
    phase = {"name": EVIL, "share": 1.0, "judged": False}
    made = world.create({"name": EVIL, "phases": [phase]}).json()["id"]
    world.parts.controls.tick(NOW)
    for path in ("/rollouts", f"/rollouts/{made}"):
        page = operator.get(path)
        assert page.status_code == 200
        assert EVIL not in page.text
    assert "pi-0" in page.text
    assert operator.get("/rollouts/r-none").status_code == 404
    assert TestClient(world.app, follow_redirects=False).get("/rollouts").status_code in (303, 401)


def test_aliases_and_what_ran_are_asked_over_http(world):
    story = world.admin.get("/api/v1/models/digits/1").json()
    assert [a["profile"] for a in story["artefacts"]] == ["raspberry-pi-4"]
    assert world.admin.get("/api/v1/models/digits/9").status_code == 404
    made = world.admin.post("/api/v1/models/digits/aliases/gold", json={"version": "1"})
    assert made.json()["by"] == "console"
    told = world.admin.get("/api/v1/models/digits").json()["items"]
    assert [a["alias"] for a in told] == ["gold"]
    assert world.admin.get("/api/v1/devices/pi-0/ran", params={"at": NOW}).json()["items"] == []
    assert world.admin.get("/api/v1/devices/ghost/ran").status_code == 404


def test_every_strategy_of_the_command_line_is_one_that_the_server_ships():
    assert set(STRATEGIES) == set(SHIPPED)


def test_devices_of_a_rollout_come_page_by_page_in_the_order_in_which_they_are_reached(world):
    for number in range(4, 120):
        world.back.device(f"pi-{number}", last_seen=NOW)
    for number in range(8):
        world.back.store.add_device(
            msgspec.structs.replace(
                world.back.store.device("pi-1"), id=f"coral-{number}", profile="coral-usb"
            )
        )
    phases = [
        {"name": "few", "count": 30, "judged": False},
        {"name": "everyone", "share": 1.0, "judged": False},
    ]
    made = world.create({"name": "mine", "phases": phases}).json()["id"]
    rows, after = [], ""
    while after is not None:
        path = f"/api/v1/rollouts/{made}/devices?limit=50&after={after}"
        page = world.admin.get(path).json()
        rows, after = rows + page["items"], page["next"]
    able = [row for row in rows if row["standing"] != "no bundle"]
    assert len({row["device"] for row in rows}) == len(rows) == 128
    assert [row["phase"] for row in able] == ["few"] * 30 + ["everyone"] * 90
    assert {row["device"].partition("-")[0] for row in rows if row not in able} == {"coral"}
    none = world.admin.get(f"/api/v1/rollouts/{made}/devices?standing=no bundle").json()["items"]
    assert none == [row for row in rows if row not in able]
    assert world.admin.get(f"/api/v1/rollouts/{made}/devices?after=x").status_code == 400
    viewer, shown, place = world.token("vera", "viewer"), [], f"/rollouts/{made}"
    while place:
        page = viewer.get(place).text
        shown += re.findall(r'<a href="/devices/([^"]+)">', page)
        found = re.search(r'rel="next" href="([^"]+)"', page)
        place = f"/rollouts/{made}{found[1].replace('&amp;', '&')}" if found else ""
    assert shown == [row["device"] for row in rows]


@pytest.fixture
def served(tmp_path, database):
    """The same over a socket, for commands."""
    with backend(tmp_path, database) as back:
        world = World(back)
        with ExitStack() as stack:
            world.url, world.stop = stack.enter_context(serving(world.app)), stack.close
            yield world


def test_by_command_too_approval_comes_from_a_second_person(served, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("HOME", str(tmp_path))
    for name, role in (("olga", "operator"), ("anna", "approver"), ("paul", "approver")):
        served.token(name, role)
    strategy = tmp_path / "mine.toml"
    strategy.write_text(
        'name = "mine"\n[[phases]]\nname = "everyone"\nshare = 1.0\njudged = false\napproval = true'
    )

    def log_in(name, *options, secret=PASSWORD):
        command = ["--server", served.url, *options, *(["--user", name] if name else [])]
        return CliRunner().invoke(login, command, input=f"{secret}\n")

    refused = CliRunner().invoke(rollout, ["list", "--server", served.url])
    assert f"'edge login --server {served.url}'" in str(refused.exception)
    assert "that is not the password" in str(log_in("anna", secret="guess").exception)
    assert not place().exists()
    assert log_in("anna").output.startswith(f"anna at {served.url}, who may: alerts, approve")
    assert stat.S_IMODE(place().stat().st_mode) == 0o600
    made = CliRunner().invoke(rollout, ["create", "digits", "1", "--strategy-file", str(strategy)])
    assert made.exit_code == 0, made.exception
    [number] = [r["id"] for r in served.admin.get("/api/v1/rollouts").json()["items"]]
    own = CliRunner().invoke(rollout, ["approve", number])
    assert "must come from somebody else" in str(own.exception)
    assert log_in("anna").exit_code == 0  # another token of the same person
    own = CliRunner().invoke(rollout, ["approve", number])
    assert "must come from somebody else" in str(own.exception)
    log_in("olga")
    assert "needs the right 'approve'" in str(
        CliRunner().invoke(rollout, ["approve", number]).exception
    )
    log_in("paul", "--scope", "read", "--scope", "approve")
    assert CliRunner().invoke(rollout, ["approve", number]).exit_code == 0
    told = served.admin.get(f"/api/v1/rollouts/{number}").json()["rollout"]
    assert (told["status"], told["by"]) == ("running", "anna")
    said = served.admin.get("/api/v1/audit").json()["items"]
    [by] = [
        row["actor"] for row in said if row["action"].endswith("/approve") and not row["detail"]
    ][:1]
    assert by.startswith("paul/edge login")
    with Client.of_person(served.url, "olga", PASSWORD) as asking:
        text = asking.new_token("x", ["read"], 1)
    assert "olga at" in log_in("", "--token", secret=text).output
    assert CliRunner().invoke(logout).output == f"logged out of {served.url}\n"
    assert not place().exists()
    with Client(served.url, text) as asking, pytest.raises(ServerError, match="has expired"):
        asking.me()  # it is over on the server, too
    log_in("anna")
    served.stop()
    assert "forgotten here; " in CliRunner().invoke(logout).output
    assert not place().exists()
    assert CliRunner().invoke(logout).output == "not logged in anywhere\n"
