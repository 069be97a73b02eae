"""Novelty from the device to the person: embedding, window, message, watch, alert, page."""

import numpy as np
import pytest
from starlette.testclient import TestClient

from converters.flatbuffer import with_embedding
from device_agent.inference import Inference
from device_agent.runtime import Model
from device_agent.sources import Paced
from edge_sdk.bundle import unpack
from edge_sdk.channels import Preprocessing, answer_channels, watched_inputs
from edge_sdk.interpreter import LiteRt
from edge_sdk.messages import Running
from edge_sdk.sketch import make_baseline
from edge_sdk.subspace import NOVELTY, fit_subspace
from tests.agent_world import LABELS, MODEL
from tests.bundles import make_bundle, schema_of
from tests.databases import new_file
from tests.server_side import NOW, Clock, backend
from tests.unit.test_decay_rollups import arrived, put

PAST, USUAL, AFTER, ROWS = 16, 20, 4, 60  # seconds, in each of which there is a window
WHERE = {f"{site}-{i}": site for site in ("north", "south") for i in range(2)}


def scenes(count, seed):
    """Pictures (count, 8, 8, 1) in 0..16 that are bright in the upper left."""
    random = np.random.default_rng(seed)
    x = random.uniform(0, 8, (count, 8, 8, 1)).astype(np.float32)
    x[:, :4, :4] += 6
    return x


class Camera:
    """A source of new pictures; one that hangs upside down turns each of them."""

    def __init__(self, seed):
        self.seed, self.turned = seed, False

    def take(self, count):
        self.seed += 1
        x = scenes(count, self.seed)
        return x[:, ::-1] if self.turned else x


def watched_inside(key):
    """A bundle whose model shows its embedding, and its baseline how novel rows are in it."""
    data, train, held = with_embedding(MODEL.read_bytes()), scenes(500, 1), scenes(500, 2)
    real, schema = LiteRt(data, Preprocessing(scale=1 / 16)), schema_of(held)
    subspace = fit_subspace(real.embed_rows(train).astype(float))
    columns = {
        **watched_inputs(schema, held, subspace, real.embed_rows(held).astype(float)),
        **answer_channels(real.run_rows(held), "probabilities"),
    }
    baseline = make_baseline(columns, LABELS, subspace=subspace)
    packed = make_bundle(
        key, name="quarters", labels=LABELS, x=held, model=data, embedding=real.embedding,
        baseline=baseline,
    )  # fmt: skip
    return packed, unpack(packed, [key.public])


@pytest.fixture
def told(tmp_path):
    """What a server says of four agents, two of whose cameras were hung upside down at last."""
    with backend(tmp_path, new_file(tmp_path)) as back:
        packed, bundle = watched_inside(back.publisher)
        back.registry.publish(packed, NOW)
        real = LiteRt(bundle.model, bundle.manifest.preprocessing)
        running = Running("quarters", "1", bundle.digest)
        model = Model(running, bundle.manifest, bundle.baseline, real, real.description)
        clock, windows, agents = Clock(0.0), [], {}
        for number, (name, site) in enumerate(WHERE.items()):
            camera = Camera(1000 * number)
            loop = Inference(Paced(camera, ROWS, clock), 1.0, clock, windows.append)
            loop.switch(model)
            device = back.device(name, site, running_model="quarters", last_seen=NOW)
            agents[name] = (device, camera, loop)
        server = Clock()
        app, parts = back.application(server, drift_past=PAST)
        for second in range(1, USUAL + AFTER + 1):
            clock.now, server.now = float(second), NOW + second
            for name, (device, camera, loop) in agents.items():
                camera.turned = second > USUAL and WHERE[name] == "north"
                loop.turn()
                window = windows.pop().filled.window()
                put(back, arrived(device, window, at=server.now, wall=server.now))
            parts.controls.tick(server.now)
            if second == USUAL:
                assert back.store.open_alerts() == []
        http = TestClient(app, headers={"authorization": f"Bearer {back.keyring.admin_token}"})
        http.cookies.set("edge_session", parts.guard.open_session("console"))
        yield http, window


def test_cameras_that_hang_upside_down_are_told_as_novel_though_no_channel_alone_moved(told):
    http, window = told
    assert window.channels[NOVELTY].rows == ROWS
    [alert] = http.get("/api/v1/alerts").json()["items"]
    assert (alert["kind"], alert["scope"]) == ("novelty", "quarters site=north")
    assert (alert["devices"], alert["of"]) == (2, 2)
    assert alert["channels"][0] == NOVELTY
    assert not [name for name in alert["channels"][1:] if name.startswith("input.")]
    assert "inputs taken together: novelty rose" in alert["title"]
    assert "ask for samples there" in alert["action"]
    rows = http.get("/api/v1/drift/quarters/devices", params={"limit": 3}).json()
    assert [(row["device"], row["alarmed"]) for row in rows["items"]] == [
        ("north-0", True),
        ("north-1", True),
        ("south-0", False),
    ]
    report = http.get("/api/v1/drift/quarters").json()
    assert (rows["next"], report["followed"], report["stand_out"]) == ("south-0", 4, 2)
    _pages_tell_of_it(http)
    http.cookies.clear()
    assert http.post("/api/v1/devices/north-0/forget").status_code == 200
    left = http.get("/api/v1/drift/quarters/devices").json()["items"]
    assert [row["device"] for row in left] == ["north-1", "south-0", "south-1"]


def _pages_tell_of_it(http):
    for page in ("/alerts", "/drift/quarters"):
        shown = http.get(page).text
        assert "novelty at site north" in shown, page
        assert "ask for samples there" in shown, page
