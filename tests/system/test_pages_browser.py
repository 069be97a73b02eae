"""The pages in a real Chromium: for axe, on a phone, and without JavaScript."""

import shutil
import socket
import threading
from contextlib import contextmanager

import pytest
import uvicorn
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import sync_playwright

from fleet_server.alert_life import opened
from fleet_server.fleet import alert_record
from fleet_server.samples import record_of
from tests.server_side import NOW, backend
from tests.unit.test_decay_alerts import a_finding
from tests.unit.test_decay_rollups import arrived, put
from tests.unit.test_decay_samples import a_sample
from tests.unit.test_server_fleet import confirm, windows

CHROMIUM = shutil.which("chromium")
PATHS = ("/", "/devices", "/devices/pi-1", "/models", "/models/digits/1", "/audit", "/api/docs",
         "/drift", "/drift/digits", "/labels", "/labels/digits")  # fmt: skip
VIEWS = (("light", 1280), ("dark", 1280), ("light", 390))
pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(not CHROMIUM, reason="Chromium is not installed: apt-get install chromium"),
]


@contextmanager
def served(app):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
        thread = threading.Thread(target=lambda: server.run([listening]))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(20)


@pytest.fixture
def pages(tmp_path):
    """A browser, where the pages are, and the cookie that opens them."""
    with backend(tmp_path) as back:
        devices = [back.device(f"pi-{number}") for number in range(4)]
        confirm(back, "pi-1")
        windows(back, "pi-1", count=40)
        for at in (NOW - 7200, NOW - 3600, NOW - 60):
            put(back, arrived(devices[2], back.window(rows=50), at=at, wall=at))
        back.store.save_alert(alert_record(opened("digits", a_finding(), NOW), NOW))
        labels = back.bundle.manifest.labels
        back.store.add_samples([record_of(a_sample(back), "pi-1", labels, NOW - 60)])
        back.store.seen({"pi-1": NOW - 20}, {})
        app, parts = back.application()
        cookie = parts.guard.open_session("console")
        with served(app) as url, sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            yield browser, url, {"name": "edge_session", "value": cookie, "url": url}
            browser.close()


def test_axe_finds_nothing_in_light_and_dark_and_on_a_phone(pages):
    browser, url, cookie = pages
    for scheme, width in VIEWS:
        context = browser.new_context(
            color_scheme=scheme, viewport={"width": width, "height": 800}, bypass_csp=True
        )
        context.add_cookies([cookie])
        page = context.new_page()
        for path in PATHS:
            page.goto(url + path, wait_until="domcontentloaded")
            found = Axe().run(page).response["violations"]
            assert [(v["id"], v["nodes"][0]["html"]) for v in found] == [], (scheme, width, path)
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
        context.close()


def test_without_javascript_every_page_shows_its_content_and_lists_are_filtered(pages):
    browser, url, cookie = pages
    context = browser.new_context(java_script_enabled=False)
    context.add_cookies([cookie])
    page = context.new_page()
    for path in PATHS:
        assert page.goto(url + path).status == 200
        assert page.locator("main h1").count() == 1
    page.goto(f"{url}/devices")
    page.get_by_label("Name begins with").fill("pi-3")
    page.get_by_role("button", name="Show").click()
    assert page.locator("tbody tr").count() == 1
    context.close()
