"""`edge server init`: a server that can start, and the one link of its first administrator."""

import os
import signal
import stat
import sys

import pytest
from click.testing import CliRunner

from edge_sdk.errors import InvalidInputError
from edge_sdk.signing import SigningKey
from fleet_server.ca import open_ca
from fleet_server.cli.server import run, server
from fleet_server.cli.settings_file import read_settings, settings_text
from fleet_server.founding import FIRST_LINK_SECONDS, take_first_link
from fleet_server.guard import Guard
from fleet_server.store import Store
from tests.agent_world import SystemClock
from tests.databases import new_file
from tests.server_side import QUICK


@pytest.fixture
def set_up(tmp_path, monkeypatch):
    """Run `edge server init` on a folder; what it printed."""
    SigningKey.generate().save(tmp_path / "signing.key")
    monkeypatch.setenv("EDGE_SIGNING_KEY", str(tmp_path / "signing.key"))

    def init(folder, *names):
        options = [part for name in names for part in ("--name", name)]
        return CliRunner().invoke(server, ["init", "--data-dir", str(folder), *options])

    return init


def test_it_makes_what_a_start_needs_and_the_link_opens_once(tmp_path, database, set_up):
    data = tmp_path / "data"
    done = set_up(data, "fleet.lan", "192.0.2.7")
    assert done.exit_code == 0, done.output
    assert stat.S_IMODE((data / "keys").stat().st_mode) == 0o700
    assert open_ca(data / "keys", first=False).fingerprint in done.output
    assert (data / "keys" / "server.pem").exists()
    code = done.output.partition("https://fleet.lan:8080/login?code=")[2].strip()
    assert not any(code.encode() in p.read_bytes() for p in data.rglob("*") if p.is_file())
    with Store(database) as store:
        started(store, data)  # and killed before anybody came
        guard = started(store, data)
        assert not guard.accepts(f"not {code}")
        assert guard.accepts(code)
        assert not guard.accepts(code)
        assert not started(store, data).accepts(code)


def test_the_first_link_ends_within_a_day(tmp_path, database, set_up):
    data = tmp_path / "data"
    code = set_up(data, "fleet.lan").output.partition("/login?code=")[2].strip()
    with Store(database) as store:
        assert not started(store, data, later=FIRST_LINK_SECONDS).accepts(code)
        assert started(store, data).accepts(code)


@pytest.mark.parametrize("step", range(1, 40, 3))
def test_an_init_that_was_cut_off_can_be_run_again(tmp_path, set_up, step):
    """Killed before the n-th file takes its name; the same command then finishes the work."""
    data = tmp_path / "data"
    child = os.fork()
    if not child:
        kill_at_rename(step)
        set_up(data, "fleet.lan")
        os._exit(0)
    _, status = os.waitpid(child, 0)
    again = set_up(data, "fleet.lan")
    if status == 0:
        assert "has a server already" in str(again.exception)
        return
    assert os.WTERMSIG(status) == signal.SIGKILL
    assert again.exit_code == 0, again.exception
    code = again.output.partition("/login?code=")[2].strip()
    assert read_settings(data / "server.toml", run)["names"] == ["fleet.lan"]
    with Store(new_file(tmp_path)) as store:
        assert started(store, data).accepts(code)
    assert "has a server already" in str(set_up(data, "fleet.lan").exception)


def kill_at_rename(step):
    """SIGKILL this process where it would give a finished file its name for the n-th time."""
    seen = []

    def watch(event, _arguments):
        if event == "os.rename":
            seen.append(event)
            if len(seen) == step:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


def started(store, data, later=0.0):
    """The guard of a server that starts on this folder."""
    now = lambda: SystemClock().wall() + later  # noqa: E731
    link = lambda given: take_first_link(data / "keys", given, now())  # noqa: E731
    return Guard(store, "admin", now, QUICK, link)


def test_a_server_that_is_there_is_not_made_anew(tmp_path, set_up):
    data = tmp_path / "data"
    set_up(data, "fleet.lan")
    before = (data / "keys" / "ca.pem").read_bytes()
    again = set_up(data, "other.lan")
    assert isinstance(again.exception, InvalidInputError)
    assert "has a server already" in str(again.exception)
    assert (data / "keys" / "ca.pem").read_bytes() == before


def test_a_name_that_is_none_leaves_nothing_behind(tmp_path, set_up):
    done = set_up(tmp_path / "data", "not a name")
    assert "neither a host name nor an address" in str(done.exception)
    assert not (tmp_path / "data" / "server.toml").exists()


def test_the_file_says_what_the_command_line_does_not(tmp_path, set_up):
    data = tmp_path / "data"
    set_up(data, "fleet.lan")
    known = read_settings(data / "server.toml", run)
    assert known == {
        "host": "0.0.0.0",  # noqa: S104
        "port": 8080,
        "mqtt_port": 8883,
        "tls": True,
        "names": ["fleet.lan"],
    }
    context = run.make_context("run", ["--data-dir", str(data), "--port", "9000"])
    assert (context.params["port"], context.params["tls"]) == (9000, True)
    assert context.params["names"] == ("fleet.lan",)


@pytest.mark.parametrize(
    ("text", "words"),
    [("prot = 1", "did you mean port"), ("port =", "can't be read"), ("data-dir = 'x'", "unknown")],
)
def test_a_file_that_is_wrong_is_refused_with_the_key(tmp_path, text, words):
    (tmp_path / "server.toml").write_text(text)
    with pytest.raises(InvalidInputError, match=words):
        run.make_context("run", ["--data-dir", str(tmp_path)])


def test_settings_are_read_as_they_were_written(tmp_path):
    path = tmp_path / "server.toml"
    path.write_text(settings_text({"name": ['a"b\\c'], "port": 1, "tls": False, "host": "x"}))
    assert read_settings(path, run) == {
        "names": ['a"b\\c'], "port": 1, "tls": False, "host": "x",
    }  # fmt: skip
