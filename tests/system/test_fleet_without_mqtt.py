"""A real server and a device that can't reach it by MQTT, or at all: HTTP alone, a USB stick."""

import json
import re
import threading
import time

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

from device_agent.agent import Agent, Setup
from device_agent.by_hand import import_stick
from device_agent.config import DeviceConfig, LinkConfig
from device_agent.link import MqttLink
from device_agent.selftest import in_this_process
from device_agent.sources import NpzReplay, Paced
from edge_sdk.cli.benchmarks import benchmark
from edge_sdk.identity import Token
from edge_sdk.profiles import load_profile
from edge_sdk.signing import SigningKey
from fleet_server.cli.sticks import export_usb, import_usb
from tests.agent_world import SystemClock, config, eventually, rows, tiny_bundle
from tests.server_side import trusting_server

pytestmark = pytest.mark.system
PROFILE = "raspberry-pi-4"
PUBLISHER = SigningKey.generate()


@pytest.fixture(scope="module")
def server(new_database, tmp_path_factory):
    with trusting_server(tmp_path_factory.mktemp("server"), PUBLISHER, new_database) as running:
        yield running


def blocked(address, post, chance):
    """MQTT to a port where nobody listens."""
    return MqttLink(msgspec.structs.replace(address, port=9), post, chance)


@pytest.fixture
def device(server, tmp_path):
    """Its setup; MQTT is blocked for it."""
    np.savez(tmp_path / "x.npz", x=rows())
    with server.client() as client:
        token = Token.parse(client.new_enrolment_key().token)
    given = config(
        tmp_path,
        server.where.url,
        device=DeviceConfig(id="dev-1", profile=PROFILE),
        link=LinkConfig(server=server.where.url, http_after_seconds=0.2, poll_seconds=0.3),
    )
    return Setup(
        config=given,
        profile=load_profile(PROFILE),
        source=Paced(NpzReplay(rows(), 0), 200, time.monotonic),
        clock=SystemClock(),
        token=lambda: token,
        make_link=blocked,
        trial=in_this_process,
    )


def bring(server, version):
    with server.client() as client:
        client.publish(tiny_bundle(PUBLISHER, version=version, profile=PROFILE))
        client.create_rollout("quarters", version, {"name": "all-at-once"})


def promoted(server):
    with server.client() as client:
        return all(rollout.status == "promoted" for rollout in client.rollouts())


def row(server):
    with server.client() as client:
        return next((row for row in client.devices() if row.id == "dev-1"), None)


def measured_there(server):
    """What the device's own answers took, reported and timed when asked, while it works."""
    ask = ["--device", "dev-1", "--data-dir", str(server.data_dir)]
    told = CliRunner().invoke(benchmark, [*ask, "--json"])
    now = CliRunner().invoke(benchmark, [*ask, "--runs", "40"])
    assert (told.exit_code, now.exit_code) == (0, 0), told.output + now.output
    assert re.fullmatch(
        r"quarters 1 \([0-9a-f]{12}\) takes [\d.]+ ms p50, [\d.]+ ms p90 "
        r"\(40 answers, one after the other\)\n", now.stdout,
    )  # fmt: skip
    [one] = json.loads(told.stdout)
    assert (one["model"], one["version"]) == ("quarters", "1")
    assert one["rows"] >= one["windows"] > 0
    assert 0 < one["ms_p50"] <= one["ms_p90"] < 1000


def test_a_device_lives_on_http_alone_and_then_on_a_stick(server, device, tmp_path):
    stop = threading.Event()
    thread = threading.Thread(target=Agent(device).run, args=(stop,))
    thread.start()
    try:
        eventually(lambda: row(server), "enrolled")
        bring(server, "1")
        eventually(lambda: row(server).running == "1", "version 1 over HTTP")
        eventually(lambda: row(server).rows > 0, "telemetry over HTTP")
        eventually(lambda: promoted(server), "the rollout ends")
        measured_there(server)
    finally:
        stop.set()
        thread.join(20)
    bring(server, "2")
    eventually(lambda: row(server).wanted == "2", "ordered")
    stick, data = tmp_path / "usb", str(server.data_dir)
    made = CliRunner().invoke(
        export_usb, ["--out", str(stick), "--device", "dev-1", "--data-dir", data]
    )
    assert made.exit_code == 0, made.output
    link = msgspec.structs.replace(device.config.link, http_after_seconds=1e6)
    config_away = msgspec.structs.replace(device.config, link=link)
    away = msgspec.structs.replace(device, config=config_away)
    status, _ = import_stick(stick, device.config, Agent(away).run)
    assert (status.phase, status.running.version) == ("confirmed", "2")
    brought = CliRunner().invoke(import_usb, [str(stick), "--data-dir", data])
    assert " 0 refused" in brought.output, brought.output
    assert (row(server).running, row(server).phase) == ("2", "confirmed")
