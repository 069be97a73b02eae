"""A cloned SD card: two real agents with one identity at a real server."""

import shutil

import numpy as np
import pytest

from device_agent.config import DeviceConfig
from edge_sdk.identity import Token
from edge_sdk.signing import SigningKey
from tests.agent_world import BOARD, config, eventually, rows, running, tiny_bundle
from tests.server_side import server_process

pytestmark = pytest.mark.system
PUBLISHER = SigningKey.generate()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    PUBLISHER.save(folder / "signing.key")
    with server_process(folder / "data", "--publisher", str(folder / "signing.pub")) as found:
        yield found


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
