"""A cloned SD card: two real agents with one identity at a real server."""

import shutil
import socket
import time

import httpx2
import numpy as np
import paho.mqtt.client as mqtt
import pytest

from device_agent.config import DeviceConfig
from edge_sdk.identity import Token
from edge_sdk.messages import Connection
from edge_sdk.signing import SigningKey
from edge_sdk.topics import topic
from tests.agent_world import BOARD, config, eventually, rows, running, tiny_bundle
from tests.server_side import join, trusting_server, until

pytestmark = pytest.mark.system
PUBLISHER = SigningKey.generate()


@pytest.fixture(scope="module")
def server(new_database, tmp_path_factory):
    with trusting_server(tmp_path_factory.mktemp("server"), PUBLISHER, new_database) as running:
        yield running


def card(folder, server):
    folder.mkdir()
    np.savez(folder / "x.npz", x=rows())
    device = DeviceConfig(id="pi-7", profile=BOARD.name, labels={"site": "north"})
    return config(folder, server.where.url, device=device)


def identity_alerts(fleet):
    return [alert for alert in fleet.alerts() if alert.kind == "identity"]


def test_a_cloned_card_is_told_once_with_both_addresses_and_settled_by_revoking(server, tmp_path):
    original, copy = card(tmp_path / "one", server), tmp_path / "two"
    with server.client() as fleet:
        token = Token.parse(fleet.new_enrolment_key().token)
        fleet.publish(tiny_bundle(PUBLISHER))
        with running(original, token) as agent:
            eventually(lambda: agent.standing.online, "online")
            fleet.create_rollout("quarters", "1", {"name": "all-at-once"})
            eventually(lambda: agent.standing.phase == "confirmed", "v1 runs", 60)
        cloned = card(copy, server)
        shutil.copytree(original.state.dir, cloned.state.dir)
        with running(original, token) as agent:
            eventually(lambda: agent.standing.online, "online again")
        assert identity_alerts(fleet) == []  # a restart is none
        with running(original, token), running(cloned, token):
            eventually(lambda: identity_alerts(fleet), "the alert", 60)
            [alert] = identity_alerts(fleet)
            assert (alert.scope, alert.severity, alert.state) == ("pi-7", "critical", "open")
            assert alert.title.count("127.0.0.1:") == 2
            assert fleet.devices()[0].health == "live"  # the newest keeps the session
            fleet.revoke("pi-7")
        [alert] = identity_alerts(fleet)
        assert alert.state == "closed"


def test_a_device_is_offline_as_soon_as_its_connection_breaks(server):
    def health():
        return {device.id: device.health for device in fleet.devices()}["pi-8"]

    with server.client() as fleet, httpx2.Client(base_url=server.where.url) as http:
        device, _, port = join(http, fleet.new_enrolment_key().token, "pi-8")
        paho = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, "pi-8", protocol=mqtt.MQTTv5)
        paho.username_pw_set("pi-8", device.secrets.mqtt_password)
        _, will = device.message(Connection(number=1, up=False), seq=0)
        _, birth = device.message(Connection(number=1, up=True), seq=0)
        paho.will_set(topic("pi-8", "link"), will, qos=1)
        paho.connect("127.0.0.1", port)
        paho.publish(topic("pi-8", "link"), birth, qos=1)
        deadline = time.monotonic() + 30
        while health() != "live":
            assert time.monotonic() < deadline
            paho.loop(0.1)
        paho.socket().shutdown(socket.SHUT_RDWR)
        until(lambda: health() == "offline", 20)  # by silence it would be 60 seconds and more
        assert [alert for alert in identity_alerts(fleet) if alert.scope == "pi-8"] == []
        paho.loop_misc()
        paho.socket().close()
