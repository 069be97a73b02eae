"""One process from start to stop, and the operator's commands against it."""

import json
import re
import signal
import socket

import httpx2
import pytest

from edge_sdk.cli import main
from edge_sdk.signing import SigningKey
from fleet_server.data_dir import Running, announce, read_admin_token
from tests.bundles import make_bundle
from tests.server_side import join, server_process, until

pytestmark = pytest.mark.system

KEY = SigningKey.generate()


@pytest.fixture(scope="module")
def home(new_database, tmp_path_factory):
    """A user's folders, other ones with each database, with a key as `edge convert` makes it."""
    home = tmp_path_factory.mktemp("home")
    KEY.save(home / "config" / "edge" / "signing.key")
    (home / "good.edge").write_bytes(make_bundle(KEY))
    (home / "bad.edge").write_bytes(make_bundle(SigningKey.generate(), version="2"))
    return home


@pytest.fixture(autouse=True, scope="module")
def _environment(home):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(home / "config"))
        patch.setenv("XDG_DATA_HOME", str(home / "data"))
        for name in ("EDGE_TOKEN", "EDGE_SERVER", "EDGE_DATA_DIR", "EDGE_SIGNING_KEY"):
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(scope="module")
def server(new_database, home):
    data = home / "data" / "edge-server"
    with new_database(home) as database, server_process(data, database=database) as running:
        yield running


@pytest.fixture
def edge(capsys):
    """Run a command as a user does; exit code, what it printed, what it said."""

    def run(*arguments):
        with pytest.raises(SystemExit) as ended:
            main(list(arguments))
        printed = capsys.readouterr()
        assert "Traceback" not in printed.err
        return ended.value.code, printed.out, printed.err

    return run


def test_the_start_prints_a_link_that_opens_the_page(server):
    until(lambda: "Ctrl-C stops" in server.output)
    assert read_admin_token(server.data_dir) not in server.output
    [link] = re.findall(r"http\S+/login\S+", server.output)
    assert str(server.where.mqtt_port) in server.output
    with httpx2.Client(follow_redirects=True) as browser:
        assert "first administrator" in browser.get(link).text
        page = browser.get(f"{server.where.url}/")
        assert page.status_code == 200
        assert "No device has joined yet" in page.text
    assert httpx2.get(f"{server.where.url}/").status_code == 401


def test_without_a_clue_the_commands_find_the_local_server(server, edge):
    assert edge("device", "list")[0] == 0
    code, printed, _ = edge("device", "list", "--json")
    assert (code, json.loads(printed)) == (0, [])


def test_publishing_says_what_was_taken_and_what_was_not(server, edge, home):
    code, printed, _ = edge("publish", str(home / "good.edge"))
    assert code == 0
    assert printed.startswith("published digits 1 for raspberry-pi-4")
    code, _, said = edge("publish", str(home / "good.edge"), str(home / "bad.edge"))
    assert code == 3
    assert f"{home / 'bad.edge'} was not published: the signature does not hold" in said
    assert edge("publish", str(home / "nothing.edge"))[0] == 2
    assert "digits  1        raspberry-pi-4" in edge("model", "list")[1]


def test_a_rollout_from_the_command_line(server, edge, home):
    edge("publish", str(home / "good.edge"))
    code, _, said = edge("rollout", "create", "digits", "1")
    assert code == 2
    assert "no enrolled device" in said
    token = edge("enroll", "key", "new", "--uses", "2", "--note", "bench")[1].strip()
    with httpx2.Client(base_url=server.where.url) as http:
        join(http, token, "pi-1")
    create = ("rollout", "create", "digits", "1", "--strategy", "all-at-once")
    code, printed, said = edge(*create, "--json")
    assert code == 0, said
    made = json.loads(printed)
    assert (made["strategy"], made["total"]) == ("all-at-once", 1)
    assert made["id"] in edge("rollout", "list")[1]
    assert "everyone, 1 devices" in edge("rollout", "show", made["id"])[1]
    assert edge(*create)[0] == 2
    assert edge("rollout", "abort", made["id"])[0] == 0
    code, printed, _ = edge("rollout", "watch", made["id"], "--json")
    assert code == 3
    assert json.loads(printed)["status"] == "aborted"
    assert "abort (everyone): by console" in edge("rollout", "show", made["id"])[1]
    assert edge("rollout", "create", "digits", "1", "--strategy", "yolo")[0] == 2


def test_what_is_not_there_is_a_mistake_of_the_caller(server, edge):
    for command in (("rollout", "show", "r9"), ("rollout", "abort", "r9"), ("alert", "ack", "a9")):
        code, _, said = edge(*command)
        assert code == 2
        assert "there is no" in said
    assert edge("alert", "list")[0] == 0


def test_wrong_tokens_and_absent_servers_end_with_four(server, edge, monkeypatch):
    monkeypatch.setenv("EDGE_TOKEN", "wrong")
    code, _, said = edge("device", "list")
    assert code == 4
    assert "the token is wrong" in said
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{unused.getsockname()[1]}"
        code, _, said = edge("device", "list", "--server", nobody)
    assert code == 4
    assert "can't be reached" in said
    assert edge("device", "list", "--server", "localhost:80")[0] == 2


def test_the_local_token_is_not_sent_to_an_address_given_by_hand(server, edge):
    code, _, said = edge("device", "list", "--server", "http://127.0.0.1:9")
    assert code == 2
    assert "you are not logged in at http://127.0.0.1:9" in said


def test_one_data_folder_has_one_server(server, edge):
    code, _, said = edge("server", "run", "--port", "0", "--data-dir", str(server.data_dir))
    assert code == 1
    assert "another server runs on" in said


def test_taken_ports_are_said_and_leave_no_server_behind(server, edge, tmp_path):
    http, mqtt = str(server.where.port), str(server.where.mqtt_port)
    for ports in (("--port", http, "--mqtt-port", "0"), ("--port", "0", "--mqtt-port", mqtt)):
        code, _, said = edge("server", "run", *ports, "--data-dir", str(tmp_path))
        assert code == 1
        assert "in use" in said
    assert not (tmp_path / "server.json").exists()


def test_nobody_to_trust_is_said(edge, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    code, _, said = edge("server", "run", "--port", "0", "--data-dir", str(tmp_path / "data"))
    assert code == 2
    assert "edge keys new" in said
    assert not (tmp_path / "data" / "keys").exists()


def test_ctrl_c_stops_it_even_while_a_page_listens(tmp_path):
    KEY.save(tmp_path / "signing.key")
    data = tmp_path / "data"
    data.mkdir()
    left_by_a_kill = Running(host="127.0.0.1", port=1, mqtt_port=2, pid=999_999_999)
    announce(data, left_by_a_kill)
    with server_process(data, "--publisher", str(tmp_path / "signing.pub")) as server:
        assert server.where != left_by_a_kill
        with httpx2.Client(follow_redirects=True) as browser:
            with server.client() as client:
                browser.get(client.new_login_link())
            with browser.stream("GET", f"{server.where.url}/events") as events:
                assert next(events.iter_lines())
                server.process.send_signal(signal.SIGINT)
                assert server.process.wait(15) == 0
        assert "Traceback" not in server.output
        assert not (data / "server.json").exists()


def test_other_publishers_void_the_tokens_made_before(tmp_path, database):
    other = SigningKey.generate()
    KEY.save(tmp_path / "signing.key")
    other.save(tmp_path / "other.key")
    data, one, two = (tmp_path / name for name in ("data", "signing.pub", "other.pub"))
    with server_process(data, "--publisher", str(one), database=database) as first:
        with first.client() as fleet:
            token = fleet.new_enrolment_key(uses=9).token
        first.stop()
    with server_process(data, "--publisher", str(two), database=database) as second:
        until(lambda: "are void" in second.output)
        http = httpx2.Client(base_url=second.where.url)
        with http, pytest.raises(AssertionError, match="used up"):
            join(http, token, "pi-1")
        with second.client() as fleet:
            assert fleet.devices() == []
            assert fleet.publish(make_bundle(other)).version == "1"
