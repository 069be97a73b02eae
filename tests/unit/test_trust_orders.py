"""Orders are signed when they change, and only then."""

import pytest

from edge_sdk.messages import open_assignment
from fleet_server.controller import Controller
from fleet_server.planning import Wish
from tests.server_side import NOW, backend

ALL_AT_ONCE = Wish(model="digits", version="1", strategy={"name": "all-at-once"})


@pytest.fixture
def back(tmp_path, database):
    with backend(tmp_path, database) as made:
        yield made


def test_only_what_changed_is_signed_anew(back):
    sent = []
    controller = Controller(
        back.store, back.keyring.director, lambda device, envelope: sent.append((device, envelope))
    )
    for number in range(5):
        back.device(f"pi-{number}")
    controller.create(ALL_AT_ONCE, NOW)
    for second in range(4):
        controller.tick(NOW + second)
    assert sorted(device for device, _ in sent) == [f"pi-{n}" for n in range(5)]
    for device, envelope in sent:
        order = open_assignment(envelope, device, back.keyring.director.public)
        assert (order.generation, order.digest) == (1, back.bundle.digest)
        assert back.store.assignment(device).envelope == envelope
