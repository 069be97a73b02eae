"""Attacks on the way to the device: each is reported by name, and none changes the running model.

A real agent, real HTTP and real MQTT; what lies between is in the hands of an attacker who holds
the network, the web server or the broker, but no key unless the test says so.
"""

import random
import shutil
from threading import Event
from types import SimpleNamespace

import msgspec
import pytest
from tuf.api.metadata import Metadata

from device_agent import download, metadata_source, update
from edge_sdk import messages
from edge_sdk.files import sha256
from edge_sdk.signing import SigningKey
from fleet_server.trust import ceremony, roles
from tests.agent_world import (
    BOARD,
    FleetServer,
    SystemClock,
    config,
    eventually,
    running,
    tiny_bundle,
)

pytestmark = pytest.mark.system
DEVICE = "dev-1"
ROLE = roles.role_of(BOARD.name)
DAY = 86400.0
YEARS = 30 * 365 * DAY


class ClockOff:
    """A device's clock that is wrong by `seconds`."""

    def __init__(self, seconds=0.0):
        self.seconds = seconds

    def wall(self):
        return SystemClock.wall() + self.seconds

    monotonic = staticmethod(SystemClock.monotonic)


@pytest.fixture
def fleet():
    with FleetServer() as found:
        yield found


@pytest.fixture
def device(fleet, tmp_path):
    """An agent that runs version 1, confirmed; its clock can be set wrong."""
    clock = ClockOff()
    with running(config(tmp_path, fleet.url), fleet.token, clock=clock) as agent:
        eventually(lambda: agent.standing.online, "online")
        order = fleet.order(DEVICE, tiny_bundle(fleet.publisher))
        eventually(lambda: (order.generation, "confirmed") in fleet.phases(DEVICE), "confirmed")
        yield SimpleNamespace(
            order=order, agent=agent, clock=clock, state=tmp_path / "state", digest=order.digest
        )


@pytest.fixture
def impatient(monkeypatch):
    """Two tries and a second's patience, where the device has ten and ten."""
    monkeypatch.setattr(update, "TRIES", 2)
    monkeypatch.setattr(metadata_source, "TIMEOUT", 1.0)
    monkeypatch.setattr(download, "TIMEOUT", 1.0)


def second(fleet, **changes):
    """Order version 2, now."""
    values = {"version": "2", "not_before": SystemClock.wall(), **changes}
    return fleet.order(DEVICE, tiny_bundle(fleet.publisher, version="2"), **values)


def ends(fleet, order, phase):
    """The report that the order came to `phase`."""
    eventually(lambda: (order.generation, phase) in fleet.phases(DEVICE), phase)
    reports = fleet.bodies(DEVICE, messages.Report)
    return next(r for r in reports if (r.generation, r.phase) == (order.generation, phase))


def hears(fleet, name):
    """The event of this name."""

    def found():
        return [e for e in fleet.bodies(DEVICE, messages.Event) if e.name == name]

    eventually(found, f"event {name}")
    return found()[-1].detail


def refused(fleet, device, order, *words):
    """The order was refused for this reason, and version 1 runs as before."""
    report = ends(fleet, order, "refused")
    for text in words:
        assert text in report.reason
    still_the_first(device, report)


def still_the_first(device, report=None):
    assert report is None or report.running.digest == device.digest
    assert device.agent.standing.running.digest == device.digest


def taken(fleet, device, order):
    ends(fleet, order, "confirmed")
    assert device.agent.standing.running.digest == order.digest


# --- the bytes of a bundle --------------------------------------------------------------------


def test_a_flipped_byte(fleet, device):
    good = tiny_bundle(fleet.publisher, version="2")
    order = fleet.assignment(DEVICE, good, version="2")
    fleet.bundles[order.digest] = good[:500] + bytes([good[500] ^ 1]) + good[501:]
    fleet.send(DEVICE, messages.sign_assignment(order, fleet.director))
    refused(fleet, device, order, "the order says")


def test_a_truncated_bundle(fleet, device, impatient):
    good = tiny_bundle(fleet.publisher, version="2")
    order = fleet.assignment(DEVICE, good, version="2")
    fleet.bundles[order.digest] = good[:700]
    fleet.send(DEVICE, messages.sign_assignment(order, fleet.director))
    report = ends(fleet, order, "failed")
    assert "the connection ended at byte 700" in report.reason
    still_the_first(device, report)


def test_data_without_end(fleet, device):
    fleet.faults.longer = bytes(1_000_000)
    refused(fleet, device, second(fleet), "more than the assigned")


# --- metadata ---------------------------------------------------------------------------------


def replaced(fleet, name, data):
    """From now on `name` is answered with `data`."""
    fleet.relay = lambda path, found: data if path == f"tuf/metadata/{name}" else found


def published(fleet, name):
    return (fleet.repository.folder.metadata / name).read_bytes()


def test_metadata_without_end(fleet, device):
    replaced(fleet, "timestamp.json", bytes(100_000))
    refused(fleet, device, second(fleet), "metadata-endless")


def test_an_old_timestamp(fleet, device):
    fleet.order(DEVICE, tiny_bundle(fleet.publisher, version="1b"), version="1b")
    old = published(fleet, "timestamp.json")
    replaced(fleet, "timestamp.json", old)
    eventually(lambda: fleet.last(DEVICE).running.version == "1b", "1b")
    device.digest = fleet.last(DEVICE).running.digest
    eventually(lambda: fleet.last(DEVICE).phase == "confirmed", "confirmed")
    order = second(fleet)  # the old timestamp leads to a list without version 2
    refused(fleet, device, order, "target-not-listed")


def test_a_timestamp_older_than_one_that_was_seen(fleet, device):
    old = published(fleet, "timestamp.json")
    taken(fleet, device, order := second(fleet))
    device.digest = order.digest
    replaced(fleet, "timestamp.json", old)
    third = fleet.order(DEVICE, tiny_bundle(fleet.publisher, version="3"), version="3")
    refused(fleet, device, third, "metadata-rolled-back", "timestamp version")


def test_a_forged_timestamp(fleet, device):
    forged = Metadata.from_bytes(published(fleet, "timestamp.json"))
    forged.signed.version += 100
    forged.sign(SigningKey.generate().signer)
    replaced(fleet, "timestamp.json", forged.to_bytes())
    refused(fleet, device, second(fleet), "metadata-forged", "timestamp")


def test_old_delegated_metadata_under_a_new_name(fleet, device):
    before = Metadata.from_bytes(published(fleet, "timestamp.json")).signed.version
    old = published(fleet, f"2.{ROLE}.json")
    assert before
    replaced(fleet, f"3.{ROLE}.json", old)
    refused(fleet, device, second(fleet), "metadata-mixed")


def test_a_list_signed_by_the_wrong_key(fleet, device):
    """The attacker has the keys of snapshot and timestamp, but not the profile's."""
    bundle = tiny_bundle(SigningKey.generate(), version="2")
    order = fleet.assignment(DEVICE, bundle, version="2")
    fleet.publish(bundle)
    repository, folder = fleet.repository, fleet.repository.folder
    key = repository.keys.folder / f"{ROLE}.pem"
    honest = SigningKey.load(key)
    current = folder.read()
    role = current.profiles[ROLE]
    role.signed.version += 1
    role.sign(SigningKey.generate().signer)
    files = {**current.files, ROLE: (role.signed.version, role.to_bytes())}
    folder.write(ROLE, *files[ROLE])
    current.files = files
    repository.commit(current, {}, SystemClock.wall())
    assert honest.public.keyid not in role.signatures
    fleet.send(DEVICE, messages.sign_assignment(order, fleet.director))
    refused(fleet, device, order, "metadata-forged", ROLE)


def test_another_root(fleet, device):
    shutil.rmtree(device.state / "trust")
    replaced(fleet, "1.root.json", published(fleet, "1.root.json") + b" ")
    refused(fleet, device, second(fleet), "root-not-pinned")


def test_an_order_for_what_is_not_listed(fleet, device):
    """Whoever has the director's key, but none of the repository's, can order nothing new."""
    fleet.list_target = lambda *_: None
    refused(fleet, device, second(fleet), "target-not-listed")


def test_an_order_for_other_bytes_than_are_listed(fleet, device):
    listed = fleet.assignment(DEVICE, tiny_bundle(fleet.publisher, version="2"), version="2")
    fleet.list_target = lambda *_: None
    other = tiny_bundle(fleet.publisher, version="2", spoil=0.001)
    assert sha256(other) != listed.digest
    order = fleet.order(DEVICE, other, version="2")
    refused(fleet, device, order, "target-differs", "the order names")


def test_a_withdrawn_version(fleet, device):
    taken(fleet, device, newer := second(fleet))
    device.digest = newer.digest
    assert fleet.repository.withdraw("quarters", "1", SystemClock.wall())
    fleet.list_target = lambda *_: None
    back = fleet.order(DEVICE, tiny_bundle(fleet.publisher))
    refused(fleet, device, back, "target-not-listed")


# --- what is no attack ------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets", "root", ROLE])
def test_a_rotated_key_is_accepted(fleet, device, role):
    done = ceremony.rotate(fleet.repository, role, SystemClock.wall())
    assert done.published
    assert not done.waiting
    taken(fleet, device, second(fleet))


def test_the_operators_own_rollback_is_accepted(fleet, device):
    taken(fleet, device, second(fleet))
    back = fleet.order(DEVICE, tiny_bundle(fleet.publisher))
    assert back.digest == device.digest
    taken(fleet, device, back)


# --- what is on the device --------------------------------------------------------------------


def test_a_target_damaged_on_disk_is_fetched_again(fleet, device):
    good = tiny_bundle(fleet.publisher, version="2")
    kept = device.state / "bundles" / f"{sha256(good)}.edge"
    kept.write_bytes(good[:-1] + b"?")
    taken(fleet, device, second(fleet))


def zeroed(device):
    for path in (device.state / "trust" / "metadata").rglob("*.json"):
        if path.is_file() and not path.is_symlink():
            path.write_bytes(bytes(path.stat().st_size))


def test_zeroed_local_metadata_mends_itself(fleet, device):
    zeroed(device)
    taken(fleet, device, second(fleet))


def test_zeroed_local_metadata_does_not_open_the_way_back(fleet, device):
    old = published(fleet, "timestamp.json")
    taken(fleet, device, order := second(fleet))
    device.digest = order.digest
    zeroed(device)
    replaced(fleet, "timestamp.json", old)
    fleet.list_target = lambda *_: None
    back = fleet.order(DEVICE, tiny_bundle(fleet.publisher))
    refused(fleet, device, back, "metadata-rolled-back", "was seen before")


# --- time -------------------------------------------------------------------------------------


def frozen(fleet):
    """What the repository signs from now on has expired a day ago."""
    fleet.signs_at = lambda: SystemClock.wall() - 2 * DAY


def deaf(fleet):
    """Nobody tells the device what time it is."""
    fleet.relay = lambda path, found: 503 if path == "time" else found


@pytest.mark.parametrize("wrong", [0.0, -YEARS, 2 * DAY], ids=["right", "1996", "two days ahead"])
@pytest.mark.parametrize("told", [True, False], ids=["told", "not told"])
def test_expired_metadata_is_refused_whatever_the_clock_says(fleet, device, wrong, told):
    device.clock.seconds = wrong
    if not told:
        deaf(fleet)
    frozen(fleet)
    order = second(fleet)
    assert "timestamp.json is expired" in hears(fleet, "metadata-expired")
    still_the_first(device)
    fleet.relay = lambda _path, found: found
    fleet.repository.renew(SystemClock.wall())  # and once it is renewed, nobody is locked out
    taken(fleet, device, order)


@pytest.mark.parametrize("wrong", [-YEARS, 2 * DAY, -2 * DAY], ids=["1996", "ahead", "behind"])
def test_a_wrong_clock_does_not_keep_the_device_from_an_update(fleet, device, wrong):
    device.clock.seconds = wrong
    taken(fleet, device, second(fleet))


def test_a_clock_in_1996_needs_no_time_server_for_fresh_metadata(fleet, device):
    device.clock.seconds = -YEARS
    deaf(fleet)
    taken(fleet, device, second(fleet))


def test_a_clock_ahead_waits_for_the_servers_time_and_says_so(fleet, device):
    device.clock.seconds = 2 * DAY
    deaf(fleet)
    order = second(fleet)
    assert "the server was not heard" in hears(fleet, "metadata-expired")
    still_the_first(device)
    fleet.relay = lambda _path, found: found
    taken(fleet, device, order)


def test_a_replayed_time_is_not_believed(fleet, device):
    answers = []

    def replay(path, found):
        if path != "time":
            return found
        answers.append(found)
        return answers[0]

    fleet.relay = replay
    device.clock.seconds = 2 * DAY
    taken(fleet, device, order := second(fleet))
    device.digest = order.digest
    fleet.order(DEVICE, tiny_bundle(fleet.publisher, version="3"), version="3")
    hears(fleet, "metadata-expired")
    still_the_first(device)


# --- the connection ---------------------------------------------------------------------------


def test_a_server_that_never_answers(fleet, device, impatient):
    never = Event()

    def hang(path, found):
        never.wait(20)
        return found

    fleet.relay = hang
    order = second(fleet)
    assert "timed out" in hears(fleet, "metadata-not-reached")
    report = ends(fleet, order, "failed")
    never.set()
    still_the_first(device, report)


def test_a_refused_connection(fleet, device, impatient):
    fleet.hang_up()
    order = second(fleet)
    assert "refused" in hears(fleet, "metadata-not-reached")
    still_the_first(device, ends(fleet, order, "failed"))


def test_metadata_of_which_only_the_head_arrives_is_asked_for_again(fleet, device):
    """As when the server is killed in the middle of an answer; it accuses nobody of anything."""
    cut = set()

    def once(path, found):
        if path in cut or not path.startswith("tuf/") or not found:
            return found
        cut.add(path)
        return None

    fleet.relay = once
    order = second(fleet)
    assert "IncompleteRead" in hears(fleet, "metadata-not-reached")
    taken(fleet, device, order)
    assert cut


# --- the broker -------------------------------------------------------------------------------


def test_a_broker_that_replays_reorders_forges_and_drops_the_link(fleet, device):
    """200 seeded tricks with every order that was ever sent; the newest model goes on running."""
    chance = random.Random(7)  # noqa: S311 - repeatable tricks
    orders = [device.order]
    for version in ("2", "3"):
        bundle = tiny_bundle(fleet.publisher, version=version)
        orders.append(fleet.order(DEVICE, bundle, version=version))
        taken(fleet, device, orders[-1])
    device.digest = orders[-1].digest
    genuine = [messages.sign_assignment(order, fleet.director) for order in orders]
    fake = messages.sign_assignment(
        msgspec.structs.replace(orders[0], generation=99), SigningKey.generate()
    )
    stolen = messages.sign_assignment(
        msgspec.structs.replace(orders[0], device="dev-2", generation=99), fleet.director
    )
    port = fleet.mqtt_port
    for _ in range(200):
        payload = bytearray(chance.choice([*genuine, fake, stolen]))
        match chance.randrange(5):
            case 0:
                payload[chance.randrange(len(payload))] ^= 1 << chance.randrange(8)
            case 1:
                del payload[chance.randrange(len(payload)) :]
            case 2 if chance.random() < 0.1:
                fleet.stop_mqtt()
                fleet.start_mqtt(port)
        fleet.send(DEVICE, bytes(payload))
    assert hears(fleet, "order-refused")
    still_the_first(device)
    fleet.send(DEVICE, genuine[-1])
    last = fleet.order(DEVICE, tiny_bundle(fleet.publisher, version="4"), version="4")
    taken(fleet, device, last)  # and it still obeys its server
    ran = {w.digest for w in fleet.bodies(DEVICE, messages.Window)}
    assert ran <= {order.digest for order in [*orders, last]}
