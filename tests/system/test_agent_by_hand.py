"""A person at the device: rollback without a server, and an update from a USB stick."""

import pytest

from device_agent.agent import Agent
from device_agent.by_hand import import_stick, roll_back
from device_agent.status import read_status
from edge_sdk.errors import InvalidInputError, RefusedError, UntrustedError
from edge_sdk.messages import Report, sign_assignment
from edge_sdk.signing import SigningKey
from edge_sdk.stick import read_reports
from tests.agent_world import BOARD, FleetServer, config, eventually, running, setup, tiny_bundle

pytestmark = pytest.mark.system
DEVICE = "dev-1"


@pytest.fixture
def fleet():
    with FleetServer() as found:
        yield found


def confirm(fleet, version: str):
    order = fleet.order(DEVICE, tiny_bundle(fleet.publisher, version=version), version=version)
    eventually(lambda: (order.generation, "confirmed") in fleet.phases(DEVICE), "confirmed")
    return order


def test_a_running_agent_goes_back_by_hand_and_the_server_hears_why(fleet, tmp_path):
    given = config(tmp_path, fleet.url)
    with running(given, fleet.token) as agent:
        first, second = confirm(fleet, "1"), confirm(fleet, "2")
        assert roll_back(given, BOARD.name) == ("quarters 2", "quarters 1")
        eventually(lambda: (second.generation, "reverted") in fleet.phases(DEVICE), "told")
        report = fleet.last(DEVICE)
        assert (report.reason, report.running.digest) == ("by hand on the device", first.digest)
        assert agent.standing.running.digest == first.digest
        with pytest.raises(RefusedError, match="no earlier version"):
            roll_back(given, BOARD.name)


def test_an_agent_that_does_not_run_starts_with_the_version_before(fleet, tmp_path):
    given = config(tmp_path, fleet.url)
    with running(given, fleet.token):
        first, second = confirm(fleet, "1"), confirm(fleet, "2")
    assert roll_back(given, BOARD.name) == ("quarters 2", "quarters 1")
    assert read_status(given.state.dir).running.digest == first.digest
    with running(given, fleet.token):
        eventually(lambda: (second.generation, "reverted") in fleet.phases(DEVICE), "told")
    assert fleet.last(DEVICE).running.digest == first.digest


@pytest.fixture
def stick(fleet, tmp_path):
    """A device with version 1 that lost its server, and a stick with version 2 for it."""
    given = config(tmp_path, fleet.url)
    with running(given, fleet.token):
        confirm(fleet, "1")
    bundle = tiny_bundle(fleet.publisher, version="2")
    order = fleet.assignment(DEVICE, bundle, version="2")
    folder = tmp_path / "usb"
    for name in ("orders", "bundles", "metadata"):
        (folder / name).mkdir(parents=True)
    (folder / "orders" / f"{DEVICE}.json").write_bytes(sign_assignment(order, fleet.director))
    (folder / "bundles" / f"{order.digest}.edge").write_bytes(bundle)
    for path in fleet.repository.folder.metadata.glob("*.json"):
        (folder / "metadata" / path.name).write_bytes(path.read_bytes())
    return folder, given, order, setup(given, fleet.token)


def test_a_stick_brings_a_version_to_a_device_without_a_server_and_takes_the_report_back(
    fleet, stick
):
    folder, given, order, prepared = stick
    fleet.stop_mqtt()
    fleet.gone = True
    status, left = import_stick(folder, given, Agent(prepared).run)
    fleet.gone = False
    fleet.start_mqtt(0)
    assert (status.phase, status.running.version) == ("confirmed", "2")
    found = read_reports(left)
    assert {message.device for message in found} == {DEVICE}
    for message in found:
        fleet_takes(fleet, message)
    report = fleet.bodies(DEVICE, Report)[-1]
    assert (report.generation, report.phase) == (order.generation, "confirmed")


def fleet_takes(fleet, message) -> None:
    fleet.take(message.device, message.kind, message.payload)


def test_a_stick_with_an_order_by_somebody_else_is_refused_and_nothing_changes(fleet, stick):
    folder, given, order, prepared = stick
    forged = sign_assignment(order, SigningKey.generate())
    (folder / "orders" / f"{DEVICE}.json").write_bytes(forged)
    with pytest.raises(UntrustedError, match="is not taken"):
        import_stick(folder, given, Agent(prepared).run)
    assert read_status(given.state.dir).running.version == "1"


def test_a_stick_with_other_bytes_or_nothing_for_this_device_says_so(stick):
    folder, given, order, prepared = stick
    (folder / "bundles" / f"{order.digest}.edge").write_bytes(b"other")
    with pytest.raises(UntrustedError, match="not the bundle that the order names"):
        import_stick(folder, given, Agent(prepared).run)
    (folder / "orders" / f"{DEVICE}.json").unlink()
    with pytest.raises(InvalidInputError, match="holds no order for dev-1"):
        import_stick(folder, given, Agent(prepared).run)
