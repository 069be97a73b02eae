"""The pages in a real Chromium: for axe, on a phone, by keyboard, and without JavaScript."""

import shutil
from contextlib import contextmanager

import msgspec
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import sync_playwright

from fleet_server.planning import Wish
from fleet_server.records import NewEvent
from fleet_server.rollups import Key, Sums, slice_of
from tests.server_side import NOW, backend, serving
from tests.unit.test_api_lists import a_sample, an_alert
from tests.unit.test_server_fleet import confirm, windows

EVIL = '"\'></title><img src=x onerror="window.hit=1"><script>window.hit=1</script>{{ 7*7 }}'
CHROMIUM = shutil.which("chromium")
PATHS = (
    "/", "/devices", "/devices/pi-1", "/models", "/models/digits/1", "/rollouts", "/rollouts/{id}",
    "/drift", "/drift/digits", "/alerts", "/labels", "/labels/digits", "/audit", "/api/docs", "/me",
)  # fmt: skip
pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(not CHROMIUM, reason="Chromium is not installed: apt-get install chromium"),
]


class Site:
    """A browser, where the pages are, and the cookie that opens them."""

    def __init__(self, browser, url, cookie, rollout):
        self.browser, self.url = browser, url
        self.cookie = {"name": "edge_session", "value": cookie, "url": url}
        self.paths = [path.replace("{id}", rollout) for path in PATHS]

    @contextmanager
    def page(self, **options):
        context = self.browser.new_context(**options)
        context.add_cookies([self.cookie])
        yield context.new_page()
        context.close()


@pytest.fixture(scope="module")
def site(new_database, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    with new_database(folder) as database, backend(folder, database) as back:
        for number in range(4):
            back.device(f"pi-{number}")
        confirm(back, "pi-1")
        back.store.seen({"pi-1": NOW - 20}, {})
        back.store.save_alert(an_alert(1))
        back.store.add_samples([a_sample(back, 1)])
        hostile(back)
        app, parts = back.application()
        wish = Wish(model="digits", version="1", strategy={"name": "canary"}, by="ann")
        rollout = parts.controls.create(wish, NOW)
        parts.controls.tick(NOW)
        windows(back, "pi-1", count=40)
        windows(back, "evil", count=2)
        with serving(app) as url, sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            yield Site(browser, url, parts.guard.open_session("console"), rollout)
            browser.close()


def hostile(back):
    """What a device may say at will, and what follows from it, is an attempt to get in."""
    store, first = back.store, back.store.device("pi-0")
    labels = {"site": EVIL, "line": EVIL}
    store.add_device(msgspec.structs.replace(first, id="evil", labels=labels, enrolled_at=NOW))
    confirm(back, "evil", reason=EVIL, runtime=EVIL, agent=EVIL, boot=EVIL, phase="refused")
    store.add_device_events(
        [NewEvent(at=NOW, device="evil", boot="b", seq=99, name=EVIL, detail=EVIL)]
    )
    store.save_alert(an_alert(2, title=EVIL))
    told = msgspec.structs.replace(a_sample(back, 2), device="evil", predicted=EVIL, subject=EVIL)
    store.add_samples([told])
    store.add_audit(NOW, EVIL, EVIL, EVIL, EVIL)
    sums = Sums(windows=1, seconds=60.0, rows=10, skew={EVIL: 3})
    key = Key("hour", NOW - NOW % 3600, slice_of(back.bundle.digest, labels))
    store.roll_up({key: sums}, {back.bundle.digest: ("digits", "1", "raspberry-pi-4")})


def test_what_devices_say_is_shown_as_they_said_it_and_runs_nowhere(site):
    """Without the policy that would stop a script anyway; what is left is the escaping."""
    found, shown = [], set()
    with site.page(bypass_csp=True) as page:
        page.on("dialog", lambda dialog: (found.append(dialog.message), dialog.dismiss()))
        for path in (*site.paths, "/devices/evil", "/drift/digits?hours=1"):
            page.goto(site.url + path, wait_until="domcontentloaded")
            page.wait_for_timeout(50)
            elements = page.evaluate(
                "document.querySelectorAll('[onerror], script:not([src])').length"
            )
            if elements or page.evaluate("window.hit"):
                found.append(path)
            if EVIL in page.locator("body").text_content():
                shown.add(path)
    assert found == []
    assert shown >= {"/", "/devices", "/devices/evil", "/drift/digits", "/alerts", "/audit"}
    assert shown >= {path for path in site.paths if path.startswith("/rollouts/")}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_on_any_page_wide_or_on_a_phone(site, scheme):
    found = []
    with site.page(color_scheme=scheme, bypass_csp=True) as page:
        for path in site.paths:
            page.goto(site.url + path, wait_until="domcontentloaded")
            for width in (1280, 390) if scheme == "light" else (1280,):
                page.set_viewport_size({"width": width, "height": 800})
                told = Axe().run(page).response["violations"]
                found += [(path, width, v["id"], v["nodes"][0]["html"]) for v in told]
                wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
                found += [(path, width, "too wide by", wide)] if wide > 0 else []
    assert found == []


def test_without_javascript_every_page_shows_its_content_and_lists_are_filtered(site):
    with site.page(java_script_enabled=False) as page:
        for path in site.paths:
            assert page.goto(site.url + path).status == 200
            assert page.locator("main h1").count() == 1, path
        page.goto(f"{site.url}/devices")
        page.get_by_label("Name begins with").fill("pi-3")
        page.get_by_role("button", name="Show").click()
        assert page.locator("tbody tr").count() == 1


def test_an_alert_is_seen_to_by_keyboard_alone(site):
    with site.page() as page:
        page.goto(f"{site.url}/alerts", wait_until="domcontentloaded")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Skip to content"
        page.keyboard.press("Enter")
        for _ in range(12):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.textContent") == "Acknowledge":
                break
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
        page.keyboard.press("Enter")
        page.get_by_text("acknowledged").wait_for()
