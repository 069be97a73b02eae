"""`edge agent doctor` against real servers: each step, well and ill."""

import json
import re
import shutil
import socket
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

from device_agent import doctor
from device_agent.cli import agent as agent_command
from device_agent.config import DeviceConfig, EnrolConfig
from device_agent.doctor import examine, in_words
from device_agent.store import Store
from edge_sdk.errors import RefusedError
from edge_sdk.identity import Token
from edge_sdk.signing import SigningKey
from fleet_server.ca import open_ca, server_certificate, server_context
from tests.agent_world import BOARD, SystemClock, config, eventually, rows, running, tiny_bundle
from tests.server_side import server_process

pytestmark = pytest.mark.system
PUBLISHER = SigningKey.generate()
YEAR = 365 * 86_400


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    with a_server(tmp_path_factory.mktemp("plain")) as found:
        yield found


@pytest.fixture(scope="module")
def secure(tmp_path_factory):
    with a_server(tmp_path_factory.mktemp("secure"), "--tls") as found:
        yield found


@contextmanager
def a_server(folder, *options):
    PUBLISHER.save(folder / "signing.key")
    publisher = ("--publisher", str(folder / "signing.pub"))
    with server_process(folder / "data", *publisher, *options) as found:
        yield found


def joined(tmp_path_factory, server, name):
    """The config of a device that joined and stopped."""
    folder = tmp_path_factory.mktemp(name)
    np.savez(folder / "x.npz", x=rows())
    device = DeviceConfig(id=name, profile=BOARD.name)
    given = config(folder, server.where.url, device=device)
    with server.client() as fleet:
        token = Token.parse(fleet.new_enrolment_key().token)
    with running(given, token) as agent:
        eventually(lambda: agent.standing.online, "online")
    return given


@pytest.fixture(scope="module")
def plain_device(tmp_path_factory, plain):
    return joined(tmp_path_factory, plain, "dev-plain")


@pytest.fixture(scope="module")
def secure_device(tmp_path_factory, secure):
    return joined(tmp_path_factory, secure, "dev-secure")


@pytest.fixture
def copy(tmp_path):
    """A device whose state may be spoiled."""

    def make(given, **enrolment):
        state = tmp_path / "state"
        shutil.copytree(given.state.dir, state)
        store = Store(state)
        changed = msgspec.structs.replace(store.enrolment(), **enrolment)
        store.save_enrolment(changed)
        parts = {"state": msgspec.structs.replace(given.state, dir=state)}
        if "server" in enrolment:
            parts["link"] = msgspec.structs.replace(given.link, server=changed.server)
        return msgspec.structs.replace(given, **parts)

    return make


def steps(given, *, mqtt=False, wall=SystemClock.wall):
    return {step.name: step for step in examine(given, wall, mqtt=mqtt)}


def ill(given, name, **more):
    """The one step that fails, in words."""
    found = steps(given, **more)
    assert [n for n, step in found.items() if step.result == "fails"] == [name]
    assert found[name].remedy
    return in_words(found[name])


def test_a_device_that_is_well_passes_every_step(plain, secure, plain_device, secure_device):
    for server, given in ((plain, plain_device), (secure, secure_device)):
        found = steps(given, mqtt=True)
        assert {step.result for step in found.values()} == {"ok"}, found
        with server.client() as fleet:
            assert "doctor" in [event.name for event in fleet.overview().events]
            assert fleet.alerts() == []
    assert list(found) == [
        "state folder", "disk space", "bundle", "runtime", "DNS", "TCP", "TLS chain", "clock",
        "certificate", "credentials", "MQTT TCP", "MQTT TLS chain", "MQTT login", "MQTT subscribe",
        "MQTT publish",
    ]  # fmt: skip


def test_state_others_can_read_is_told(copy, plain_device):
    given = copy(plain_device)
    (given.state.dir / "device.json").chmod(0o644)
    assert "chmod 600" in ill(given, "state folder")


def test_a_full_disk_is_told(copy, plain_device, monkeypatch):
    monkeypatch.setattr(doctor, "FREE_BYTES", 1 << 60)
    assert "MiB free" in ill(copy(plain_device), "disk space")


def test_a_runtime_that_can_not_be_loaded_is_told(copy, plain_device, monkeypatch):
    monkeypatch.setattr(doctor, "RUNTIME", "no_such_runtime")
    assert "No module named 'no_such_runtime'" in ill(copy(plain_device), "runtime")


def test_a_damaged_bundle_is_told(plain, copy, plain_device):
    with plain.client() as fleet, running(plain_device, None) as agent:
        fleet.publish(tiny_bundle(PUBLISHER))
        fleet.create_rollout("quarters", "1", {"name": "all-at-once"})
        eventually(lambda: agent.standing.phase == "confirmed", "v1 runs", 60)
    assert "quarters 1" in steps(plain_device)["bundle"].found
    given = copy(plain_device)
    [path] = (given.state.dir / "bundles").glob("*.edge")
    path.write_bytes(path.read_bytes()[:-1])
    assert "damaged" in ill(given, "bundle")
    path.unlink()
    assert "can't be read" in ill(given, "bundle")


def test_a_name_without_an_address_is_told_and_what_hangs_on_it_is_not_tried(copy, plain_device):
    given = copy(plain_device, server="http://nowhere.invalid:8080")
    assert "nowhere.invalid has no address" in ill(given, "DNS")
    assert steps(given)["TCP"].result == "not tried"


def test_a_port_that_nobody_holds_is_told(copy, plain_device):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        given = copy(plain_device, server=f"http://127.0.0.1:{unused.getsockname()[1]}")
        assert "does not answer" in ill(given, "TCP")


@contextmanager
def look_alike(folder, secure, names, now, *, own_ca=False):
    """An HTTPS server with another certificate than the fleet server's."""
    folder.mkdir()
    if not own_ca:
        for name in ("ca.key", "ca.pem"):
            shutil.copy(secure.data_dir / "keys" / name, folder / name)
    server_certificate(folder, open_ca(folder, first=own_ca), names, now)
    http = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    context = server_context(folder, "need none")
    http.socket = context.wrap_socket(http.socket, server_side=True)
    http.handle_error = lambda *_: None  # a refused handshake is what we are here for
    thread = threading.Thread(target=http.serve_forever, args=(0.02,))
    thread.start()
    yield f"https://127.0.0.1:{http.server_port}"
    http.shutdown()
    thread.join()
    http.server_close()


@pytest.mark.parametrize(
    ("names", "age", "own_ca", "words"),
    [
        (["127.0.0.1"], 0, True, "somebody stands between"),
        (["elsewhere.lan"], 0, False, "--name 127.0.0.1"),
        (["127.0.0.1"], 2 * YEAR, False, "clock"),
    ],
    ids=["another CA", "another name", "expired"],
)
def test_a_certificate_that_can_not_be_believed_is_told_with_its_reason(
    copy, secure, secure_device, tmp_path, names, age, own_ca, words
):
    now = time.time() - age  # noqa: TID251 - OpenSSL looks at the real clock
    with look_alike(tmp_path / "keys", secure, names, now, own_ca=own_ca) as url:
        assert words in ill(copy(secure_device, server=url), "TLS chain")


def test_https_to_a_plain_server_and_http_to_a_tls_one_are_told(
    copy, plain, secure, secure_device, tmp_path
):
    given = copy(secure_device, server=f"https://127.0.0.1:{plain.where.port}")
    assert "does the server run with --tls?" in ill(given, "TLS chain")
    Store(given.state.dir).save_enrolment(
        msgspec.structs.replace(
            Store(given.state.dir).enrolment(), server=f"http://127.0.0.1:{secure.where.port}"
        )
    )
    link = msgspec.structs.replace(given.link, server=f"http://127.0.0.1:{secure.where.port}")
    assert "begins with https://" in ill(msgspec.structs.replace(given, link=link), "clock")


@pytest.mark.parametrize("off", [3600, -86_400])
def test_a_wrong_clock_is_told_with_how_much(plain_device, off):
    words = ill(plain_device, "clock", wall=lambda: SystemClock.wall() + off)
    told = re.search(r"is ([\d,]+) s (ahead of|behind)", words)
    assert abs(int(told[1].replace(",", "")) - abs(off)) <= 2
    assert told[2] == ("ahead of" if off > 0 else "behind")


def test_a_revoked_device_is_told_what_the_operator_can_do(plain, copy, tmp_path_factory):
    given = joined(tmp_path_factory, plain, "dev-gone")
    with plain.client() as fleet:
        fleet.revoke("dev-gone")
    assert "edge device readmit dev-gone" in ill(given, "credentials")


def test_a_device_that_never_joined_is_asked_for_its_token(plain, tmp_path, monkeypatch):
    monkeypatch.delenv("EDGE_ENROL_TOKEN", raising=False)
    given = config(tmp_path, plain.where.url)
    assert "edge enroll key new" in ill(given, "credentials")
    (tmp_path / "token").write_text("edge1.a.b.c")
    ready = msgspec.structs.replace(given, enrol=EnrolConfig(token_file=tmp_path / "token"))
    assert steps(ready)["credentials"].result == "ok"


def test_another_server_in_the_config_than_it_joined_is_told(plain_device):
    link = msgspec.structs.replace(plain_device.link, server="http://127.0.0.1:9")
    found = steps(msgspec.structs.replace(plain_device, link=link))
    assert found["TCP"].result == "fails"
    link = msgspec.structs.replace(
        plain_device.link, server=plain_device.link.server.replace("127.0.0.1", "localhost")
    )
    assert "is enrolled at" in ill(msgspec.structs.replace(plain_device, link=link), "credentials")


def test_a_missing_or_ended_certificate_is_told(copy, secure_device):
    late = lambda: SystemClock.wall() + YEAR  # noqa: E731
    found = steps(secure_device, wall=late)
    assert found["clock"].result == "fails"
    given = copy(secure_device)
    (given.state.dir / "tls.pem").unlink()
    assert "there is none" in ill(given, "certificate", mqtt=True)


def test_a_closed_mqtt_port_is_told(copy, plain_device):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        given = copy(plain_device, mqtt_port=unused.getsockname()[1])
        assert "does not answer" in ill(given, "MQTT TCP", mqtt=True)


def test_the_certificate_of_another_device_is_told(copy, secure, secure_device, tmp_path_factory):
    other = joined(tmp_path_factory, secure, "dev-other")
    given = copy(secure_device)
    for name in ("tls.pem", "tls.key"):
        shutil.copy(other.state.dir / name, given.state.dir / name)
    assert "does not accept the certificate" in ill(given, "credentials", mqtt=True)


@contextmanager
def stern_broker(suback, puback):
    """Lets everyone in and answers the first SUBSCRIBE and PUBLISH with these reasons."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve():
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with connection:
                while packet := connection.recv(4096):
                    match packet[0] >> 4:
                        case 1:
                            connection.sendall(b"\x20\x03\x00\x00\x00")
                        case 8:
                            connection.sendall(b"\x90\x05" + packet[2:4] + b"\x00" + suback * 2)
                        case 3:
                            start = 2 if packet[1] < 128 else 3
                            end = start + 2 + int.from_bytes(packet[start : start + 2])
                            connection.sendall(b"\x40\x04" + packet[end : end + 2] + puback + b"\0")

    thread = threading.Thread(target=serve)
    thread.start()
    yield listening.getsockname()[1]
    listening.shutdown(socket.SHUT_RDWR)
    listening.close()
    thread.join()


@pytest.mark.parametrize(
    ("suback", "puback", "step"),
    [(b"\x87", b"\x00", "MQTT subscribe"), (b"\x01", b"\x87", "MQTT publish")],
)
def test_rights_that_are_missing_are_told(copy, plain_device, suback, puback, step):
    with stern_broker(suback, puback) as port:
        assert "Not authorized" in ill(copy(plain_device, mqtt_port=port), step, mqtt=True)


def test_the_command_prints_each_step_and_ends_with_three(plain_device, tmp_path):
    board = {k: v for k, v in msgspec.to_builtins(BOARD).items() if v is not None}
    lines = [f"{name} = {json.dumps(value)}" for name, value in board.items()]
    (tmp_path / "board.toml").write_text("\n".join(lines))
    path = tmp_path / "agent.toml"
    text = f"""
        device = {{ profile = "board.toml", id = "dev-plain" }}
        link.server = "{plain_device.link.server}"
        input.source = "npz:x.npz"
        state.dir = "{plain_device.state.dir}"
    """
    path.write_text(text)
    done = CliRunner().invoke(agent_command, ["doctor", "--config", str(path), "--json"])
    assert done.exit_code == 0, done.output
    found = [msgspec.json.decode(line, type=doctor.Step) for line in done.output.splitlines()]
    assert [step.result for step in found] == ["ok"] * 8
    path.write_text(text.replace(plain_device.link.server, "http://nowhere.invalid"))
    done = CliRunner().invoke(agent_command, ["doctor", "--config", str(path)])
    assert isinstance(done.exception, RefusedError)  # `edge` ends with its exit code, 3
    assert "fails     DNS" in done.output
