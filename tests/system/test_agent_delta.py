"""A newer version comes as a delta to the one on disk, and whole when anything is wrong with it."""

import pytest

from edge_sdk import delta, messages
from tests.agent_world import FleetServer, config, eventually, running, tiny_bundle

pytestmark = pytest.mark.system
DEVICE = "dev-1"


@pytest.fixture
def fleet():
    with FleetServer() as found:
        yield found


@pytest.mark.parametrize("damage", [b"", b"junk", b"cut"])
def test_a_delta_saves_the_download_and_a_bad_one_costs_nothing_but_it(fleet, tmp_path, damage):
    first, second = (tiny_bundle(fleet.publisher, version=version) for version in "12")
    with running(config(tmp_path, fleet.url), fleet.token):
        eventually(lambda: fleet.last(DEVICE), "enrolled")
        one = fleet.order(DEVICE, first)
        eventually(lambda: (one.generation, "confirmed") in fleet.phases(DEVICE), "confirmed")
        whole = len(fleet.ranges)
        two = fleet.assignment(DEVICE, second, version="2")
        pair = (one.digest, two.digest)
        made = delta.make(first, second, pair)
        bad = {b"junk": b"junk", b"cut": made[:-20]}
        fleet.deltas["deltas/{}/{}".format(*pair)] = bad.get(damage, made)
        if damage:
            fleet.publish(second)
        fleet.send(DEVICE, messages.sign_assignment(two, fleet.director))
        eventually(lambda: (two.generation, "confirmed") in fleet.phases(DEVICE), "confirmed")
    assert fleet.last(DEVICE).running.digest == two.digest
    assert len(fleet.ranges) - whole == bool(damage)
    told = [event.name for event in fleet.bodies(DEVICE, messages.Event)]
    assert ("fetched-as-delta" in told) == (not damage)
