"""What `edge agent install` would do, and the unit it writes."""

from pathlib import Path

import msgspec
import pytest

from device_agent.config import EnrolConfig, StateConfig
from device_agent.install import (
    Run,
    Service,
    Write,
    carry_out,
    plan,
    reasons_to_refuse,
    unit_text,
)
from edge_sdk.errors import EdgeError
from tests.agent_world import config

USUAL = Service(
    folder=Path("/opt/edge-agent"),
    user="edge-agent",
    config=Path("/etc/edge-agent/agent.toml"),
    state=Path("/var/lib/edge-agent"),
    python=Path("/usr/bin/python3"),
)


def a_config(**changes):
    found = config(Path("/etc/edge-agent"), "https://fleet.lan:8443")
    return msgspec.structs.replace(found, state=StateConfig(dir=USUAL.state), **changes)


def test_the_unit_for_the_usual_places_is_the_one_in_deploy():
    deployed = Path(__file__).parents[2] / "deploy" / "edge-agent.service"
    assert deployed.read_text() == unit_text(USUAL)


def test_a_state_folder_elsewhere_is_opened_for_writing_and_given_to_the_user():
    service = msgspec.structs.replace(USUAL, state=Path("/data/edge state"))
    assert "ReadWritePaths=/data/edge\\x20state\n" in unit_text(service)
    assert "StateDirectory=" not in unit_text(service)
    deeds = plan(a_config(), service, "x", user_known=True, systemd=False)
    assert Run(("chown", "-R", "edge-agent:", "/data/edge state")) in deeds


def test_odd_characters_in_a_path_reach_the_program_as_they_are():
    service = msgspec.structs.replace(USUAL, config=Path('/etc/50% of "x" $HOME/a.toml'))
    assert '"/etc/50%% of \\"x\\" $$HOME/a.toml"' in unit_text(service)


def test_the_plan_makes_the_user_only_if_there_is_none_and_starts_only_where_systemd_runs():
    token = a_config(enrol=EnrolConfig(token_file=Path("/etc/edge-agent/token")))
    words = [str(d) for d in plan(token, USUAL, "x[agent]", user_known=False, systemd=True)]
    assert words[0].startswith("useradd --system")
    assert "chmod 400 /etc/edge-agent/token" in words
    assert words[-2:] == [
        "systemctl enable edge-agent.service",
        "systemctl restart edge-agent.service",
    ]
    fewer = [str(d) for d in plan(a_config(), USUAL, "x[agent]", user_known=True, systemd=False)]
    assert not any(line.startswith(("useradd", "systemctl", "chmod")) for line in fewer)


def test_a_wheel_is_installed_with_the_agents_extra(tmp_path):
    wheel = tmp_path / "edge.whl"
    wheel.touch()
    [pip] = [
        deed.argv
        for deed in plan(a_config(), USUAL, str(wheel), user_known=True, systemd=False)
        if isinstance(deed, Run) and "pip" in deed.argv
    ]
    assert pip[-1] == f"{wheel}[agent]"


@pytest.mark.parametrize(
    ("service", "words"),
    [
        ({"config": Path("/home/pi/agent.toml")}, "the config /home/pi/agent.toml is in a place"),
        ({"config": Path("/etc/../root/agent.toml")}, "is in a place"),
        ({"folder": Path("/tmp/agent")}, "--dir /tmp/agent"),  # noqa: S108 - refused
        ({"python": Path("/root/.pyenv/bin/python3")}, "--python"),
        ({"user": "root"}, "does not run as root"),
    ],
)
def test_what_could_not_start_is_refused_in_words(service, words):
    assert reasons_to_refuse(a_config(), USUAL) == []
    [reason] = reasons_to_refuse(a_config(), msgspec.structs.replace(USUAL, **service))
    assert words in reason


def test_a_token_or_profile_that_the_service_does_not_see_is_refused_too():
    device = msgspec.structs.replace(a_config().device, profile="/home/pi/board.toml")
    given = a_config(device=device, enrol=EnrolConfig(token_file=Path("/root/token")))
    token, profile = reasons_to_refuse(given, USUAL)
    assert "token_file" in token
    assert "board.toml" in profile


def test_an_installation_that_fails_stops_there_and_says_where(tmp_path):
    told = []
    written = Write(tmp_path / "late.service", "x")
    for bad in (Run(("false",)), Run(("no-such-program",))):
        with pytest.raises(EdgeError):
            carry_out([Run(("true",)), bad, written], told.append)
    assert not written.path.exists()
