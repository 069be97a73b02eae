"""A real Mosquitto between real devices and the server: mutual TLS, rules, workers, kills."""

import os
import subprocess
import sys
import threading
import time

import httpx2
import msgspec
import paho.mqtt.client as mqtt
import pytest
from websockets.exceptions import InvalidMessage
from websockets.sync.client import connect

from device_agent.endpoint import mutual_context
from edge_sdk.bundle import unpack
from edge_sdk.errors import InvalidInputError
from edge_sdk.identity import Token
from edge_sdk.messages import unseal_ack
from edge_sdk.signing import SigningKey
from edge_sdk.topics import topic
from fleet_server.broker import parse_broker
from fleet_server.data_dir import ca_file
from fleet_server.store import Store
from tests.agent_world import eventually, running, tiny_bundle
from tests.bundles import make_bundle
from tests.mosquitto import free_port, missing, mosquitto
from tests.server_side import join, server_process, until, window_of
from tests.system.test_tls_fleet import agent_config

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(bool(missing()), reason=missing()),
]
KEY = SigningKey.generate()
BUNDLE = unpack(make_bundle(KEY), [KEY.public])


def edge(*arguments, **env):
    return subprocess.run(
        [sys.executable, "-m", "edge_sdk.cli", *arguments],
        check=True, capture_output=True, text=True, env=os.environ | env,
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    KEY.save(tmp_path / "signing.key")
    return tmp_path


def test_agents_and_server_meet_at_a_broker_that_knows_them_by_certificate(folder):
    publisher, port = ("--publisher", str(folder / "signing.pub")), free_port()
    data, over_web = folder / "data", free_port()
    with server_process(data, *publisher, "--tls") as first:
        assert first.stop() == 0
    where = folder / "broker"
    edge("server", "broker-config", "mosquitto", "--out", str(where), "--port", str(port),
         "--websocket-port", str(over_web), "--data-dir", str(data))  # fmt: skip
    # As root Mosquitto would become another user, who may not read our folder.
    config = "user root\n" + (where / "mosquitto.conf").read_text()
    url = f"mqtts://localhost:{port}"
    with (
        mosquitto(folder / "run", config.replace("{", "{{").replace("}", "}}"), port) as broker,
        server_process(data, *publisher, "--tls", "--broker", url) as server,
        server.client() as fleet,
    ):
        assert broker.process.poll() is None
        fleet.publish(tiny_bundle(KEY))
        assert server.where.mqtt_port == port
        token = fleet.new_enrolment_key().token

        with running(agent_config(folder / "a", server, "dev-1"), Token.parse(token)) as agent:
            eventually(lambda: agent.standing.online, "online")
            until(lambda: [d.id for d in fleet.devices() if d.health == "live"] == ["dev-1"])
            fleet.create_rollout("quarters", "1", {"name": "all-at-once"})
            until(lambda: fleet.devices()[0].running == "1", 60)
        begun = time.monotonic()
        until(lambda: fleet.devices()[0].health == "offline")
        assert time.monotonic() - begun < 40  # by silence it would take 50 seconds
        one_port(folder / "a", server, over_web)


def one_port(folder, server, port):
    """The same device over a WebSocket, known by its certificate; nobody without one."""
    usual = agent_config(folder, server, "dev-1")
    link = msgspec.structs.replace(usual.link, mqtt=f"wss://localhost:{port}")
    with running(msgspec.structs.replace(usual, link=link), None) as agent:
        eventually(lambda: agent.standing.online, "online")
        eventually(lambda: agent.standing.outbox == 0, "confirmed")
    stranger = mutual_context(None, ca_file(server.data_dir).read_text())
    # Which of them it is depends on when the broker's refusal is read.
    refused = r"(?i)certificate required|closed|reset|not receive a valid HTTP response"
    with pytest.raises((OSError, InvalidMessage), match=refused):
        connect(f"{link.mqtt}/mqtt", ssl=stranger, subprotocols=["mqtt"])


class Sender:
    """A device's connection to an open broker; sends again what the server did not confirm."""

    def __init__(self, device, port):
        self.device, self.port, self.sent, self.confirmed = device, port, [], 0
        self.client = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2, device.name, protocol=mqtt.MQTTv5
        )
        self.client.reconnect_delay_set(0.2, 0.5)
        self.client.max_inflight_messages_set(1000)
        self.client.on_message = self._message
        self.client.on_connect = lambda c, *_: c.subscribe(topic(device.name, "ack"), 1)
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()

    def send(self, count):
        for _ in range(count):
            self.sent.append(self.device.message(window_of(BUNDLE)))
            self._publish(self.sent[-1])

    def again(self):
        """What every agent does after a while without a confirmation."""
        for message in self.sent[self.confirmed :]:
            self._publish(message)

    def _publish(self, message):
        self.client.publish(topic(self.device.name, message[0]), message[1], qos=1)

    def _message(self, _client, _data, message):
        ack = unseal_ack(message.payload, self.device.name, self.device.secrets.mac)
        self.confirmed = max(self.confirmed, ack.seq)

    def close(self):
        self.client.disconnect()
        self.client.loop_stop()


def test_workers_share_the_messages_and_what_is_confirmed_is_stored_once_whatever_is_killed(
    folder, postgres
):
    database = postgres.new_database()
    publisher = ("--publisher", str(folder / "signing.pub"))
    with mosquitto(folder / "broker") as broker:
        url = f"mqtt://127.0.0.1:{broker.port}"
        options = (*publisher, "--broker", url)

        def worker(name):
            command = [sys.executable, "-m", "edge_sdk.cli", "server", "ingest", "--data-dir",
                       str(folder / "data"), "--broker", url, "--worker", name]  # fmt: skip
            return subprocess.Popen(command, env=os.environ | {"EDGE_DATABASE": database})

        with server_process(folder / "data", *options, database=database) as server:
            with server.client() as fleet, httpx2.Client(base_url=server.where.url) as http:
                fleet.publish(make_bundle(KEY))
                token = fleet.new_enrolment_key(uses=2).token
                devices = [join(http, token, f"pi-{n}")[0] for n in range(2)]
            one = worker("1")
            senders = [Sender(device, broker.port) for device in devices]

            for sender in senders:
                sender.send(100)
            settle(senders)
            one.kill()  # a worker gone
            one.wait(20)
            for sender in senders:
                sender.send(100)
            broker.kill()  # the broker gone, and back
            broker.start()
            settle(senders)
            for sender in senders:
                sender.send(50)
            postgres.kill()  # the database gone, and back
            for sender in senders:
                sender.send(50)
            postgres.start()
            settle(senders)
            for sender in senders:
                sender.close()
            server.stop()
    assert "Traceback" not in server.output  # what is gone is told in words, and once
    assert server.output.count("it fails that messages are stored") <= 1
    with Store(database) as store:
        stored = sorted((w.device, w.seq) for w in store.windows("digits", 0))
    assert stored == [(f"pi-{n}", seq) for n in range(2) for seq in range(1, 301)]
    postgres.drop(database)


def settle(senders, seconds=60.0):
    """Send again until all is confirmed; fails after `seconds`."""

    deadline = time.monotonic() + seconds
    while left := [s for s in senders if s.confirmed < len(s.sent)]:
        assert time.monotonic() < deadline, f"not settled within {seconds} s"
        for sender in left:
            sender.again()
        threading.Event().wait(1.0)


@pytest.mark.parametrize("url", ["http://x", "mqtts://", "mqtt://u:secret@host", "junk"])
def test_what_is_no_broker_is_refused_without_telling_its_password(url):
    with pytest.raises(InvalidInputError, match="is no broker") as caught:
        parse_broker(url)
    assert "secret" not in str(caught.value)
