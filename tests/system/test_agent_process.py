"""The agent as a process: killed at a bad moment, stopped politely, many in one."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections import defaultdict
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from device_agent.cli import agent as agent_command
from device_agent.cli import simulate
from edge_sdk import messages
from edge_sdk.errors import InvalidInputError
from tests.agent_world import BOARD, FleetServer, eventually, rows, tiny_bundle

pytestmark = pytest.mark.system
DEVICE = "dev-1"


@pytest.fixture
def fleet():
    with FleetServer() as found:
        yield found


@pytest.fixture
def folder(tmp_path, fleet):
    """A folder with data, a profile and agent.toml."""
    np.savez(tmp_path / "x.npz", x=rows())
    profile = msgspec.to_builtins(BOARD)
    lines = [f"{k} = {json.dumps(v)}" for k, v in profile.items() if v is not None]
    (tmp_path / "test-board.toml").write_text("\n".join(lines))
    (tmp_path / "agent.toml").write_text(f"""
        [device]
        id = "{DEVICE}"
        profile = "test-board.toml"
        [link]
        server = "{fleet.url}"
        rate_limit_bytes = 3000
        [input]
        source = "npz:x.npz"
        rows_per_second = 100
        [telemetry]
        window_seconds = 0.1
        [trial]
        windows = 1
        [state]
        dir = "state"
        """)
    return tmp_path


@contextmanager
def process(fleet, *arguments: object):
    """`edge …` as a child; killed at the end if it still runs."""
    command = [sys.executable, "-c", "from edge_sdk.cli import main; main()", *map(str, arguments)]
    environment = {**os.environ, "EDGE_ENROL_TOKEN": str(fleet.token)}
    child = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        yield child
    finally:
        child.kill()
        child.communicate()


def test_an_agent_killed_in_a_download_goes_on_at_the_right_byte_and_confirms(fleet, folder):
    bundle = tiny_bundle(fleet.publisher)
    start = ("agent", "run", "--config", folder / "agent.toml")
    bundles = folder / "state" / "bundles"
    with process(fleet, *start) as child:
        eventually(lambda: fleet.last(DEVICE), "enrolled")
        order = fleet.order(DEVICE, bundle)
        part = bundles / f"{order.digest}.part"
        eventually(lambda: part.exists() and part.stat().st_size > 2000, "half of it")
        child.send_signal(signal.SIGKILL)
        child.wait(10)
    have = part.stat().st_size
    assert 2000 < have < len(bundle)
    config = folder / "agent.toml"
    config.write_text(config.read_text().replace("rate_limit_bytes = 3000", ""))
    with process(fleet, *start) as child:
        eventually(lambda: fleet.last(DEVICE).phase == "confirmed", "confirmed")
        child.send_signal(signal.SIGTERM)
        assert child.wait(10) == 0
    assert fleet.ranges == [0, have]
    report = fleet.last(DEVICE)
    assert report.resumed_at == have
    assert report.running == messages.Running("quarters", "1", order.digest)
    assert sorted(p.name for p in bundles.iterdir()) == [f"{order.digest}.edge"]


def test_status_says_what_runs_and_what_waits(fleet, folder):
    runner, config = CliRunner(), ["--config", str(folder / "agent.toml")]
    nothing = runner.invoke(agent_command, ["status", *config])
    assert isinstance(nothing.exception, InvalidInputError)
    with process(fleet, "agent", "run", *config) as child:
        eventually(lambda: fleet.last(DEVICE), "enrolled")
        fleet.order(DEVICE, tiny_bundle(fleet.publisher))
        eventually(lambda: fleet.last(DEVICE).phase == "confirmed", "confirmed")
        found = json.loads(runner.invoke(agent_command, ["status", *config, "--json"]).stdout)
        child.send_signal(signal.SIGTERM)
        assert child.wait(10) == 0
    assert found["device"] == DEVICE
    assert found["running"]["version"] == "1"
    assert (found["generation"], found["phase"]) == (1, "confirmed")
    words = runner.invoke(agent_command, ["status", *config]).stdout
    assert "running  quarters 1\norder    1: confirmed" in words


def test_a_wrong_token_exits_4_with_a_sentence(fleet, folder):
    wrong = msgspec.structs.replace(fleet.token, secret="1" * 40)
    fleet.token, right = wrong, fleet.token
    with process(fleet, "agent", "run", "--config", folder / "agent.toml") as child:
        fleet.token = right
        _, words = child.communicate(timeout=20)
    assert child.returncode == 4
    assert "edge: " in words
    assert "the token is unknown or used up" in words
    assert "Traceback" not in words
    assert "1" * 40 not in words


@contextmanager
def collector(monkeypatch):
    """What a collector of OpenTelemetry is told by processes begun meanwhile: spans by device."""
    told = defaultdict(list)

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self):
            request = ExportTraceServiceRequest()
            request.ParseFromString(self.rfile.read(int(self.headers["content-length"])))
            for span in (s for r in request.resource_spans for p in r.scope_spans for s in p.spans):
                known = {a.key: a.value.string_value for a in span.attributes}
                told[known.get("device")].append(span.name)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as server:
        place = f"http://127.0.0.1:{server.server_address[1]}"
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", place)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield told
        server.shutdown()


def test_simulated_devices_enrol_run_and_see_their_sites_sensor_fault(fleet, folder, monkeypatch):
    faults = folder / "faults.toml"
    with collector(monkeypatch) as told, process(
        fleet, "simulate", "--devices", 4, "--server", fleet.url, "--data", folder / "x.npz",
        "--profiles", folder / "test-board.toml", "--sites", "north,south",
        "--state-dir", folder / "sim", "--faults", faults, "--window", 0.2, "--duration", 60,
    ) as child:  # fmt: skip
        eventually(lambda: len(fleet.enrolled) == 4, "enrolled")
        site = {request.device: request.labels["site"] for request in fleet.enrolled}
        assert sorted(site) == ["sim-01", "sim-02", "sim-03", "sim-04"]
        for device in site:
            fleet.order(device, tiny_bundle(fleet.publisher))
        eventually(lambda: all(brightness(fleet, device) for device in site), "windows")
        before = {device: brightness(fleet, device) for device in site}
        faults.write_text('[[fault]]\nsite = "north"\ngain = 0.5\n')
        for device in site:
            dims = site[device] == "north"
            eventually(
                lambda d=device, dims=dims: (brightness(fleet, d) < 0.7 * before[d]) == dims,
                f"{device} at {site[device]}",
            )
        child.send_signal(signal.SIGINT)
        assert child.wait(20) == 0
        for device in site:
            assert "device: fetching" in told[device]


def brightness(fleet, device: str) -> float:
    """Mean of the device's last window; 0 while it has none."""
    windows = [w for w in fleet.bodies(device, messages.Window) if w.rows]
    return windows[-1].channels["input.brightness"].mean if windows else 0.0


def test_simulate_names_what_is_wrong(tmp_path):
    run = ["--devices", "1", "--server", "http://127.0.0.1:9", "--data", str(tmp_path / "x.npz")]
    runner = CliRunner()
    for more, says in (
        (["--profiles", "raspbery-pi-4"], "did you mean raspberry-pi-4?"),
        (["--window", "0"], "--window must be above zero"),
        (["--sites", ","], "--sites names nothing"),
        (["--name-prefix", "A/"], "--name-prefix"),
        ([], "x.npz"),
    ):
        error = runner.invoke(simulate, run + more).exception
        assert isinstance(error, InvalidInputError)
        assert says in str(error)


def test_the_agent_imports_nothing_of_the_host_or_the_web():
    code = "import sys, device_agent.agent, device_agent.cli; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    roots = {name.partition(".")[0] for name in found.stdout.split()}
    banned = {"tensorflow", "fastapi", "starlette", "uvicorn", "sqlalchemy", "jinja2", "httpx2"}
    assert not roots & banned
    assert "ai_edge_litert" not in roots  # only when a model is loaded
