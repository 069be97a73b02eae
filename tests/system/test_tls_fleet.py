"""A real server with --tls, real agents and real MQTT clients: who gets in, and by what."""

import ssl
import stat
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx2
import msgspec
import numpy as np
import paho.mqtt.client as mqtt
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from device_agent.agent import Agent
from device_agent.certificate import Renewal, renewal_due, validity
from device_agent.config import DeviceConfig, LinkConfig
from device_agent.doctor import examine
from device_agent.endpoint import KEY, Endpoint, mutual_context, parse_websocket
from device_agent.link import Address, MqttLink
from device_agent.store import Store
from edge_sdk.cli import main
from edge_sdk.errors import ServerError, UntrustedError
from edge_sdk.formats import from_json
from edge_sdk.identity import Token, Trust, shared_secrets
from edge_sdk.signing import SigningKey
from edge_sdk.topics import topic
from fleet_server.ca import open_ca, server_certificate, server_context
from fleet_server.data_dir import ca_file
from tests.agent_world import (
    BOARD,
    SystemClock,
    at_work,
    config,
    eventually,
    rows,
    running,
    setup,
    tiny_bundle,
)
from tests.server_side import NOW, server_process

pytestmark = pytest.mark.system
EVERYWHERE = "0.0.0.0"  # noqa: S104 - refused
PUBLISHER = SigningKey.generate()


@pytest.fixture(scope="module")
def server(new_database, tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    PUBLISHER.save(folder / "signing.key")
    options = ("--publisher", str(folder / "signing.pub"), "--tls")
    with (
        new_database(folder) as database,
        server_process(folder / "data", *options, database=database) as found,
    ):
        yield found


@pytest.fixture
def new_token(server):
    def make(**wish):
        with server.client() as fleet:
            return Token.parse(fleet.new_enrolment_key(**wish).token)

    return make


def agent_config(folder, server, name="dev-1", url=""):
    folder.mkdir(exist_ok=True)
    np.savez(folder / "x.npz", x=rows())
    device = DeviceConfig(id=name, profile=BOARD.name, labels={"site": "north"})
    return config(folder, url or server.where.url, device=device)


def enrolled(folder, server, token, name="dev-1"):
    """The state folder of a device that joined and stopped."""
    with running(agent_config(folder, server, name), token) as agent:
        eventually(lambda: agent.standing.online, "online")
    return Store(folder / "state")


def try_mqtt(server, username, password, context, transport="tcp"):
    """What the server says to a CONNECT: a reason's name, or "cut" if it hangs up at once."""
    said = []
    port = server.where.mqtt_port if transport == "tcp" else server.where.port
    client = mqtt.Client(
        mqtt.CallbackAPIVersion.VERSION2,
        protocol=mqtt.MQTTv5,
        transport=transport,
        reconnect_on_failure=False,
    )
    client.username_pw_set(username, password)
    if context is not None:
        client.tls_set_context(context)
    client.on_connect = lambda _c, _d, _f, reason, _p: said.append(str(reason))
    client.on_disconnect = lambda *_: said.append("cut")
    try:
        client.connect("127.0.0.1", port)
        client.loop_start()
        eventually(lambda: said, "an answer")
        return said[0]
    except OSError:
        return "cut"
    finally:
        client.disconnect()
        client.loop_stop()


def secrets_of(store):
    key, enrolment = store.key(), store.enrolment()
    trust = from_json(Trust, enrolment.trust.encode(), "the trust document")
    return shared_secrets(bytes.fromhex(key.private), trust.exchange, key.device)


class Eavesdropper:
    """A TLS server with a certificate of its own that hands every request on to the real one."""

    def __init__(self, server, folder):
        stranger = open_ca(folder, first=True)
        server_certificate(folder, stranger, ["127.0.0.1"], NOW)
        verify = ssl.create_default_context(cafile=ca_file(server.data_dir))
        self.heard = heard = []

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_): ...

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                heard.append(body)
                answer = httpx2.post(server.where.url + self.path, content=body, verify=verify)
                self.send_response(answer.status_code)
                self.send_header("Content-Length", str(len(answer.content)))
                self.end_headers()
                self.wfile.write(answer.content)

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        context = server_context(folder, "need none")
        self._http.socket = context.wrap_socket(self._http.socket, server_side=True)
        self.url = f"https://127.0.0.1:{self._http.server_port}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,))

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()


def test_an_agent_joins_over_tls_and_takes_an_update(server, new_token, tmp_path):
    with running(agent_config(tmp_path, server, "dev-up"), new_token()) as agent:
        eventually(lambda: agent.standing.online, "online")
        with server.client() as fleet:
            fleet.publish(tiny_bundle(PUBLISHER))
            fleet.create_rollout("quarters", "1", {"name": "all-at-once"})
        eventually(lambda: agent.standing.phase == "confirmed", "the model is confirmed", 60)
    state = tmp_path / "state"
    assert stat.S_IMODE((state / KEY).stat().st_mode) == 0o600
    begins, ends = validity(state)
    assert 89 <= (ends - begins).days <= 91


def test_mqtt_wants_both_the_certificate_and_the_password_of_the_same_device(
    server, new_token, tmp_path
):
    one = enrolled(tmp_path / "a", server, new_token(), "dev-a")
    other = enrolled(tmp_path / "b", server, new_token(), "dev-b")
    ca = one.enrolment().ca
    own = mutual_context(one.folder, ca)
    without = ssl.create_default_context(cadata=ca)
    secret = secrets_of(one).mqtt_password
    assert try_mqtt(server, "dev-a", secret, own) == "Success"
    assert try_mqtt(server, "dev-a", secret, None) == "cut"
    assert try_mqtt(server, "dev-a", secret, without) == "cut"
    assert try_mqtt(server, "dev-a", secret, mutual_context(other.folder, ca)) == "Not authorized"
    assert try_mqtt(server, "dev-a", "wrong", own) == "Bad user name or password"


def ask(server, store, method, path, proof, body=b"{}"):
    """The status of a device request that shows the certificate in the folder `proof`."""
    device, secrets = store.key().device, secrets_of(store)
    verify = mutual_context(proof, store.enrolment().ca)
    header = {"Authorization": f"Bearer {device}:{secrets.http_token}"}
    with httpx2.Client(base_url=server.where.url, verify=verify, headers=header) as http:
        content = body if method == "POST" else None
        return http.request(method, f"/device/v1/{path}", content=content).status_code


def test_https_wants_both_the_certificate_and_the_token_of_the_same_device(
    server, new_token, tmp_path
):
    one = enrolled(tmp_path / "a", server, new_token(), "dev-p")
    other = enrolled(tmp_path / "b", server, new_token(), "dev-q")
    for method, path in (
        ("GET", "desired"),
        ("GET", f"bundles/{'0' * 64}"),
        ("GET", "tuf/metadata/timestamp.json"),
        ("POST", "messages/event"),
    ):
        assert ask(server, one, method, path, None) == 403
        assert ask(server, one, method, path, other.folder) == 403
        assert ask(server, one, method, path, one.folder) in (200, 204, 404)
    assert ask(server, one, "POST", "certificate", None) == 400  # heard, but no certificate request
    with httpx2.Client(verify=mutual_context(one.folder, one.enrolment().ca)) as http:
        assert http.get(f"{server.where.url}/device/v1/desired").status_code == 401


def blocked(address, post, chance):
    """MQTT to a port where nobody listens."""
    return MqttLink(msgspec.structs.replace(address, port=9), post, chance)


def test_a_device_works_over_https_alone_with_its_certificate(server, new_token, tmp_path):
    given = agent_config(tmp_path, server, "dev-s")
    link = msgspec.structs.replace(given.link, http_after_seconds=0.1, poll_seconds=0.2)
    usual = setup(msgspec.structs.replace(given, link=link), new_token())
    with at_work(msgspec.structs.replace(usual, make_link=blocked)) as agent:
        eventually(lambda: agent.standing.online, "online over HTTPS")


def renewal(store, server, wall=lambda: NOW, url=""):
    enrolment = store.enrolment()
    to = msgspec.structs.replace(Endpoint.parse(url or server.where.url), ca=enrolment.ca)
    return Renewal(store.folder, store.key().device, secrets_of(store).http_token, to, wall)


def test_whoever_stands_in_between_at_the_first_contact_gains_nothing(server, new_token, tmp_path):
    token = new_token()
    (tmp_path / "stranger").mkdir()
    with Eavesdropper(server, tmp_path / "stranger") as between:
        given = agent_config(tmp_path / "d", server, "dev-m", url=between.url)
        with running(given, token):
            store = Store(given.state.dir)
            eventually(store.enrolment, "the enrolment went through")
            with pytest.raises(ServerError, match="CERTIFICATE_VERIFY_FAILED"):
                renewal(store, server, url=between.url).renew(agent_context(store))
        [heard] = between.heard
        assert token.secret.encode() not in heard
        secrets = secrets_of(store)
        for secret in (secrets.mqtt_password, secrets.http_token, store.key().private):
            assert secret.encode() not in heard


def agent_context(store):
    return mutual_context(store.folder, store.enrolment().ca)


def test_a_token_of_another_server_is_noticed_before_anything_is_kept(server, new_token, tmp_path):
    token = new_token()
    lying = msgspec.structs.replace(token, fingerprint="0" * 32)
    given = agent_config(tmp_path, server, "dev-t")
    with pytest.raises(UntrustedError, match="not the one the token names"):
        Agent(setup(given, lying)).run(threading.Event())
    assert Store(given.state.dir).enrolment() is None


def test_a_certificate_is_renewed_with_the_token_even_when_it_is_long_over(
    server, new_token, tmp_path
):
    store = enrolled(tmp_path, server, new_token(), "dev-r")
    _, ends = validity(store.folder)
    late = ends.timestamp() + 1e6
    assert renewal_due(store.folder, late)
    before = (store.folder / "tls.pem").read_bytes()
    work = renewal(store, server, wall=lambda: late)
    work.renew(work.context)
    assert (store.folder / "tls.pem").read_bytes() != before
    secret = secrets_of(store).mqtt_password
    assert try_mqtt(server, "dev-r", secret, work.context) == "Success"


def test_a_device_that_lost_its_certificate_gets_another_by_itself(server, new_token, tmp_path):
    store = enrolled(tmp_path, server, new_token(), "dev-l")
    for name in ("tls.pem", "tls.key"):
        (store.folder / name).unlink()
    with running(agent_config(tmp_path, server, "dev-l"), new_token()) as agent:
        eventually(lambda: agent.standing.online, "online again")


def test_a_revoked_device_is_cut_off_at_once_and_comes_back_when_readmitted(
    server, new_token, tmp_path
):
    with (
        running(agent_config(tmp_path, server, "dev-x"), new_token()) as agent,
        server.client() as fleet,
    ):
        eventually(lambda: agent.standing.online, "online")
        assert fleet.revoke("dev-x").health == "revoked"
        eventually(lambda: not agent.standing.online, "cut off", 2)
        store = Store(tmp_path / "state")
        secrets, own = secrets_of(store), agent_context(store)
        refused = "Bad user name or password"
        assert try_mqtt(server, "dev-x", secrets.mqtt_password, own) == refused
        verify = ssl.create_default_context(cadata=store.enrolment().ca)
        with httpx2.Client(base_url=server.where.url, verify=verify) as http:
            header = {"Authorization": f"Bearer dev-x:{secrets.http_token}"}
            assert http.get("/device/v1/desired", headers=header).status_code == 401
            asked = http.post("/device/v1/certificate", headers=header, content=b"{}")
            assert asked.status_code == 401
        fleet.readmit("dev-x")
        eventually(lambda: agent.standing.online, "online again")


def test_a_device_whose_card_was_lost_joins_again_under_its_name_with_its_history(
    server, new_token, tmp_path
):
    enrolled(tmp_path / "old", server, new_token(), "dev-h")
    given = agent_config(tmp_path / "new", server, "dev-h")
    with pytest.raises(ServerError, match=r"edge enroll key new --device dev-h"):
        Agent(setup(given, new_token())).run(threading.Event())
    enrolled(tmp_path / "new", server, new_token(device="dev-h"), "dev-h")
    with server.client() as fleet:
        story = [e.name for e in fleet.overview().events if e.source == "dev-h"]
        assert [n for n in story if n.startswith("enrolled")] == ["enrolled anew", "enrolled"]
        assert [row.id for row in fleet.devices()].count("dev-h") == 1


@pytest.fixture
def edge(capsys, monkeypatch):
    """Run a command as an operator does."""
    for name in ("EDGE_TOKEN", "EDGE_SERVER", "EDGE_CA"):
        monkeypatch.delenv(name, raising=False)

    def run(*words):
        with pytest.raises(SystemExit) as ended:
            main(list(words))
        return ended.value.code, capsys.readouterr()

    return run


def test_revoking_and_readmitting_from_the_command_line(server, new_token, tmp_path, edge):
    enrolled(tmp_path, server, new_token(), "dev-c")
    data = ("--data-dir", str(server.data_dir))
    code, said = edge("device", "revoke", "dev-c", *data)
    assert (code, said.out) == (0, "dev-c is revoked; 'edge device readmit dev-c' undoes it\n")
    code, said = edge("device", "revoke", "dev-c", *data)
    assert code == 3
    assert "is revoked already" in said.err
    assert edge("device", "revoke", "dev-nobody", *data)[0] == 2
    assert edge("device", "readmit", "dev-c", *data)[0] == 0
    code, said = edge("enroll", "key", "new", "--device", "dev-c", *data)
    assert (code, said.out[:6]) == (0, "edge1.")


def test_operators_commands_believe_the_servers_own_ca(server, edge, monkeypatch):
    assert edge("device", "list", "--data-dir", str(server.data_dir))[0] == 0
    monkeypatch.setenv("EDGE_TOKEN", "x")
    code, said = edge("device", "list", "--server", server.where.url)
    assert code == 4
    assert "CERTIFICATE_VERIFY_FAILED" in said.err
    monkeypatch.setenv("EDGE_CA", str(ca_file(server.data_dir)))
    code, said = edge("device", "list", "--server", server.where.url)
    assert code == 4
    assert "the token is wrong" in said.err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--host", EVERYWHERE), "on 0.0.0.0 other machines could read along: give --tls"),
        (("--host", "::"), "give --tls"),
        (("--tls", "--plain"), "contradict"),
        (("--tls", "--name", "no such name"), "neither a host name nor an address"),
    ],
)
def test_a_start_that_would_be_open_to_others_is_refused(options, words, tmp_path, capsys):
    PUBLISHER.save(tmp_path / "signing.key")
    given = ("--publisher", str(tmp_path / "signing.pub"), "--data-dir", str(tmp_path / "data"))
    with pytest.raises(SystemExit) as ended:
        main(["server", "run", "--port", "0", *given, *options])
    assert ended.value.code == 2
    assert words in capsys.readouterr().err


def over_websocket(folder, server, name):
    usual = agent_config(folder, server, name)
    place = server.where.url.replace("https://", "wss://")
    return msgspec.structs.replace(usual, link=msgspec.structs.replace(usual.link, mqtt=place))


def test_one_port_is_enough_mqtt_over_a_websocket_of_https(server, new_token, tmp_path):
    asked = over_websocket(tmp_path, server, "ws-1")
    with running(asked, new_token()) as agent:
        eventually(lambda: agent.standing.online, "online")
        eventually(lambda: agent.standing.outbox == 0, "confirmed")
    folder = tmp_path / "state"
    ca, password = ca_file(server.data_dir).read_text(), secrets_of(Store(folder)).mqtt_password
    context, stranger = mutual_context(folder, ca), mutual_context(None, ca)
    steps = {step.name: step for step in examine(asked, SystemClock.wall, mqtt=True)}
    assert steps["MQTT publish"].result == "ok", steps
    for transport in ("tcp", "websockets"):  # the same door at both ports
        assert try_mqtt(server, "ws-1", password, context, transport) == "Success"
        assert try_mqtt(server, "ws-1", "guess", context, transport) == "Bad user name or password"
    with pytest.raises(InvalidStatus, match="403"):
        connect(asked.link.mqtt + "/mqtt", ssl=stranger, subprotocols=["mqtt"])
    other = tmp_path / "other"
    enrolled(other, server, new_token(), "ws-2")
    foreign = mutual_context(other / "state", ca)
    assert try_mqtt(server, "ws-1", password, foreign, "websockets") == "Not authorized"


def test_over_a_websocket_a_device_reaches_its_own_topics_alone(server, new_token, tmp_path):
    store = enrolled(tmp_path, server, new_token(), "ws-3")
    context = mutual_context(store.folder, ca_file(server.data_dir).read_text())
    link = LinkConfig(server=server.where.url, mqtt=server.where.url.replace("https", "wss"))
    ends = []
    address = Address(
        "127.0.0.1", server.where.port, "ws-3", secrets_of(store).mqtt_password, context, "/mqtt"
    )
    assert parse_websocket(link.mqtt, link.server).port == address.port
    client = address.client(again=False)
    client.on_connect = lambda c, *_: c.publish(topic("ws-1", "event"), b"x", qos=1)
    client.on_disconnect = lambda _c, _d, _f, reason, _p: ends.append(str(reason))
    client.connect(address.host, address.port)
    client.loop_start()
    eventually(lambda: ends, "the end")
    client.loop_stop()
    assert ends == ["Not authorized"]
