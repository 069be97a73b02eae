"""What stands beside the code keeps to it: deployment files, documents, the fuzzer's corpus."""

import json
import random
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from edge_sdk.cli import edge
from edge_sdk.signing import SigningKey
from edge_sdk.topics import DOWNWARD, UPWARD, valid_device_id
from fleet_server.access import ROLES, SCOPES
from fleet_server.broker_config import SERVER_NAME, emqx_rules, mosquitto_rules
from fleet_server.cli.server import server
from fleet_server.metrics import Meters
from fleet_server.store import Store
from tests.fuzz_mqtt import check, corpus, fuzz

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("data", corpus())
def test_every_packet_of_the_corpus_is_read_or_refused_in_words(data):
    check(data, random.Random(1))  # noqa: S311


def test_a_second_of_fuzzing_finds_nothing():
    assert fuzz(1.0, seed=11) > 0


def options_of(command):
    return {name for option in server.commands[command].params for name in option.opts}


def test_the_services_of_compose_use_options_that_there_are():
    services = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text())["services"]
    for name in ("server", "worker"):
        command, *rest = services[name]["command"]
        given = {word for word in rest if word.startswith("--")}
        assert given <= options_of(command), name
    assert {"database", "broker"} <= set(services)
    lines = services["first"]["command"][0].splitlines()
    told = [line.split()[2] for line in lines if line.startswith("edge server ")]
    assert told == ["init", "broker-config"]
    for line in lines[1:]:
        given = {word for word in line.split() if word.startswith("--")}
        assert given <= options_of(line.split()[2]), line


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
@pytest.mark.parametrize("unit", ["edge-server.service", "edge-agent.service"])
def test_systemd_takes_the_units_without_a_complaint(unit, tmp_path):
    text = (ROOT / "deploy" / unit).read_text()
    (tmp_path / unit).write_text(
        re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", text, flags=re.MULTILINE)
    )
    done = subprocess.run(
        ["systemd-analyze", "verify", str(tmp_path / unit)], capture_output=True, text=True
    )
    about_us = [line for line in done.stderr.splitlines() if unit in line]
    assert (done.returncode, about_us) == (0, [])


def test_the_service_file_starts_the_server_with_options_that_there_are():
    text = (ROOT / "deploy/edge-server.service").read_text()
    [line] = re.findall(
        r"^ExecStart=.* edge server run(.*)$|^ExecStart=\S+ server run (.*)$", text, re.MULTILINE
    )
    given = {word for word in " ".join(line).split() if word.startswith("--")}
    assert given
    assert given <= options_of("run")


def test_the_dashboard_draws_figures_that_there_are(database):
    with Store(database) as store:
        meters = Meters()
        meters.watch(store)
        told = meters.text().decode()
    dashboard = json.loads((ROOT / "deploy/grafana/edge-fleet.json").read_text())
    named = {
        name
        for panel in dashboard["panels"]
        for target in panel["targets"]
        for name in re.findall(r"edge_\w+", target["expr"])
    }
    assert named
    for name in named:
        assert name in told, name


def test_the_table_of_roles_is_the_one_that_holds():
    rows = re.findall(
        r"^\| `(\w+)` \|[^|]*\|(.*)\|$", (ROOT / "docs/access.md").read_text(), re.MULTILINE
    )
    assert tuple(scope for scope, _ in rows) == SCOPES
    for scope, cells in rows:
        allowed = [cell.strip() == "yes" for cell in cells.split("|")]
        assert allowed == [scope in scopes for scopes in ROLES.values()], scope


def test_a_brokers_rules_give_a_device_its_own_topics_and_no_device_can_be_the_server():
    for rules, own in ((mosquitto_rules(), "%u"), (emqx_rules(), "${username}")):
        for kind in (*UPWARD, *DOWNWARD):
            assert f"edge/1/{own}/{kind}" in rules
        assert "#" not in rules.replace("edge/1/#", "").replace("# %u", "")
    assert not valid_device_id(SERVER_NAME)


def test_emqx_opens_no_port_on_which_a_client_may_claim_a_name(tmp_path):
    SigningKey.generate().save(tmp_path / "signing.key")
    for words in (
        ["init", "--publisher", tmp_path / "signing.pub"],
        ["broker-config", "emqx", "--out", tmp_path / "emqx"],
    ):
        given = ["server", *words, "--data-dir", tmp_path / "data", "--name", "fleet.lan"]
        made = CliRunner().invoke(edge, [str(word) for word in given])
        assert made.exit_code == 0, made.output
    said = (tmp_path / "emqx" / "emqx.conf").read_text()
    for kind in ("tcp", "ws"):  # those that it has by itself
        assert f"listeners.{kind}.default.enable = false\n" in said
    assert said.count("fail_if_no_peer_cert = true") == said.count("bind = ") == 2
