"""The page as a browser gets it: closed to strangers, deaf to hostile strings, whole by itself."""

import hashlib
import re
from html.parser import HTMLParser
from importlib import resources

import msgspec
import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from fleet_server.answers import speak_problems
from fleet_server.asking import by_session
from fleet_server.guard import Guard
from fleet_server.store import Store
from fleet_server.views import (
    AlertRow,
    DeviceRow,
    EventRow,
    GateRow,
    Overview,
    PhaseRow,
    RolloutRow,
    VersionRow,
)
from fleet_server.web.entrance import entrance
from fleet_server.web.frame import Frame
from fleet_server.web.pages import overview_router
from tests.server_side import Clock

TOKEN = "an-admin-token"
NOW = 1_763_000_000.0
EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)> {{ 7*7 }} </title>"


def fleet(text=""):
    """A fleet with one of everything; `text` stands in every string that is not ours."""
    return Overview(
        at=NOW,
        headline=f"Data drift at site north{text}",
        calm=False,
        health={"live": 1, "late": 1, "offline": 1, "new": 0},
        running=((f"digits{text}", f"v2{text}", 1),),
        total=2,
        devices=(
            DeviceRow(
                id=f"pi-7{text}", profile=f"raspberry-pi-4{text}", site=f"north{text}",
                health="late", seen_seconds_ago=12.0, model=f"digits{text}", wanted=f"v3{text}",
                running=f"v2{text}", phase="reverted", reason=f"golden test failed{text}",
                runtime=f"LiteRT{text}", rows=12_345, confidence=0.914,
                drifting=(f"input.brightness{text}",), resumed_at=183_000,
            ),
            DeviceRow(
                id="pi-8", profile="coral-usb", site="", health="new", seen_seconds_ago=None,
                model="", wanted="", running="", phase="", reason="", runtime="", rows=0,
                confidence=None,
            ),
        ),
        versions=(
            VersionRow(
                model=f"digits{text}", version=f"v2{text}", profile=f"raspberry-pi-4{text}",
                digest=f"9f3ab2c41d77{text}", length=24_616, recipe=f"full int8{text}",
                accuracy=0.9694, drop=0.0056, signed_by=f"5be0cd19{text}",
                published_at=NOW - 7200, devices=1,
            ),
        ),
        rollouts=(
            RolloutRow(
                id=f"r3{text}", model=f"digits{text}", version=f"v3{text}",
                strategy=f"canary{text}", status="rolled back", reason=f"worse{text}",
                started_at=NOW - 300, ended_at=NOW - 60,
                phases=(
                    PhaseRow(f"canary 25 %{text}", 3, "done"),
                    PhaseRow("half", 6, "now"),
                    PhaseRow("everyone", 12, "skipped"),
                ),
                gates=(
                    GateRow(
                        metric="confidence", treated=-0.141, control=-0.008, difference=-0.133,
                        low=-0.171, high=-0.095, limit=-0.05, verdict="fail",
                        words=f"clearly worse{text}",
                    ),
                    GateRow(
                        metric="errors", treated=None, control=None, difference=None, low=None,
                        high=None, limit=0.02, verdict="no data", words="too few",
                    ),
                ),
                confirmed=2, failed=1, total=12,
            ),
        ),
        alerts=(
            AlertRow(
                id=f"a1{text}", state="open", severity="warning", kind=f"data drift{text}",
                scope=f"site=north{text}", title=f"brightness fell{text}",
                detail=f"3 of 3 devices{text}", opened_at=NOW - 600, devices=3,
            ),
            AlertRow(
                id="a0", state="closed", severity="info", kind="data drift", scope="site=south",
                title=f"sharpness rose{text}", detail="", opened_at=NOW - 9000, devices=1,
            ),
        ),
        events=(EventRow(at=NOW - 5, source=f"pi-7{text}", name=f"up{text}", detail=f"x{text}"),),
    )  # fmt: skip


EMPTY = Overview(
    at=NOW, headline="No device has joined yet", calm=True, health={}, running=(), total=0,
    devices=(), versions=(), rollouts=(), alerts=(), events=(),
)  # fmt: skip


async def one_ring():
    yield 7


@pytest.fixture
def browser(database):
    """Makes clients of an application that has the pages alone; not logged in."""
    with Store(database) as store:
        clock = Clock(NOW)
        guard = Guard(store, TOKEN, clock)

        def made(overview=None):
            app, frame = FastAPI(), Frame("1.2.3")
            shown = fleet() if overview is None else overview
            speak_problems(app, frame.problem)
            app.include_router(entrance(frame, guard, store))
            pages = overview_router(frame, lambda: shown, one_ring, by_session(guard))
            app.include_router(pages)
            client = TestClient(app, follow_redirects=False)
            client.guard, client.store, client.clock = guard, store, clock
            client.link = guard.new_link()
            return client

        yield made


@pytest.fixture
def operator(browser):
    def made(overview=None):
        client = browser(overview)
        assert client.get(client.link).status_code == 303
        return client

    return made


class Tags(HTMLParser):
    """What a browser would make of the text: tags with their attributes, and the words."""

    def __init__(self, text):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words.append(data.strip())

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def test_a_stranger_sees_no_more_than_where_the_link_is(browser):
    answer = browser().get("/")
    assert answer.status_code == 401
    assert "edge server link" in answer.text
    assert "pi-7" not in answer.text


@pytest.mark.parametrize("path", ["/", "/events"])
def test_a_page_whose_session_is_over_is_told_to_reload(path, browser):
    answer = browser().get(path)
    assert answer.status_code == 401
    assert answer.headers["hx-refresh"] == "true"
    assert "pi-7" not in answer.text


@pytest.mark.parametrize("token", ["wrong", TOKEN + "x", "\N{SNOWMAN}"])
def test_a_wrong_code_opens_nothing(token, browser):
    client = browser()
    answer = client.get("/login", params={"code": token})
    assert answer.status_code == 401
    assert "set-cookie" not in answer.headers
    assert client.get("/").status_code == 401


def test_a_link_opens_once_and_only_within_the_hour(browser):
    client = browser()
    assert client.get(client.link).status_code == 303
    assert client.get(client.link).status_code == 401
    late = client.guard.new_link()
    client.clock.now += 3601.0
    assert client.get(late).status_code == 401


def test_a_link_becomes_a_cookie_that_does_not_hold_the_token(browser):
    client = browser()
    answer = client.get(client.link)
    assert (answer.status_code, answer.headers["location"]) == (303, "/welcome")
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert TOKEN not in cookie
    assert client.get("/").status_code == 200


def test_a_made_up_cookie_opens_nothing(browser):
    client = browser()
    client.cookies.set("edge_session", "0" * 64)
    assert client.get("/").status_code == 401


def test_the_page_answers_whether_anything_is_wrong_before_all_else(operator):
    text = Tags(operator().get("/").text).text
    order = ["Data drift at site north", "late", "Running now", "brightness fell", "under way"]
    places = [text.index(words) for words in order]
    assert places == sorted(places)


def test_a_rollout_shows_its_steps_and_the_evidence_of_its_end(operator):
    text = Tags(operator().get("/").text).text
    assert "digits v3 rolled back canary" in text
    assert "canary 25 % 3 devices" in text
    minus = "\N{MINUS SIGN}"
    assert f"{minus}0.133 [{minus}0.171, {minus}0.095]" in text
    assert "clearly worse" in text
    assert "no data" in text


def test_a_device_shows_its_health_in_a_word_and_why_its_order_failed(operator):
    text = Tags(operator().get("/").text).text
    assert "pi-7 late 12 s ago north raspberry-pi-4 digits v2 v3 reverted golden test" in text
    assert "download resumed at 183 kB" in text
    assert "input moved: brightness" in text


def test_times_are_relative_and_exact_at_once(operator):
    tags = Tags(operator().get("/").text).tags
    times = [attributes for tag, attributes in tags if tag == "time"]
    assert {"datetime": "2025-11-13T02:13:20Z", "title": "2025-11-13T02:13:20Z"} in times
    assert all(attributes["title"] == attributes["datetime"] for attributes in times)


def test_an_empty_fleet_is_told_how_to_begin(operator):
    text = Tags(operator(EMPTY).get("/").text).text
    assert "edge enroll key new" in text
    assert "Running now" not in text


def test_hostile_strings_stay_text(operator):
    """The same tags come out whatever the devices say, so none of theirs is a tag."""

    def bare(page):
        shown = [
            (
                tag,
                {
                    k: v
                    for k, v in attributes.items()
                    if k not in ("id", "title", "aria-label", "href")
                },
            )
            for tag, attributes in page.tags
        ]
        return shown, [sorted(attributes) for _, attributes in page.tags]

    harmless = Tags(operator(fleet()).get("/").text)
    hostile = Tags(operator(fleet(EVIL)).get("/").text)
    assert bare(hostile) == bare(harmless)
    assert "<script>alert(1)</script>" in hostile.text
    assert "49" not in hostile.text


@pytest.mark.parametrize(("path", "overview"), [("/", fleet()), ("/login", EMPTY), ("/", EMPTY)])
def test_no_page_needs_what_its_policy_forbids_or_another_host(path, overview, operator):
    answer = operator(overview).get(path)
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    for tag, attributes in Tags(answer.text).tags:
        assert tag != "style"
        assert tag != "script" or attributes["src"].startswith("/static/")
        for name, value in attributes.items():
            assert name != "style"
            assert not name.startswith("on")
            if name in ("src", "href", "hx-get", "hx-sse:connect", "action"):
                assert re.match(r"/(?!/)|#main$", value), (tag, name, value)


def test_every_file_the_page_names_is_there_and_may_be_kept(operator):
    client = operator()
    named = set(re.findall(r'(?:src|href)="(/static/[^"]+)"', client.get("/").text))
    assert {re.sub(r"\?.*", "", name) for name in named} == {
        f"/static/{name}"
        for name in ("fleet.css", "htmx.min.js", "hx-sse.min.js", "icon.svg", "link.js")
    }
    for name in named:
        answer = client.get(name)
        assert answer.status_code == 200
        assert "immutable" in answer.headers["cache-control"]
        assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("name", ["nothing.css", "LICENSES.md", "..%2fpages.py", "%2e%2e/pages.py"])
def test_nothing_else_is_served(name, operator):
    assert operator().get(f"/static/{name}").status_code == 404


def static_files():
    return resources.files("fleet_server.web").joinpath("static").iterdir()


def test_vendored_files_are_the_ones_whose_licence_is_told():
    files = {file.name: file.read_bytes() for file in static_files()}
    table = files["LICENSES.md"].decode()
    rows = re.findall(r"^\| (\S+) \| (\S+) \| ([0-9a-f]{64}) \|$", table, re.MULTILINE)
    assert {name for name, _, _ in rows} == {name for name in files if name.endswith(".min.js")}
    for name, _, digest in rows:
        assert hashlib.sha256(files[name]).hexdigest() == digest


def test_no_file_of_the_page_names_another_host():
    for file in static_files():
        if not file.name.endswith(".md"):
            text = file.read_text().replace("http://www.w3.org/2000/svg", "")
            assert not re.search(r"https?://|url\(|@import|[\"'(]//[a-z]", text), file.name


def test_the_stream_tells_of_the_first_look_and_of_every_change(operator):
    answer = operator().get("/events")
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = [line for line in answer.text.splitlines() if line.startswith(("event", "data"))]
    assert events == ["event: changed", "data: 0", "event: changed", "data: 7"]


def test_a_thousand_devices_do_not_make_the_page_endless(operator):
    rows = tuple(msgspec.structs.replace(fleet().devices[0], id=f"d{i}") for i in range(1000))
    text = operator(msgspec.structs.replace(fleet(), devices=rows, total=1000)).get("/").text
    assert text.count('<tr id="device-') == 200
    assert 'href="/devices">all 1000' in text
