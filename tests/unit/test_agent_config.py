"""The agent's TOML: read strictly, errors that name the key."""

from pathlib import Path

import pytest

from device_agent.config import EnrolConfig, load_config, read_token
from device_agent.endpoint import Endpoint
from edge_sdk.errors import InvalidInputError
from edge_sdk.identity import Token

EXAMPLE = Path(__file__).parents[2] / "examples" / "agent.toml"
LEAST = """
device = { profile = "raspberry-pi-4" }
link = { server = "http://127.0.0.1:1" }
input = { source = "npz:x.npz" }
state = { dir = "state" }
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "agent.toml"
    path.write_text(text)
    return path


def test_the_example_is_valid():
    config = load_config(EXAMPLE)
    assert config.device.labels == {"site": "north"}
    assert config.trial.windows == 3


def test_relative_paths_start_at_the_files_folder(tmp_path):
    config = load_config(written(tmp_path, LEAST))
    assert config.state.dir == tmp_path / "state"
    assert config.input.source == f"npz:{tmp_path / 'x.npz'}"


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ("[telemetry]\nwindow_second = 1", "did you mean window_seconds?"),
        ("[telemetri]\nx = 1", "unknown section 'telemetri'"),
        ("[trial]\nwindows = 0", "[trial] windows must be above zero, not 0"),
        ("[trial]\nwindows = 'x'", "Expected `int`, got `str` - at `$.trial.windows`"),
        ("[trial]\nmax_error_share = 1.5", "between 0 and 1"),
        ("[telemetry]\nwindow_seconds = nan", "window_seconds must be above zero"),
        ("[update]\nwindow = '2-4'", "[update] window '2-4' must look like 02:00-04:00"),
        ("[enrol", "agent.toml"),
    ],
)
def test_a_mistake_is_named(tmp_path, more, says):
    with pytest.raises(InvalidInputError) as caught:
        load_config(written(tmp_path, LEAST + more))
    assert says in str(caught.value)


def test_a_missing_key_or_file_is_named(tmp_path):
    with pytest.raises(InvalidInputError, match="missing required field `state`"):
        load_config(written(tmp_path, LEAST.replace('state = { dir = "state" }', "")))
    with pytest.raises(InvalidInputError, match=r"nowhere\.toml can't be read"):
        load_config(tmp_path / "nowhere.toml")


def test_a_device_id_that_can_not_stand_in_a_topic_is_refused(tmp_path):
    text = LEAST.replace('profile = "raspberry-pi-4"', 'profile = "p", id = "a/#"')
    with pytest.raises(InvalidInputError, match="lower-case letters"):
        load_config(written(tmp_path, text))


def test_the_token_comes_from_the_environment_or_a_file(tmp_path, monkeypatch):
    token = Token.new(b"trust")
    monkeypatch.delenv("EDGE_ENROL_TOKEN", raising=False)
    with pytest.raises(InvalidInputError, match="EDGE_ENROL_TOKEN"):
        read_token(EnrolConfig())
    (tmp_path / "token").write_text(f"{token}\n")
    assert read_token(EnrolConfig(token_file=tmp_path / "token")) == token
    monkeypatch.setenv("EDGE_ENROL_TOKEN", str(token))
    assert read_token(EnrolConfig()) == token


@pytest.mark.parametrize("url", ["host:80", "ftp://host", "http://", "http://h:x", ""])
def test_a_server_address_must_be_http(url):
    with pytest.raises(InvalidInputError):
        Endpoint.parse(url)


def test_a_server_address_may_have_a_prefix_and_no_port():
    assert str(Endpoint.parse("https://fleet.example/edge/")) == "https://fleet.example:443/edge"


@pytest.mark.parametrize("source", ["x.npz", "tape:x", "npz:", "serial"])
def test_a_source_that_is_none_is_named_with_what_there_is(tmp_path, source):
    text = LEAST.replace("npz:x.npz", source)
    with pytest.raises(InvalidInputError, match=r"\[input\] source .* one of board, camera"):
        load_config(written(tmp_path, text))
