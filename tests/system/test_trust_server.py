"""A real server keeps its own repository, and `edge trust` looks after it."""

import json
import os

import httpx2
import pytest

from edge_sdk.cli import main
from edge_sdk.errors import RefusedError
from edge_sdk.files import sha256
from edge_sdk.signed_time import open_time
from edge_sdk.signing import SigningKey
from tests.bundles import make_bundle
from tests.server_side import join, server_process, trusting_server, until

pytestmark = pytest.mark.system
KEY = SigningKey.generate()


@pytest.fixture(scope="module")
def server(new_database, tmp_path_factory):
    with trusting_server(tmp_path_factory.mktemp("server"), KEY, new_database) as running:
        yield running


@pytest.fixture(scope="module")
def operator(server):
    with server.client() as client:
        yield client


@pytest.fixture(scope="module")
def device(server, operator):
    """An enrolled device's HTTP client, and whom it trusts."""
    token = operator.new_enrolment_key(uses=1, hours=1, note="").token
    with httpx2.Client(base_url=server.where.url) as http:
        found, trust, _ = join(http, token, "pi-1")
        http.headers["Authorization"] = f"Bearer pi-1:{found.secrets.http_token}"
        yield http, trust


@pytest.fixture
def edge(server, capsys):
    def run(*words):
        places = ["--dir", server.data_dir / "trust", "--keys", server.data_dir / "keys"]
        with pytest.raises(SystemExit) as ended:
            main(["trust", *words, *map(str, places)])
        printed = capsys.readouterr()
        assert "Traceback" not in printed.err
        return ended.value.code, printed.out, printed.err

    return run


def test_the_token_pins_the_root_that_the_server_gives(server, device):
    http, trust = device
    root = http.get("/device/v1/tuf/metadata/1.root.json")
    assert sha256(root.content) == trust.root
    assert "immutable" in root.headers["cache-control"]
    until(lambda: "move root.pem" in server.output)


def test_a_published_bundle_is_a_target_under_its_digest(operator, device):
    http, _ = device
    data = make_bundle(KEY)
    row = operator.publish(data)
    path = f"raspberry-pi-4/{row.digest}.digits-1-raspberry-pi-4.edge"
    assert http.get(f"/device/v1/tuf/targets/{path}").content == data
    timestamp = http.get("/device/v1/tuf/metadata/timestamp.json")
    assert timestamp.headers["cache-control"] == "no-cache"
    assert timestamp.json()["signed"]["_type"] == "timestamp"


@pytest.mark.parametrize(
    "path",
    [
        "metadata/9.root.json",
        "metadata/..%2f..%2fkeys%2froot.pem",
        "metadata/.lock",
        "targets/raspberry-pi-4/x.edge",
        "targets/..%2fmetadata%2ftimestamp.json",
    ],
)
def test_nothing_else_is_served(device, path):
    http, _ = device
    assert http.get(f"/device/v1/tuf/{path}").status_code == 404


def test_a_stranger_gets_neither_models_nor_the_time(server):
    for path in ("tuf/metadata/timestamp.json", "time?nonce=a"):
        assert httpx2.get(f"{server.where.url}/device/v1/{path}").status_code == 401


def test_the_time_is_signed_for_the_question(device):
    http, trust = device
    answer = http.get("/device/v1/time", params={"nonce": "abc"})
    assert open_time(answer.content, "abc", trust.director_key) > 1_700_000_000
    assert http.get("/device/v1/time", params={"nonce": "a b"}).status_code == 400


def test_a_new_profile_is_refused_while_the_targets_key_is_away(server, operator):
    key = server.data_dir / "keys" / "targets.pem"
    away = key.with_suffix(".away")
    key.rename(away)
    try:
        with pytest.raises(RefusedError, match="edge trust delegate coral-usb"):
            operator.publish(make_bundle(KEY, version="7", profile="coral-usb"))
    finally:
        away.rename(key)
    assert operator.publish(make_bundle(KEY, version="7", profile="coral-usb")).version


def test_status_rotate_and_withdraw_work_beside_the_running_server(operator, device, edge):
    operator.publish(make_bundle(KEY, version="8"))
    code, out, _ = edge("status")
    assert code == 0
    assert "profile-raspberry-pi-4" in out
    assert edge("rotate", "timestamp")[:2] == (0, "root is published\n")
    assert edge("withdraw", "digits", "8")[:2] == (
        0,
        "withdrawn raspberry-pi-4/digits-8-raspberry-pi-4.edge\n",
    )
    assert edge("withdraw", "digits", "8")[0] == 2
    assert device[0].get("/device/v1/tuf/metadata/2.root.json").status_code == 200
    code, out, _ = edge("status", "--json")
    assert {row["role"]: row["version"] for row in json.loads(out)}["root"] == 2
    code, _, said = edge("rotate", "nobody")
    assert code == 2
    assert "there is no role" in said


def test_status_ends_with_3_when_something_has_expired(edge, server, tmp_path, monkeypatch):
    monkeypatch.setattr("fleet_server.cli.trust._now", lambda: 4_000_000_000.0)
    code, out, said = edge("status")
    assert code == 3
    assert "expired" in out
    assert "timestamp has expired" in said


def test_a_ceremony_beforehand_is_what_the_server_then_uses(tmp_path, capsys):
    data = tmp_path / "data"
    places = ["--dir", str(data / "trust"), "--keys", str(data / "keys")]
    with pytest.raises(SystemExit):
        main(["trust", "init", *places, "--root-keys", "2", "--threshold", "2"])
    assert "signed by 2 of 2" in capsys.readouterr().out
    for name in ("root.pem", "root.2.pem", "targets.pem"):
        os.rename(data / "keys" / name, tmp_path / name)  # noqa: PTH104 - carried away
    KEY.save(tmp_path / "signing.key")
    with server_process(data, "--publisher", str(tmp_path / "signing.pub")) as server:
        with server.client() as operator, httpx2.Client(base_url=server.where.url) as http:
            token = operator.new_enrolment_key(uses=1, hours=1, note="").token
            _, trust, _ = join(http, token, "pi-1")
            assert operator.publish(make_bundle(KEY)).version == "1"
        assert "move root.pem" not in server.output
    first = (data / "trust" / "metadata" / "1.root.json").read_bytes()
    assert trust.root == sha256(first)
