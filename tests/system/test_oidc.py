"""Logging in at an OpenID provider: a real one for tests, in a process of its own."""

import json
import os
import subprocess
import sys
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
from starlette.testclient import TestClient

from edge_sdk.errors import InvalidInputError, RefusedError, ServerError
from fleet_server.oidc import Oidc, OidcSettings
from tests.agent_world import SystemClock
from tests.mosquitto import free_port
from tests.server_side import backend, until

pytestmark = pytest.mark.system
WALL = SystemClock().wall
PEOPLE = (
    {"sub": "1", "email": "ann@example.org", "email_verified": True},
    {"sub": "2", "email": "eve@example.org", "email_verified": False},
    {"sub": "3", "email": "bob@example.org", "email_verified": True},
    {"sub": "4"},
    {"sub": "5", "email": "local@example.org", "email_verified": True},
    {"sub": "6", "email": "ann@example.org", "email_verified": True},
)


def answers(url):
    try:
        return httpx2.get(url, timeout=5).status_code == 200
    except httpx2.HTTPError:
        return False


@contextmanager
def oidc_provider(port):
    """oidc-provider-mock: asks for no password, everything else by the specification."""
    claims = [part for person in PEOPLE for part in ("--user-claims", json.dumps(person))]
    command = [sys.executable, "-W", "ignore", "-m", "oidc_provider_mock", "--port", str(port)]
    process = subprocess.Popen(
        [*command, "--require-nonce", *claims],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"AUTHLIB_INSECURE_TRANSPORT": "1"},
    )
    try:
        issuer = f"http://127.0.0.1:{port}"
        until(lambda: answers(f"{issuer}/.well-known/openid-configuration"), 60)
        yield issuer
    finally:
        process.kill()
        process.wait(20)


@pytest.fixture(scope="module")
def issuer():
    with oidc_provider(free_port()) as found:
        yield found


@pytest.fixture
def site(tmp_path, database, issuer):
    """The pages of a server whose users log in there; ann and eve are users, bob is none."""
    with backend(tmp_path, database) as back:
        oidc = Oidc(OidcSettings(issuer=issuer, client="edge-server", secret="s"), WALL)
        app, parts = back.application(WALL, oidc=oidc)
        for name in ("ann", "eve"):
            parts.guard.new_user(f"{name}@example.org", "viewer", "")
        parts.guard.new_user("local@example.org", "admin", "a-long-password")
        client = TestClient(app, follow_redirects=False)
        client.oidc, client.back, client.parts = oidc, back, parts
        yield client


def logs_in(site, sub):
    """What a browser does: away to the provider, a name there, and where that sends it back."""
    away = site.get("/login/oidc")
    assert away.status_code == 303
    asked = parse_qs(urlsplit(away.headers["location"]).query)
    assert asked["code_challenge_method"] == ["S256"]
    sent = httpx2.post(away.headers["location"], data={"sub": sub})
    assert sent.status_code == 302, sent.text
    return sent.headers["location"]


def test_who_the_provider_knows_and_the_server_too_is_let_in(site):
    assert "Log in with 127.0.0.1" in site.get("/login").text
    back = site.get(logs_in(site, "1"))
    assert back.status_code == 200
    assert "Logged in as ann@example.org" in back.text
    cookies = back.headers.get_list("set-cookie")
    assert any("edge_session=" in c and "SameSite=strict" in c and "HttpOnly" in c for c in cookies)
    assert "ann@example.org" in site.get("/").text


@pytest.mark.parametrize(
    ("sub", "why"),
    [
        ("3", "edge user add bob@example.org --no-password"),
        ("2", "has not verified the address eve@example.org"),
        ("4", "does not tell the claim"),
        ("5", "local@example.org has a password here"),
    ],
)
def test_others_are_told_why_not(site, sub, why):
    back = site.get(logs_in(site, sub))
    assert back.status_code == 401
    assert why in back.text.replace("&#39;", "'")
    assert site.get("/").status_code == 401


def test_who_came_first_under_a_name_keeps_it_until_an_administrator_says_otherwise(site):
    assert site.get(logs_in(site, "1")).status_code == 200
    site.cookies.clear()
    other = site.get(logs_in(site, "6"))
    assert other.status_code == 401
    assert "another person logged in as ann@example.org before" in other.text
    assert site.get(logs_in(site, "1")).status_code == 200  # again, and again the same
    admin = {"authorization": f"Bearer {site.back.keyring.admin_token}"}
    for change in ("disable", "enable"):
        path = f"/api/v1/users/ann@example.org/{change}"
        assert site.post(path, headers=admin).status_code == 200
    assert site.get(logs_in(site, "6")).status_code == 200


def test_who_knocks_too_often_waits_and_crowds_nobody_out(site):
    begun = logs_in(site, "1")
    stranger = TestClient(site.app, follow_redirects=False, client=("192.0.2.9", 1))
    statuses = [stranger.get("/login/oidc").status_code for _ in range(25)]
    assert statuses[:20] == [303] * 20
    assert statuses[-1] == 429
    assert site.get(begun).status_code == 200


def test_a_way_back_opens_once_in_the_browser_that_went_away_and_with_its_own_code(site):
    place = logs_in(site, "1")
    other = TestClient(site.app, follow_redirects=False)
    assert other.get(place).status_code == 401  # another browser: login CSRF
    assert site.get(place).status_code == 200
    assert site.get(place).status_code == 401  # its cookie is gone, and its code is spent
    site.cookies.set("edge_oidc", parse_qs(urlsplit(place).query)["state"][0])
    assert site.get(place).status_code == 401
    site.cookies.clear()
    away = site.get("/login/oidc").headers["location"]
    state = parse_qs(urlsplit(away).query)["state"][0]
    forged = f"/login/oidc/back?code=made-up&state={state}"
    assert "did not log anybody in" in site.get(forged).text
    assert site.get("/login/oidc/back").status_code == 401


def test_a_code_of_another_log_in_is_refused_by_its_nonce(site):
    first, second = logs_in(site, "1"), logs_in(site, "1")
    code = parse_qs(urlsplit(first).query)["code"][0]
    state = parse_qs(urlsplit(second).query)["state"][0]
    with pytest.raises(RefusedError, match="does not hold"):
        site.oidc.finish(f"http://testserver/login/oidc/back?code={code}&state={state}", state)


def test_no_provider_is_believed_that_is_not_the_one_or_not_there(issuer):
    for wrong in ("http://example.org", "file:///etc", "", "example.org"):
        with pytest.raises(InvalidInputError, match="https://HOST"):
            Oidc(OidcSettings(issuer=wrong, client="c"), WALL)
    dead = Oidc(OidcSettings(issuer=f"http://127.0.0.1:{free_port()}", client="c"), WALL)
    with pytest.raises(ServerError, match="does not answer"):
        dead.begin("http://testserver/back")
    elsewhere = issuer.replace("127.0.0.1", "localhost")
    posing = Oidc(OidcSettings(issuer=elsewhere + "/x/..", client="c"), WALL)
    with pytest.raises(ServerError, match=r"says that it is|does not answer"):
        posing.begin("http://testserver/back")


class Halfway(BaseHTTPRequestHandler):
    """A provider that tells of itself only who it is."""

    def do_GET(self):
        host, port = self.server.server_address
        body = json.dumps({"issuer": f"http://{host}:{port}"}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def test_a_provider_that_tells_too_little_of_itself_is_named():
    with HTTPServer(("127.0.0.1", 0), Halfway) as server:
        Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        half = Oidc(OidcSettings(issuer=f"http://127.0.0.1:{server.server_port}", client="c"), WALL)
        with pytest.raises(ServerError, match="does not tell its authorization_endpoint and"):
            half.begin("http://testserver/back")
        server.shutdown()


def test_the_secret_is_in_no_log():
    assert "s3cret" not in repr(
        OidcSettings(issuer="https://x.example", client="c", secret="s3cret")
    )
