"""Who may do what: every route for every role, tokens, sessions, and the audit log."""

import re
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from edge_sdk.errors import RefusedError
from fleet_server.access import CONSOLE, ROLES, SCOPES, scope_of
from fleet_server.audit import FIRST, AuditEntry, sealed, verify
from fleet_server.limits import Buckets
from fleet_server.oidc import Oidc, OidcSettings
from fleet_server.store import Store
from tests.databases import all_in
from tests.server_side import NOW, Clock, backend

OPEN_TO_ALL = {
    "/login", "/login/oidc", "/login/oidc/back", "/static/{name}", "/healthz", "/readyz",
    "/openapi.json",
}  # fmt: skip
BY_OTHER_MEANS = {"/welcome", "/metrics"}  # the console's session; a token, tested with the API
PASSWORD = "correct horse battery"


class House:
    """A server without a network, one user of every role, and their tokens."""

    def __init__(self, back):
        self.back, self.clock = back, Clock()
        provider = OidcSettings(issuer="https://login.example", client="edge-server")
        self.app, self.parts = back.application(self.clock, oidc=Oidc(provider, self.clock))
        self.guard, self.store = self.parts.guard, back.store
        self.console = back.keyring.admin_token
        self.tokens = {}
        for role in ROLES:
            self.guard.new_user(role, role, PASSWORD)
            owner = self.guard._user(role)
            self.tokens[role] = self.guard.new_token(owner, "all", owner.scopes, 24)

    def client(self, token=None, cookie=""):
        headers = {"authorization": f"Bearer {token}"} if token else {}
        client = TestClient(
            self.app, headers=headers, follow_redirects=False, raise_server_exceptions=False
        )
        if cookie:
            client.cookies.set("edge_session", cookie)
        return client

    def routes(self):
        """(method, path) of all that operators ask, with ids filled in."""
        for path, known in self.app.openapi()["paths"].items():
            if path.startswith("/api/v1"):
                for method in known:
                    yield method.upper(), path.replace("{", "x-").replace("}", "")


@pytest.fixture
def house(tmp_path, database):
    with backend(tmp_path, database) as back:
        yield House(back)


def test_every_route_lets_in_the_roles_that_have_its_scope_and_nobody_else(house):
    routes = sorted(house.routes(), key=lambda known: known[1].endswith("/logout"))  # the last
    assert len(routes) > 25
    for role, scopes in ROLES.items():
        client = house.client(house.tokens[role])
        for method, path in routes:
            status = client.request(method, path).status_code
            needed = scope_of(method, path)
            assert (status == 403) == (needed not in scopes), (role, method, path, status)
            assert status not in (401, 429), (role, method, path)
    stranger = house.client()
    assert {stranger.request(method, path).status_code for method, path in routes} == {401}


def flat(routes):
    """Routes, and those of the routers that were included."""
    for route in routes:
        inner = getattr(route, "original_router", None)
        if inner is None:
            yield route
        else:
            yield from flat(inner.routes)


def test_every_page_lets_in_the_roles_that_have_its_scope_and_nobody_else(house):
    ours = {"sec-fetch-site": "same-origin"}
    known = {
        (method, re.sub(r"{(\w+)(:\w+)?}", r"x-\1", route.path))
        for route in flat(house.app.routes)
        if getattr(route, "include_in_schema", True) is False
        and route.path not in OPEN_TO_ALL | BY_OTHER_MEANS
        for method in {"GET", "POST"} & route.methods
    }  # fmt: skip
    pages = sorted(known)
    assert len(pages) > 20
    for role, scopes in ROLES.items():
        client = house.client(cookie=house.guard.open_session(role))
        for method, path in pages:
            status = client.request(method, path, headers=ours).status_code
            needed = scope_of(method, path)
            assert (status == 403) == (needed not in scopes), (role, method, path, status)
            if method == "POST" and path != "/logout":
                foreign = client.request(method, path, headers={"sec-fetch-site": "cross-site"})
                assert foreign.status_code == 403, (role, path)  # CSRF
            if path == "/logout":
                client = house.client(cookie=house.guard.open_session(role))
    stranger = house.client()
    assert {stranger.request(m, p, headers=ours).status_code for m, p in pages} == {401}


def test_what_is_open_to_all_opens_no_session(house):
    known = {route.path for route in flat(house.app.routes)}
    assert known >= OPEN_TO_ALL | BY_OTHER_MEANS
    stranger = house.client()
    for path in ("/login", "/login?code=wrong", "/login/oidc/back?code=x&state=y", "/welcome"):
        answer = stranger.get(path)
        assert "edge_session" not in answer.headers.get("set-cookie", "")
        assert stranger.get("/").status_code == 401
    assert stranger.get("/login/oidc/back").status_code == 401
    assert stranger.get("/metrics").status_code == 401


def test_devices_routes_and_sticks_take_no_operator_s_token_and_no_stranger(house):
    wide = house.client(house.console)
    paths = [
        (method.upper(), path.replace("{", "x-").replace("}", ""))
        for path, known in house.app.openapi()["paths"].items()
        if path.startswith("/device/v1")
        for method in known
    ]
    assert len(paths) > 5
    open_to_devices = ("/enrol", "/certificate", "/tuf/", "/time")  # each proves itself otherwise
    for method, path in paths:
        if not any(part in path for part in open_to_devices):
            assert wide.request(method, path).status_code == 401, path
            assert house.client().request(method, path).status_code == 401, path


def test_every_right_is_somebodys_and_each_role_has_the_rights_of_the_one_below():
    order = list(ROLES.values())
    assert all(lower < higher for lower, higher in pairwise(order))
    assert order[-1] == set(SCOPES) == CONSOLE.scopes


def test_the_audit_log_says_what_was_made_and_no_secret(house):
    admin = house.client(house.tokens["admin"])
    asked = {"name": "olga", "role": "operator", "password": PASSWORD}
    assert admin.post("/api/v1/users", json=asked).status_code == 201
    hook = {"url": "https://hooks.example/a-secret", "events": ["alert"]}
    assert admin.post("/api/v1/webhooks", json=hook).status_code == 201
    admin.post("/api/v1/enrolment-keys", json={"uses": 3, "note": "the line in hall 2"})
    told = [row["detail"] for row in admin.get("/api/v1/audit").json()["items"] if row["detail"]]
    assert told[0] == "made for 3 devices, 24 h: the line in hall 2"
    assert re.fullmatch(r"made w\w+ for hooks\.example", told[1])
    assert told[2] == "made olga, operator"


@given(st.sampled_from(["POST", "PUT", "DELETE", "PATCH"]), st.text(max_size=30))
def test_what_nobody_thought_of_needs_an_administrator(method, path):
    known = ("bundles", "models", "enrolment-keys", "devices", "commands", "sticks", "rollouts")
    known += ("alerts", "drift", "labels", "samples", "tokens", "me", "logout")
    first = next((part for part in path.split("/") if part), "")
    if first not in known:
        assert scope_of(method, f"/api/v1/{path}") == "admin"


def test_a_token_has_some_of_its_owners_rights_and_loses_them_with_the_owner(house):
    operator = house.client(house.tokens["operator"])
    answer = operator.post("/api/v1/tokens", json={"name": "x", "scopes": ["read"]})
    assert (answer.status_code, answer.json()["status"]) == (409, 409)  # a token makes no tokens
    owner = house.guard._user("operator")
    with pytest.raises(Exception, match="has not the right 'admin'"):
        house.guard.new_token(owner, "more", frozenset({"admin"}), 24)
    text = house.guard.new_token(owner, "ci", frozenset({"publish"}), 24)
    ci = house.client(text)
    assert ci.get("/api/v1/devices").status_code == 403
    assert ci.post("/api/v1/bundles", content=b"junk").status_code == 422
    admin = house.client(house.tokens["admin"])
    assert admin.post("/api/v1/users/operator/role", json={"role": "viewer"}).status_code == 200
    assert ci.post("/api/v1/bundles", content=b"junk").status_code == 403
    assert admin.post("/api/v1/users/operator/disable").json()["disabled"] is True
    assert ci.get("/api/v1/devices").status_code == 401
    assert admin.post("/api/v1/users/operator/enable").json()["disabled"] is False
    house.clock.now += 24 * 3600 + 1
    assert house.client(house.tokens["viewer"]).get("/api/v1/me").status_code == 401


def test_a_name_and_a_password_make_a_token_and_open_nothing_else(house):
    client = house.client()
    wish = {"name": "laptop", "hours": 1}
    made = client.post("/api/v1/tokens", json=wish, auth=("approver", PASSWORD))
    assert made.status_code == 201, made.text
    me = house.client(made.json()["token"]).get("/api/v1/me").json()
    assert (me["name"], set(me["scopes"])) == ("approver/laptop", ROLES["approver"])
    assert client.get("/api/v1/tokens", auth=("approver", PASSWORD)).status_code == 401
    assert client.post("/api/v1/users", json={}, auth=("admin", PASSWORD)).status_code == 401
    house.store.change_user(msgspec.structs.replace(house.store.user("viewer"), disabled_at=NOW))
    for who in (("approver", "wrong"), ("viewer", PASSWORD), ("nobody", PASSWORD), ("console", "")):
        assert client.post("/api/v1/tokens", json=wish, auth=who).status_code == 401
    statuses = [
        client.post("/api/v1/tokens", json=wish, auth=("admin", f"guess {n}")).status_code
        for n in range(20)
    ]
    assert statuses[-1] == 429


def test_a_person_makes_and_ends_tokens_on_their_own_page(house):
    client, _ = logged_in(house, "approver", PASSWORD)
    ours = {"sec-fetch-site": "same-origin"}
    form = {"name": "<script>x</script>", "scope": ["read", "approve"], "hours": "2"}
    page = client.post("/me/tokens", data=form, headers=ours).text
    assert form["name"] not in page
    text = re.search(r"edgetok_[\w-]+", page).group()
    me = house.client(text).get("/api/v1/me").json()
    assert set(me["scopes"]) == {"read", "approve"}
    for wrong in ({"scope": ["admin"]}, {"scope": []}, {"hours": "9999999"}, {"name": ""}):
        assert "edgetok_" not in client.post("/me/tokens", data=form | wrong, headers=ours).text
    page = client.get("/me").text
    assert text not in page
    others = house.store.tokens("admin")[0].id
    assert client.post(f"/me/tokens/{others}/revoke", headers=ours).status_code == 404
    [made] = [t.id for t in house.store.tokens("approver") if t.name == form["name"]]
    assert client.post(f"/me/tokens/{made}/revoke", headers=ours).headers["location"] == "/me"
    assert house.client(text).get("/api/v1/me").status_code == 401


def test_tokens_are_listed_and_revoked_by_their_owner_or_an_administrator(house):
    viewer = house.client(house.tokens["viewer"])
    [own] = viewer.get("/api/v1/tokens").json()["items"]
    everybody = house.client(house.console).get("/api/v1/tokens").json()["items"]
    assert len(everybody) == len(ROLES)
    other = next(t["id"] for t in everybody if t["user"] == "admin")
    assert viewer.post(f"/api/v1/tokens/{other}/revoke").status_code == 400
    assert viewer.post(f"/api/v1/tokens/{own['id']}/revoke").json() == own
    assert viewer.get("/api/v1/me").status_code == 401


def test_nothing_secret_is_in_the_database(house, database):
    cookie = house.guard.open_session("viewer")
    house.store.close()
    written = all_in(database)
    assert b"argon2id" in written
    for secret in (PASSWORD, cookie, *house.tokens.values()):
        assert secret.encode() not in written


def logged_in(house, name, password):
    client = house.client()
    form = {"name": name, "password": password}
    return client, client.post("/login", data=form, headers={"sec-fetch-site": "same-origin"})


def test_a_password_opens_the_pages_and_log_out_closes_them(house):
    client, answer = logged_in(house, "viewer", PASSWORD)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert client.get("/").status_code == 200
    assert "viewer" in client.get("/").text
    again = client.post("/logout", headers={"sec-fetch-site": "same-origin"})
    assert again.headers["location"] == "/login"
    assert client.get("/").status_code == 401


@pytest.mark.parametrize(
    ("name", "password"), [("viewer", "wrong"), ("nobody", PASSWORD), ("console", ""), ("", "")]
)
def test_a_wrong_password_opens_nothing_and_tells_nothing(house, name, password):
    _, answer = logged_in(house, name, password)
    assert answer.status_code == 401
    assert "set-cookie" not in answer.headers
    assert "not the password" in answer.text


def test_who_guesses_has_to_wait(house):
    statuses = [logged_in(house, "viewer", f"guess {n}")[1].status_code for n in range(22)]
    assert statuses == [401] * 20 + [429] * 2
    assert logged_in(house, "viewer", PASSWORD)[1].status_code == 429
    house.clock.now += 600
    assert logged_in(house, "viewer", PASSWORD)[1].status_code == 303
    client = house.client("edgetok_wrong")
    assert client.get("/api/v1/me").status_code == 401


def test_a_form_of_another_site_is_refused(house):
    client, _ = logged_in(house, "admin", PASSWORD)
    for headers in ({"sec-fetch-site": "cross-site"}, {"origin": "https://evil.example"}, {}):
        answer = client.post("/logout", headers=headers)
        assert answer.status_code == 403
    assert client.get("/").status_code == 200
    ours = {"origin": "http://testserver"}
    assert client.post("/logout", headers=ours).status_code == 303


def test_the_first_link_makes_the_first_administrator_and_later_ones_do_not(tmp_path, database):
    with backend(tmp_path, database) as back:
        app, parts = back.application()
        client = TestClient(app, follow_redirects=False)
        ours = {"sec-fetch-site": "same-origin"}
        assert client.get(parts.guard.new_link()).headers["location"] == "/welcome"
        assert "first administrator" in client.get("/welcome").text
        short = client.post("/welcome", data={"name": "ann", "password": "short"}, headers=ours)
        assert "10 to 1,024 characters" in short.text
        made = client.post("/welcome", data={"name": "ann", "password": PASSWORD}, headers=ours)
        assert made.headers["location"] == "/"
        assert back.store.user("ann").role == "admin"
        assert client.get("/welcome").headers["location"] == "/"
        again = client.post("/welcome", data={"name": "eve", "password": PASSWORD}, headers=ours)
        assert again.status_code == 403
        assert client.get(parts.guard.new_link()).headers["location"] == "/"
        assert [user.name for user in back.store.users()] == ["ann"]


def test_a_session_ends_by_itself_and_with_a_new_password(house):
    client, _ = logged_in(house, "viewer", PASSWORD)
    admin = house.client(house.tokens["admin"])
    body = {"password": "another long one"}
    assert admin.post("/api/v1/users/viewer/password", json=body).status_code == 200
    assert client.get("/").status_code == 401
    client, _ = logged_in(house, "viewer", "another long one")
    house.clock.now += 12 * 3600 + 1
    assert client.get("/").status_code == 401


def test_every_attempt_to_change_something_is_in_the_audit_log_also_one_that_failed(house):
    client = house.client(house.tokens["operator"])
    client.post("/api/v1/rollouts/r9/abort")
    client.post("/api/v1/users", json={"name": "eve", "role": "admin"})
    rows = house.client(house.tokens["viewer"]).get("/api/v1/audit").json()["items"]
    told = [(row["actor"], row["action"], row["target"], row["detail"]) for row in rows[:3]]
    who = "operator/all"
    assert told == [
        (who, "POST users", "", "denied: needs admin"),
        (who, "POST rollouts/r9/abort", "r9", "refused: there is no rollout 'r9'"),
        (who, "POST rollouts/r9/abort", "r9", ""),
    ]
    assert PASSWORD not in str(rows)


def test_the_audit_log_is_paged_and_filtered(house):
    for number in range(25):
        house.store.add_audit(NOW, "ann" if number % 2 else "bob", "did", f"t{number % 5}")
    client = house.client(house.console)
    seen, before = [], None
    while True:
        query = {"limit": 10} | ({"before": before} if before else {})
        page = client.get("/api/v1/audit", params=query).json()
        seen += [row["id"] for row in page["items"]]
        before = page["next"]
        if before is None:
            break
    assert seen == sorted(seen, reverse=True)
    assert seen[-1] == 1
    one = client.get("/api/v1/audit", params={"actor": "ann", "target": "t3"}).json()["items"]
    assert {(row["actor"], row["target"]) for row in one} == {("ann", "t3")}


def test_a_decision_is_in_the_audit_log_with_its_evidence(database):
    with Store(database) as store:
        store.add_decision("r1", NOW, b'{"action":"rollback","evidence":[1,2]}')
        [entry] = store.audit(target="r1")
        assert (entry.actor, entry.detail) == (
            "controller",
            '{"action":"rollback","evidence":[1,2]}',
        )
        assert verify(store.audit_chain()) == (1, entry.digest)


def a_chain(length):
    entries, last = [], FIRST
    for number in range(1, length + 1):
        entry = AuditEntry(
            id=number, at=NOW, actor="a", action="did", target="t", detail=str(number),
            previous=last,
        )  # fmt: skip
        entries.append(sealed(entry))
        last = entries[-1].digest
    return entries


@given(st.data())
def test_no_entry_can_be_changed_dropped_or_put_in_unnoticed(data):
    chain = a_chain(6)
    assert verify(chain) == (6, chain[-1].digest)
    at = data.draw(st.integers(0, 5))
    match data.draw(st.sampled_from(["change", "drop", "insert", "swap", "cut"])):
        case "change":
            field = data.draw(st.sampled_from(["actor", "action", "target", "detail"]))
            chain[at] = msgspec.structs.replace(chain[at], **{field: "forged"})
        case "drop":
            del chain[at]
        case "insert":
            chain.insert(at, sealed(msgspec.structs.replace(chain[at], actor="forged")))
        case "swap":
            chain[at], chain[at - 1] = chain[at - 1], chain[at]
        case "cut":
            del chain[at:]
    with pytest.raises(RefusedError):
        verify(chain, a_chain(6)[-1].digest)


@given(st.lists(st.floats(0, 5), max_size=200))
def test_a_bucket_never_gives_more_than_its_burst_and_its_rate(pauses):
    buckets, now, taken = Buckets(rate=2.0, burst=5), 0.0, 0
    for pause in pauses:
        now += pause
        taken += buckets.take("k", now) == 0.0
    assert taken <= 5 + 2.0 * now + 1e-6
