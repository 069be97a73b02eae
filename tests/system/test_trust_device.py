"""What a device believes about bundles: over HTTP, from a stick, from a damaged disk."""

import shutil

import msgspec
import pytest

from device_agent.endpoint import Endpoint
from device_agent.enrol import Identity
from device_agent.trusted import DistrustedError, NotVouchedError, Repository
from edge_sdk.formats import from_json
from edge_sdk.identity import Secrets, Trust
from tests.agent_world import FleetServer, SystemClock, tiny_bundle

pytestmark = pytest.mark.system
DAY = 86400.0


class Clock:
    """A wall clock that is wrong by `off`, and a monotonic one that leaps."""

    off, leap, ticks = 0.0, 0.0, 0.0

    def wall(self):
        return SystemClock.wall() + self.off

    def monotonic(self):
        self.ticks += self.leap
        return self.ticks


@pytest.fixture
def fleet():
    with FleetServer() as found:
        yield found


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def device(fleet, tmp_path, clock):
    def made(**changes):
        trust = msgspec.structs.replace(from_json(Trust, fleet._trust, "trust"), **changes)
        server = Endpoint.parse(fleet.url)
        identity = Identity("dev-1", trust, Secrets(b"", "", ""), server, 0)
        return Repository(tmp_path / "trust", tmp_path / "stick", identity, clock)

    return made


@pytest.fixture
def order(fleet):
    return fleet.assignment("dev-1", tiny_bundle(fleet.publisher), not_before=SystemClock.wall())


def carried(fleet, tmp_path):
    shutil.copytree(fleet.repository.folder.metadata, tmp_path / "stick")


def test_nothing_new_costs_two_requests(fleet, device, order):
    asked = []
    fleet.relay = lambda path, found: asked.append(path) or found
    found = device()
    found.vouched(order)
    asked.clear()
    found.vouched(order)
    assert asked == ["tuf/metadata/2.root.json", "tuf/metadata/timestamp.json"]


def test_the_bytes_on_disk_are_held_against_the_target(device, order, fleet, tmp_path):
    target = device().vouched(order)
    bundle = tmp_path / "bundle"
    bundle.write_bytes(tiny_bundle(fleet.publisher))
    device().check(target, bundle)
    bundle.write_bytes(bundle.read_bytes() + b"!")
    with pytest.raises(DistrustedError, match="target-differs"):
        device().check(target, bundle)


def test_a_stick_is_believed_when_the_server_is_out_of_reach(fleet, device, order, tmp_path):
    carried(fleet, tmp_path)
    fleet.hang_up()
    assert device().vouched(order).length == order.length


def test_a_stick_may_travel_for_weeks(fleet, device, order, tmp_path, clock):
    carried(fleet, tmp_path)
    fleet.hang_up()
    clock.off = 30 * DAY
    assert device().vouched(order).length == order.length


def test_a_stick_older_than_what_the_device_has_seen_is_refused(fleet, device, order, tmp_path):
    carried(fleet, tmp_path)
    fleet.assignment("dev-1", tiny_bundle(fleet.publisher, version="2"), version="2")
    device().vouched(order)
    fleet.hang_up()
    with pytest.raises(DistrustedError, match="metadata-rolled-back"):
        device().vouched(order)


def test_a_stick_that_expired_before_the_newest_signed_time_is_refused(
    fleet, device, order, tmp_path
):
    carried(fleet, tmp_path)
    fleet.hang_up()
    later = msgspec.structs.replace(order, not_before=order.not_before + 9 * DAY)
    with pytest.raises(NotVouchedError, match="metadata-expired"):
        device().vouched(later)
    with pytest.raises(NotVouchedError, match="metadata-expired"):
        device().vouched(order)  # the floor stays, also over a restart


def test_a_forged_stick_is_refused(fleet, device, order, tmp_path):
    carried(fleet, tmp_path)
    fleet.hang_up()
    path = tmp_path / "stick" / "timestamp.json"
    path.write_bytes(path.read_bytes().replace(b'"version":', b'"version":1'))
    with pytest.raises(DistrustedError, match="metadata-forged"):
        device().vouched(order)


def test_neither_server_nor_stick_is_said(fleet, device, order):
    fleet.hang_up()
    with pytest.raises(NotVouchedError, match=r"metadata-not-reached.*refused"):
        device().vouched(order)


def test_a_trickle_has_an_end(fleet, device, order, clock):
    clock.leap = 100.0  # every look at the clock is 100 seconds later
    with pytest.raises(NotVouchedError, match="not whole within 60 s"):
        device().vouched(order)


def test_a_device_enrolled_without_a_root_takes_nothing(device, order):
    with pytest.raises(DistrustedError, match="no-root"):
        device(root="").vouched(order)


@pytest.mark.parametrize("where", ["metadata", "metadata/root_history", "metadata/timestamp.json"])
def test_a_folder_where_a_file_should_be_and_the_reverse_is_mended(device, order, tmp_path, where):
    device().vouched(order)
    path = tmp_path / "trust" / where
    if path.is_dir():
        shutil.rmtree(path)
        path.write_bytes(b"")
    else:
        path.unlink()
        path.mkdir()
    assert device().vouched(order).length == order.length


@pytest.mark.parametrize("name", ["seen.json", "first-root.json"])
def test_what_the_device_keeps_may_be_damaged(device, order, tmp_path, name):
    device().vouched(order)
    (tmp_path / "trust" / name).write_bytes(b"\0" * 10)
    assert device().vouched(order).length == order.length


def test_a_server_whose_clock_was_years_ahead_for_a_moment_is_forgiven(device, order):
    ahead = msgspec.structs.replace(order, not_before=order.not_before + 900 * DAY)
    device().vouched(ahead)
    assert device().vouched(order).length == order.length


@pytest.mark.parametrize("status", [401, 403, 404, 500])
def test_a_server_that_answers_with_an_error_is_tried_again(fleet, device, order, status):
    fleet.relay = lambda _path, _found: status
    with pytest.raises(NotVouchedError, match=f"the server answers {status}"):
        device().vouched(order)
