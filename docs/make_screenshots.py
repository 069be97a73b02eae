"""Pictures of every page with a demo's data: `python docs/make_screenshots.py demo-out`, by hand.

The server runs on a copy of the demo's data folder, at the time at which the demo ended. The demo
asks for no rows to label, so some of its field data are put into the queue, with what its model
says of them.
"""

import asyncio
import shutil
import sqlite3
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from PIL import Image
from playwright.sync_api import Browser, sync_playwright

from edge_sdk.bundle import MODEL, contents, read_manifest
from edge_sdk.files import sha256
from edge_sdk.formats import to_msgpack
from edge_sdk.interpreter import LiteRt
from edge_sdk.messages import Sample
from fleet_server.app import Server, Settings
from fleet_server.data_dir import DATABASE
from fleet_server.records import SampleRecord
from fleet_server.store import Store

PICTURES = Path(__file__).parent / "pictures"
WIDE, PHONE = (1200, 780), (390, 780)
COLOURS = 220
SHOTS = {
    "overview": "/", "devices": "/devices", "device": "/devices/{device}", "models": "/models",
    "version": "/models/{model}/{version}", "rollouts": "/rollouts",
    "rollout": "/rollouts/{rollout}",
    "drift": "/drift", "drift-model": "/drift/{model}", "alerts": "/alerts", "labels": "/labels",
    "label-queue": "/labels/{model}", "audit": "/audit", "api": "/api/docs", "me": "/me",
}  # fmt: skip


def known(database: Path) -> tuple[dict[str, str], float]:
    """Names to fill into the addresses, and when the last window came."""
    with sqlite3.connect(database) as c:
        ended = c.execute("select max(received_at) from windows").fetchone()[0]
        c.execute("update devices set left_at = null")  # they said farewell when the demo ended
        rollout, model, version = c.execute(
            "select id, model, version from rollouts order by status = 'rolled back',"
            " (select count(*) from decisions where rollout = rollouts.id)"
        ).fetchall()[-1]
        device = c.execute("select device from standings where rollout = ?", (rollout,)).fetchone()
    names = {"rollout": rollout, "model": model, "version": version, "device": device[0]}
    return names, ended


def queue(demo: Path, data: Path, names: dict[str, str], ended: float) -> None:
    """Rows of the demo's field that its model is least sure of, as a device would send them."""
    file = next((demo / "bundles").glob(f"{names['model']}-{names['version']}-raspberry-pi-4.edge"))
    digest, manifest = sha256(file.read_bytes()), read_manifest(file.read_bytes())
    rows = np.load(demo / "digits" / "field.npz")["x"]
    model = LiteRt(contents(file.read_bytes())[MODEL], manifest.preprocessing)
    answers = model.run_rows(rows)
    top = np.sort(answers, axis=1)
    margin = top[:, -1] - top[:, -2]
    with Store(data / DATABASE) as store:
        store.add_samples([
            SampleRecord(
                device=names["device"], row=f"r{place}", subject="", model=manifest.name,
                version=manifest.version, digest=digest, policy="margin",
                score=float(1 - margin[place]), confidence=float(answers[place].max()),
                predicted=manifest.labels[answers[place].argmax()], received_at=ended - 60,
                body=to_msgpack(Sample(
                    model=manifest.name, version=manifest.version, digest=digest, command=1,
                    policy="margin", id=f"r{place}", score=float(1 - margin[place]),
                    probabilities=tuple(answers[place].tolist()), dtype=str(rows.dtype),
                    shape=rows[place].shape, data=rows[place].tobytes(),
                )),
            )
            for place in np.argsort(margin)[:24]
        ])  # fmt: skip


def serve(data: Path, ended: float, ready: list[str]) -> None:
    """Run a server whose clock goes on from when the demo ended."""
    begun = time.monotonic()
    settings = Settings(
        data_dir=data, host="127.0.0.1", port=0, mqtt_port=0, publishers=(),
        default_publisher=data / "none.pub",
    )  # fmt: skip

    async def run() -> None:
        server = Server(
            settings,
            now=lambda: ended + 1 + (time.monotonic() - begun) / 100,
            ready=lambda where, _keys, link: ready.append(where.url + link),
        )
        await server.serve()

    asyncio.run(run())


def shoot(browser: Browser, link: str, names: dict[str, str]) -> None:
    """Take every picture; a palette of few colours keeps them small."""
    base = link.partition("/login")[0]
    for scheme, (width, height) in (("light", WIDE), ("dark", WIDE), ("phone", PHONE)):
        context = browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme="dark" if scheme == "dark" else "light",
            storage_state=str(PICTURES / "state.json") if scheme != "light" else None,
        )
        page = context.new_page()
        if scheme == "light":
            page.goto(link)
            context.storage_state(path=PICTURES / "state.json")
        some = SHOTS if scheme == "light" else {n: SHOTS[n] for n in ("overview", "rollout")}
        for name, path in some.items():
            page.goto(base + path.format_map(names), wait_until="load")
            page.wait_for_timeout(500)
            file = PICTURES / f"{name}{'' if scheme == 'light' else f'-{scheme}'}.png"
            page.screenshot(path=file)
            Image.open(file).convert("RGB").quantize(COLOURS).save(file, optimize=True)
        context.close()


def main(demo: Path) -> None:
    """Make `docs/pictures` anew."""
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "server"
        shutil.copytree(demo / "server", data)
        names, ended = known(data / DATABASE)
        queue(demo, data, names, ended)
        ready: list[str] = []
        threading.Thread(target=serve, args=(data, ended, ready), daemon=True).start()
        while not ready:
            time.sleep(0.1)
        with sync_playwright() as playwright:
            program = shutil.which("chromium")
            browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
            time.sleep(5)  # the controller looks once
            shoot(browser, ready[0], names)
            browser.close()
        (PICTURES / "state.json").unlink()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
