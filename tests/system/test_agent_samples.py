"""A command travels down, rows travel up, and the ledger on the device tells what left."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from device_agent.config import LinkConfig, SamplesConfig
from device_agent.ledger import egress
from edge_sdk import messages
from edge_sdk.cli import edge
from edge_sdk.signing import SigningKey
from tests.agent_world import FleetServer, config, eventually, running, tiny_bundle

pytestmark = pytest.mark.system
DEVICE = "dev-1"


def wish(fleet, number, **changes):
    asked = messages.SampleRequest(policy="random", quota=3, until=1e11, **changes)
    command = messages.Command(device=DEVICE, number=number, issued=0.0, samples=asked)
    return messages.sign_command(command, fleet.director)


def timing(fleet, number, *, since=0):
    command = messages.Command(
        device=DEVICE, number=number, issued=0.0, measure=2, measure_since=since
    )
    return messages.sign_command(command, fleet.director)


def measured(fleet):
    return [one.detail for one in fleet.bodies(DEVICE, messages.Event) if one.name == "measured"]


def test_rows_are_sent_as_asked_and_allowed_and_the_ledger_tells_of_each(tmp_path):
    consent = SamplesConfig(models=("quarters",), raw=True, transforms=("crop 0 0 4 4",))
    with FleetServer() as fleet:
        given = config(tmp_path, fleet.url, samples=consent)
        with running(given, fleet.token):
            fleet.order(DEVICE, tiny_bundle(fleet.publisher))
            eventually(lambda: fleet.bodies(DEVICE, messages.Window), "windows", 30)
            fleet.command(DEVICE, wish(fleet, 1))
            eventually(lambda: len(fleet.bodies(DEVICE, messages.Sample)) == 3, "samples", 30)
            fleet.command(DEVICE, wish(fleet, 1))  # once more, as after a lost connection
            before = len(fleet.bodies(DEVICE, messages.Window))
            eventually(
                lambda: len(fleet.bodies(DEVICE, messages.Window)) > before + 3, "more windows", 30
            )
        samples = fleet.bodies(DEVICE, messages.Sample)
        assert len(samples) == 3
        for sample in samples:
            assert (sample.command, sample.policy, sample.shape) == (1, "random", (4, 4, 1))
            assert len(np.frombuffer(sample.data, sample.dtype)) == 16
    days, ledger = egress(given.state.dir / "outbox.sqlite")
    assert {one.id for one in ledger} == {sample.id for sample in samples}
    kinds = {day.kind: day for day in days}
    assert {"telemetry", "report", "sample"} <= kinds.keys()
    assert kinds["sample"].messages >= 3
    assert kinds["sample"].bytes > 3 * 64


def test_a_command_reaches_a_device_without_mqtt(tmp_path):
    with FleetServer() as fleet:
        link = LinkConfig(server=fleet.url, http_after_seconds=0.3, poll_seconds=0.2)
        consent = SamplesConfig(models=("quarters",))
        given = config(tmp_path, fleet.url, samples=consent, link=link)
        fleet.commands[DEVICE] = wish(fleet, 1)
        fleet.stop_mqtt()
        with running(given, fleet.token):
            eventually(lambda: fleet.last(DEVICE), "first report", 30)
            fleet.order(DEVICE, tiny_bundle(fleet.publisher))
            eventually(lambda: len(fleet.bodies(DEVICE, messages.Sample)) == 3, "samples", 60)
            for number in (3, 4):  # it was away when 2 asked for it, the later ones repeat it
                fleet.commands[DEVICE] = timing(fleet, number, since=2)
                eventually(lambda: measured(fleet), "an answer", 60)
            fleet.commands[DEVICE] = timing(fleet, 5)
            eventually(lambda: len(measured(fleet)) > 1, "another", 60)
        assert [words.partition(":")[0] for words in measured(fleet)] == ["command 2", "command 5"]
        assert {one.data for one in fleet.bodies(DEVICE, messages.Sample)} == {b""}


def test_a_forged_command_sends_nothing(tmp_path):
    with FleetServer() as fleet:
        given = config(tmp_path, fleet.url, samples=SamplesConfig(models=("quarters",), raw=True))
        with running(given, fleet.token):
            fleet.order(DEVICE, tiny_bundle(fleet.publisher))
            eventually(lambda: fleet.bodies(DEVICE, messages.Window), "windows", 30)
            command = messages.Command(
                device=DEVICE, number=9, issued=0.0,
                samples=messages.SampleRequest(policy="random", quota=3, until=1e11),
            )  # fmt: skip
            fleet.command(DEVICE, messages.sign_command(command, SigningKey.generate()))

            def refused():
                names = [event.name for event in fleet.bodies(DEVICE, messages.Event)]
                return "command-refused" in names

            eventually(refused, "it is told", 30)
        assert fleet.bodies(DEVICE, messages.Sample) == []


def test_the_command_line_shows_what_left(tmp_path):
    (tmp_path / "agent.toml").write_text(
        '[device]\nprofile = "raspberry-pi-4"\n[link]\nserver = "http://127.0.0.1:1"\n'
        '[input]\nsource = "npz:x.npz"\n[state]\ndir = "state"\n'
    )
    arguments = ["agent", "egress", "--config", str(tmp_path / "agent.toml")]
    said = CliRunner().invoke(edge, arguments, catch_exceptions=False)
    assert "nothing left this device yet" in said.stdout
    with FleetServer() as fleet, running(config(tmp_path, fleet.url), fleet.token):
        eventually(lambda: fleet.last(DEVICE), "a report", 30)
    said = CliRunner().invoke(edge, arguments, catch_exceptions=False)
    assert "report" in said.stdout
    said = CliRunner().invoke(edge, [*arguments, "--json"], catch_exceptions=False)
    assert json.loads(said.stdout.splitlines()[0])["bytes"] > 0
