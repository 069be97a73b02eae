"""MQTT is blocked: orders and messages go over HTTP alone, and back to MQTT when it returns."""

import msgspec
import pytest

from device_agent.config import LinkConfig
from edge_sdk import messages
from tests.agent_world import FleetServer, config, eventually, running, tiny_bundle

pytestmark = pytest.mark.system
DEVICE = "dev-1"


@pytest.fixture
def fleet():
    with FleetServer() as found:
        yield found


def test_an_update_comes_and_is_told_over_http_while_the_mqtt_port_is_closed(fleet, tmp_path):
    given = msgspec.structs.replace(
        config(tmp_path, fleet.url),
        link=LinkConfig(server=fleet.url, http_after_seconds=0.3, poll_seconds=0.2),
    )
    port = fleet.mqtt_port
    fleet.stop_mqtt()
    with running(given, fleet.token) as agent:
        eventually(lambda: fleet.last(DEVICE), "first report")
        order = fleet.order(DEVICE, tiny_bundle(fleet.publisher))
        eventually(lambda: (order.generation, "confirmed") in fleet.phases(DEVICE), "confirmed")
        eventually(lambda: fleet.bodies(DEVICE, messages.Window), "windows")
        fleet.start_mqtt(port)
        again = fleet.order(DEVICE, tiny_bundle(fleet.publisher, version="2"), version="2")
        eventually(lambda: (again.generation, "confirmed") in fleet.phases(DEVICE), "confirmed")
        eventually(lambda: DEVICE in fleet.online, "on MQTT again", 40)
        before, posts = len(fleet.inbox), 0

        def only_mqtt() -> bool:
            nonlocal posts
            quiet, posts = fleet.posts == posts, fleet.posts
            return quiet and len(fleet.inbox) > before + 3

        eventually(only_mqtt, "messages over MQTT")
        eventually(lambda: agent.standing.outbox < 3, "nothing waits")
    for stored in fleet.stored.values():
        assert sorted(stored) == list(range(1, len(stored) + 1))
    assert fleet.posts > 0


def test_without_any_server_nothing_is_lost(fleet, tmp_path):
    given = msgspec.structs.replace(
        config(tmp_path, fleet.url),
        link=LinkConfig(server=fleet.url, http_after_seconds=0.3, poll_seconds=0.2),
    )
    with running(given, fleet.token) as agent:
        order = fleet.order(DEVICE, tiny_bundle(fleet.publisher))
        eventually(lambda: (order.generation, "confirmed") in fleet.phases(DEVICE), "confirmed")
        port = fleet.mqtt_port
        fleet.stop_mqtt()
        fleet.refusing = True
        eventually(lambda: agent.standing.outbox > 6, "windows wait")
        fleet.refusing = False
        eventually(lambda: agent.standing.outbox < 2, "windows gone over HTTP")
        fleet.start_mqtt(port)
    for stored in fleet.stored.values():
        assert sorted(stored) == list(range(1, len(stored) + 1))
