"""What a device offers to its neighbours: the local API, and where its answers go."""

import json
import re
import shutil
import subprocess
import threading
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, HTTPServer

import msgspec
import numpy as np
import pytest
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from device_agent.config import ApiConfig, OutputConfig
from device_agent.inference import Inference
from device_agent.local_api import LocalApi
from device_agent.outputs import Outlets, State, check
from edge_sdk.errors import InvalidInputError
from edge_sdk.messages import Running
from tests.agent_world import (
    FleetServer,
    SystemClock,
    config,
    eventually,
    rows,
    running,
    tiny_bundle,
)
from tests.system.test_agent_inputs import free_port
from tests.unit.test_agent_window import Fixed, loop, model

pytestmark = pytest.mark.system


@pytest.fixture
def api():
    """A loop with a primary and a shadow behind a real socket; its source gives nothing."""
    inference, _, _ = loop(Fixed(rows(1)[0]))
    inference.switch(model("d1"))
    candidate = model("d2")
    running = msgspec.structs.replace(candidate.running, version="2")
    inference.accompany(msgspec.structs.replace(candidate, running=running))
    served = LocalApi("127.0.0.1", 0, inference, lambda: State(wanted="2"))
    served.start()
    yield served, inference
    served.stop()
    inference.accompany(None)


class Everything:
    """A watcher that hands on every answer."""

    wanted = True

    def __init__(self, see):
        self.see = see


def ask(api, path, body=None, host=None):
    url = f"http://127.0.0.1:{api.port}{path}"
    data = json.dumps(body).encode() if body is not None else None
    headers = {"Host": host} if host else {}
    request = urllib.request.Request(url, data, headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def infer_body(x):
    tensor = {"name": "x", "shape": list(x.shape), "datatype": "FP32", "data": x.ravel().tolist()}
    return {"id": "7", "inputs": [tensor]}


def test_health_metadata_and_versions_are_as_the_protocol_has_them(api):
    served, _ = api
    assert ask(served, "/v2/health/live") == (200, b'{"live":true}')
    assert ask(served, "/v2/health/ready")[0] == 200
    status, body = ask(served, "/v2/models/quarters")
    found = json.loads(body)
    assert (status, found["versions"]) == (200, ["1", "2"])
    assert found["inputs"][0]["shape"] == [-1, 8, 8, 1]
    assert ask(served, "/v2/models/quarters/versions/2/ready")[0] == 200
    assert ask(served, "/v2/models/quarters/versions/3")[0] == 404
    assert json.loads(ask(served, "/status")[1])["wanted"] == "2"


@pytest.mark.parametrize("version", ["", "/versions/1", "/versions/2"])
def test_a_version_answers_what_the_model_itself_answers(api, version):
    served, inference = api
    x = rows(3)
    status, body = ask(served, f"/v2/models/quarters{version}/infer", infer_body(x))
    found = json.loads(body)
    assert (status, found["id"]) == (200, "7")
    got = np.array(found["outputs"][0]["data"]).reshape(found["outputs"][0]["shape"])
    assert got == pytest.approx(model().interpreter.run_rows(x), abs=1e-6)
    assert found["model_version"] == (version[-1:] or "1")
    assert inference.totals.rows == (0 if version.endswith("2") else 3)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({}, "not an inference request"),
        ({"inputs": []}, "the model has one"),
        (infer_body(rows(1)[:, :4]), "is not rows of shape"),
        (infer_body(rows(1) * 99), "is not rows of shape"),
        ({"inputs": [{"name": "x", "shape": [1], "datatype": "X", "data": [1]}]}, "none of"),
        ({"inputs": [{"name": "x", "shape": [9], "datatype": "FP32", "data": ["a"]}]}, "input 'x'"),
    ],
)
def test_what_can_not_be_answered_is_refused_in_words(api, body, says):
    status, answer = ask(api[0], "/v2/models/quarters/infer", body)
    assert status == 400
    assert says in json.loads(answer)["error"]


def test_a_page_in_a_browser_can_not_reach_it_by_another_name(api):
    assert ask(api[0], "/status", host="evil.example:80")[0] == 403


def test_metrics_are_in_prometheus_text_format(api):
    served, _ = api
    ask(served, "/v2/models/quarters/infer", infer_body(rows(2)))
    text = ask(served, "/metrics")[1].decode()
    assert "\nedge_rows_total 2\n" in text
    assert 'role="shadow",model="quarters",version="2"' in text
    for line in text.splitlines():
        assert re.fullmatch(r"# (HELP|TYPE) .+|[a-z_]+(\{.+\})? [0-9.e+-]+", line), line


def test_a_port_that_is_taken_is_told():
    inference = Inference(Fixed(rows(1)[0]), 1.0, SystemClock.monotonic, print)
    with (
        HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as other,
        pytest.raises(InvalidInputError, match="can't be listened on"),
    ):
        LocalApi("127.0.0.1", other.server_port, inference, State)


def test_an_agent_serves_and_writes_its_answers(tmp_path):
    posted = []

    class Take(BaseHTTPRequestHandler):
        def do_POST(self):
            posted.extend(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    port, path = free_port(), tmp_path / "answers.jsonl"
    with FleetServer() as fleet, HTTPServer(("127.0.0.1", 0), Take) as taker:
        threading.Thread(target=taker.serve_forever, daemon=True).start()
        given = config(
            tmp_path,
            fleet.url,
            api=ApiConfig(port=port),
            output=OutputConfig(to=(f"file:{path}", f"http://127.0.0.1:{taker.server_port}/")),
        )
        with running(given, fleet.token):
            fleet.order("dev-1", tiny_bundle(fleet.publisher))
            eventually(lambda: posted and path.exists(), "answers arrive", 30)

            class At:
                pass

            At.port = port
            eventually(lambda: json.loads(ask(At, "/status")[1])["online"], "status", 30)
        taker.shutdown()
    first = json.loads(path.read_text().splitlines()[0])
    assert first["model"] == "quarters"
    assert first["label"] in ("top-left", "top-right", "bottom-left", "bottom-right")


def test_a_sink_that_is_away_loses_answers_counted_and_hurts_nobody(monkeypatch):
    monkeypatch.setattr("device_agent.outputs.ROOM", 8)
    outlets = Outlets([f"http://127.0.0.1:{free_port()}/"], "dev-1", SystemClock.wall)
    inference, clock, _ = loop(Fixed(rows(1)[0]))
    inference._watcher = Everything(outlets.put)
    inference.switch(model())
    for turn in range(1, 20):
        clock.now = turn
        inference.turn()
    eventually(lambda: outlets.trouble and outlets.dropped > 100, "told and counted", 30)
    outlets.close()


@pytest.mark.skipif(not shutil.which("mosquitto"), reason="no mosquitto on this machine")
def test_home_assistant_discovers_the_device_and_its_update(tmp_path):
    port, heard = free_port(), {}
    path = tmp_path / "mosquitto.conf"
    path.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\n")
    broker = subprocess.Popen(["mosquitto", "-c", str(path)], stderr=subprocess.DEVNULL)
    outlets = Outlets([f"homeassistant://127.0.0.1:{port}"], "pi-7", SystemClock.wall)
    assistant = Client(CallbackAPIVersion.VERSION2)
    assistant.on_connect = lambda c, *_: c.subscribe("#")
    assistant.on_message = lambda _c, _d, m: heard.__setitem__(m.topic, m.payload)
    assistant.connect_async("127.0.0.1", port)
    assistant.loop_start()
    try:
        outlets.tell(State(Running("quarters", "1", "d"), "2", under_way=True))
        update = "homeassistant/update/edge_pi_7/model/config"
        eventually(lambda: update in heard and "edge-agent/pi-7/update" in heard, "announced", 60)
        where = json.loads(heard[update])
        state = json.loads(heard[where["state_topic"]])
        assert state == {"installed_version": "1", "latest_version": "2", "in_progress": True}
        assert heard[where["availability_topic"]] == b"online"
        heard.clear()
        assistant.publish("homeassistant/status", "online")  # Home Assistant was started anew
        eventually(lambda: update in heard, "announced again", 30)
        outlets.close()
        eventually(lambda: heard.get("edge-agent/pi-7/availability") == b"offline", "goodbye", 30)
    finally:
        assistant.disconnect()
        assistant.loop_stop()
        broker.terminate()
        broker.wait(10)


@pytest.mark.parametrize("line", ["printer", "mqtt:", "stdout?all=1", "http://h/?every=often"])
def test_an_output_that_is_none_is_named(line):
    with pytest.raises(InvalidInputError, match="output"):
        check(line)
