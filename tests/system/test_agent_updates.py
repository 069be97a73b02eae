"""The agent against a real HTTP and MQTT server, with a real model."""

import stat
import time
from threading import Event
from types import SimpleNamespace

import msgspec
import pytest

from device_agent.agent import Agent
from device_agent.config import LinkConfig, UpdateConfig
from edge_sdk import messages
from edge_sdk.bundle import Golden
from edge_sdk.channels import Preprocessing
from edge_sdk.errors import InvalidInputError, ServerError, UntrustedError
from edge_sdk.identity import Token
from edge_sdk.interpreter import LiteRt
from edge_sdk.ops import Op
from edge_sdk.signing import SigningKey
from tests.agent_world import (
    BOARD,
    LABELS,
    MODEL,
    FleetServer,
    at_work,
    config,
    eventually,
    rows,
    running,
    setup,
    tiny_bundle,
)
from tests.bundles import make_bundle

pytestmark = pytest.mark.system
DEVICE = "dev-1"


@pytest.fixture
def fleet():
    with FleetServer() as found:
        yield found


@pytest.fixture
def confirmed(fleet, tmp_path):
    """A running agent that has version 1 confirmed."""
    with running(config(tmp_path, fleet.url), fleet.token) as agent:
        eventually(lambda: agent.standing.online, "online")
        order = fleet.order(DEVICE, tiny_bundle(fleet.publisher))
        settles(fleet, order, "confirmed")
        yield SimpleNamespace(order=order, digest=order.digest, agent=agent)


def settles(fleet, order, phase: str) -> messages.Report:
    """The report that this order came to `phase`."""
    eventually(lambda: (order.generation, phase) in fleet.phases(DEVICE), f"{phase}")
    return next(
        r
        for r in fleet.bodies(DEVICE, messages.Report)
        if (r.generation, r.phase) == (order.generation, phase)
    )


def test_an_agent_enrols_takes_its_order_and_confirms_what_runs(fleet, tmp_path):
    bundle = tiny_bundle(fleet.publisher)
    with running(config(tmp_path, fleet.url), fleet.token):
        eventually(lambda: fleet.last(DEVICE), "first report")
        assert fleet.last(DEVICE).phase == "empty"
        order = fleet.order(DEVICE, bundle)
        report = settles(fleet, order, "confirmed")
        assert report.running == messages.Running("quarters", "1", order.digest)
        assert report.runtime == "litert/xnnpack/cpu"
    assert [phase for _, phase in fleet.phases(DEVICE)] == [
        "empty", "fetching", "verified", "trial", "confirmed",
    ]  # fmt: skip
    assert fleet.enrolled[0].labels == {"site": "north"}
    assert stat.S_IMODE((tmp_path / "state" / "device.json").stat().st_mode) == 0o600


def test_a_model_with_an_operator_that_is_not_here_is_refused_before_a_byte_is_fetched(
    fleet, confirmed
):
    needs, before = (Op("CONV_2D", 3, 1), Op("FULLY_CONNECTED", 9, 99)), len(fleet.ranges)
    order = fleet.order(DEVICE, tiny_bundle(fleet.publisher, version="2"), version="2", needs=needs)
    report = settles(fleet, order, "refused")
    assert "needs op FULLY_CONNECTED in version 99, which this device's runtime" in report.reason
    assert report.running.digest == confirmed.digest
    assert len(fleet.ranges) == before


def test_telemetry_arrives_as_windows_of_the_running_model(fleet, confirmed):
    eventually(lambda: len(fleet.bodies(DEVICE, messages.Window)) > 3, "windows")
    window = fleet.bodies(DEVICE, messages.Window)[-1]
    assert window.digest == confirmed.digest
    assert window.rows > 0
    assert {"input.brightness", "output.class", "latency_ms"} <= set(window.channels)
    assert sum(window.channels["output.class"].counts) == window.rows


def test_tampered_bytes_are_refused_and_the_running_model_stays(fleet, confirmed):
    good = tiny_bundle(fleet.publisher, version="2")
    order = fleet.assignment(DEVICE, good, version="2")
    fleet.bundles[order.digest] = good[:-40] + bytes(40)
    fleet.send(DEVICE, messages.sign_assignment(order, fleet.director))
    report = settles(fleet, order, "refused")
    assert "the order says" in report.reason
    assert report.running.digest == confirmed.digest


def test_a_bundle_by_an_unknown_publisher_is_refused(fleet, confirmed):
    order = fleet.order(DEVICE, tiny_bundle(SigningKey.generate(), version="2"), version="2")
    report = settles(fleet, order, "refused")
    assert "signature does not hold" in report.reason
    assert report.running.digest == confirmed.digest


def test_a_bundle_that_is_not_what_the_order_names_is_refused(fleet, confirmed):
    order = fleet.order(DEVICE, tiny_bundle(fleet.publisher, version="2"), version="3")
    assert "the bundle is quarters 2" in settles(fleet, order, "refused").reason


def test_a_model_that_fails_its_golden_samples_is_refused_and_never_answers(fleet, confirmed):
    bundle = tiny_bundle(fleet.publisher, version="2", spoil=0.5)
    order = fleet.order(DEVICE, bundle, version="2")
    report = settles(fleet, order, "refused")
    assert "self-test failed: golden answers differ by" in report.reason
    assert report.running.digest == confirmed.digest
    assert all(w.digest != order.digest for w in fleet.bodies(DEVICE, messages.Window))


def test_a_model_that_does_not_load_is_refused(fleet, confirmed):
    bundle = tiny_bundle(fleet.publisher, version="2", model=b"TFL3" + bytes(100))
    report = settles(fleet, fleet.order(DEVICE, bundle, version="2"), "refused")
    assert "LiteRT does not load the model" in report.reason


def test_a_model_that_fails_at_work_is_reverted(fleet, tmp_path):
    """Its golden samples pass, but the images it declares are smaller than those it takes."""
    model, golden, small = MODEL.read_bytes(), rows(4), rows()[:, :4, :4]
    answers = LiteRt(model, Preprocessing(scale=1 / 16)).run_rows(golden)
    bundle = make_bundle(
        fleet.publisher,
        name="quarters",
        profile=BOARD.name,
        labels=LABELS,
        x=small,
        model=model,
        golden=Golden(golden, {"xnnpack": answers}),
    )
    with running(config(tmp_path, fleet.url), fleet.token, small):
        eventually(lambda: fleet.last(DEVICE), "first report")
        report = settles(fleet, fleet.order(DEVICE, bundle), "reverted")
    assert "inferences failed in a window" in report.reason
    assert report.running is None


def test_forged_orders_are_told_once_and_ignored(fleet, confirmed):
    bundle = tiny_bundle(fleet.publisher, version="2")
    forged = messages.sign_assignment(
        fleet.assignment(DEVICE, bundle, version="2"), SigningKey.generate()
    )
    for payload in (forged, forged, b"junk", b""):
        fleet.send(DEVICE, payload)
    eventually(lambda: len(fleet.bodies(DEVICE, messages.Event)) >= 2, "events")
    details = [event.detail for event in fleet.bodies(DEVICE, messages.Event)]
    assert "signature does not hold" in details[0]
    assert "can't be read" in details[1]
    assert len(details) == 2
    assert fleet.last(DEVICE).running.digest == confirmed.digest


def test_a_replayed_order_is_ignored_and_told(fleet, confirmed):
    old = messages.sign_assignment(confirmed.order, fleet.director)
    newer = fleet.order(DEVICE, tiny_bundle(fleet.publisher, version="2"), version="2")
    settles(fleet, newer, "confirmed")
    fleet.send(DEVICE, old)
    eventually(lambda: fleet.bodies(DEVICE, messages.Event), "event")
    assert "is not above" in fleet.bodies(DEVICE, messages.Event)[-1].detail
    assert fleet.last(DEVICE).running.digest == newer.digest


def test_an_order_for_another_device_is_ignored(fleet, confirmed):
    bundle = tiny_bundle(fleet.publisher, version="2")
    stolen = fleet.assignment("dev-2", bundle, version="2")
    fleet.send(DEVICE, messages.sign_assignment(stolen, fleet.director))
    eventually(lambda: fleet.bodies(DEVICE, messages.Event), "event")
    assert "an order for 'dev-2'" in fleet.bodies(DEVICE, messages.Event)[-1].detail


def test_a_forged_acknowledgement_deletes_nothing(fleet, tmp_path):
    fleet.acknowledging = False
    with running(config(tmp_path, fleet.url), fleet.token) as agent:
        eventually(lambda: fleet.last(DEVICE), "first report")
        waiting = agent.standing.outbox
        [(_, boot)] = fleet.stored
        fleet._on_loop(DEVICE, "ack", messages.seal_ack(boot, 1, DEVICE, b"another key"))
        eventually(lambda: fleet.bodies(DEVICE, messages.Event), "event")
        assert agent.standing.outbox > waiting - 1


def test_every_window_made_while_the_server_was_away_arrives_once(fleet, confirmed):
    port = fleet.mqtt_port
    fleet.stop_mqtt()
    eventually(lambda: confirmed.agent.standing.outbox > 6, "windows wait")
    fleet.start_mqtt(port)
    eventually(lambda: confirmed.agent.standing.outbox < 2, "windows gone")
    for stored in fleet.stored.values():
        assert sorted(stored) == list(range(1, len(stored) + 1))


def test_a_restart_runs_the_confirmed_model_again_without_a_download(fleet, tmp_path):
    given = config(tmp_path, fleet.url)
    with running(given, fleet.token):
        order = fleet.order(DEVICE, tiny_bundle(fleet.publisher))
        settles(fleet, order, "confirmed")
    fetches, reports = len(fleet.ranges), len(fleet.phases(DEVICE))
    with running(given, fleet.token) as agent:
        eventually(lambda: agent.standing.running, "running")
        eventually(lambda: len(fleet.phases(DEVICE)) > reports, "report")
    assert fleet.last(DEVICE).running.digest == order.digest
    assert fleet.last(DEVICE).phase == "confirmed"
    assert len(fleet.ranges) == fetches
    assert len(fleet.enrolled) == 1


def test_a_confirmed_bundle_damaged_on_disk_is_fetched_again(fleet, tmp_path):
    given = config(tmp_path, fleet.url)
    with running(given, fleet.token):
        order = fleet.order(DEVICE, tiny_bundle(fleet.publisher))
        settles(fleet, order, "confirmed")
    path = tmp_path / "state" / "bundles" / f"{order.digest}.edge"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    count = len(fleet.phases(DEVICE))
    with running(given, fleet.token):
        eventually(lambda: fleet.phases(DEVICE)[count:][-1:] == [(1, "confirmed")], "again")


def test_a_damaged_state_file_is_told_and_the_confirmed_model_runs(fleet, tmp_path):
    given = config(tmp_path, fleet.url)
    with running(given, fleet.token):
        order = fleet.order(DEVICE, tiny_bundle(fleet.publisher))
        settles(fleet, order, "confirmed")
    (tmp_path / "state" / "update.json").write_bytes(b"\0" * 50)
    with running(given, fleet.token) as agent:
        eventually(lambda: agent.standing.running, "running")
        eventually(lambda: fleet.bodies(DEVICE, messages.Event), "event")
    assert "update.json" in fleet.bodies(DEVICE, messages.Event)[0].detail


def test_a_wrong_token_ends_the_agent_in_words(fleet, tmp_path):
    wrong = msgspec.structs.replace(fleet.token, secret="0" * 40)
    with pytest.raises(ServerError, match="refused to enrol dev-1: the token is unknown"):
        Agent(setup(config(tmp_path, fleet.url), wrong)).run(Event())
    assert not (tmp_path / "state" / "enrolment.json").exists()


def test_a_server_that_is_not_the_tokens_is_not_believed(fleet, tmp_path):
    other = msgspec.structs.replace(fleet.token, fingerprint=Token.new(b"other").fingerprint)
    with pytest.raises(UntrustedError, match="is the token from this server"):
        Agent(setup(config(tmp_path, fleet.url), other)).run(Event())


def test_a_server_that_is_not_ready_is_waited_for(fleet, tmp_path):
    fleet.faults.enrol_status = 503
    with running(config(tmp_path, fleet.url), fleet.token) as agent:
        fleet.faults.enrol_status = 0
        eventually(lambda: agent.standing.online, "online")


def test_a_metered_link_defers_a_bundle_with_a_reason_and_takes_it_when_it_is_not(fleet, tmp_path):
    given = config(tmp_path, fleet.url)
    link = LinkConfig(server=fleet.url, metered=True, defer_above_bytes=100)
    with running(msgspec.structs.replace(given, link=link), fleet.token):
        eventually(lambda: fleet.last(DEVICE), "first report")
        order = fleet.order(DEVICE, tiny_bundle(fleet.publisher))
        report = settles(fleet, order, "deferred")
        assert "the link is metered" in report.reason
    assert fleet.ranges == []
    with running(given, fleet.token):
        settles(fleet, order, "confirmed")


def test_outside_its_window_a_device_keeps_what_it_runs_and_says_until_when(fleet, tmp_path):
    given = config(tmp_path, fleet.url)
    minute = 60 * time.localtime().tm_hour + time.localtime().tm_min
    later = [(minute + ahead) % 1440 for ahead in (120, 180)]
    window = "-".join(f"{at // 60:02d}:{at % 60:02d}" for at in later)
    shut = msgspec.structs.replace(given, update=UpdateConfig(window=window))
    with running(shut, fleet.token):
        first = fleet.order(DEVICE, tiny_bundle(fleet.publisher))
        settles(fleet, first, "confirmed")  # nothing ran, so there was nothing to wait for
        order = fleet.order(DEVICE, tiny_bundle(fleet.publisher, version="2"), version="2")
        report = settles(fleet, order, "deferred")
        assert f"waits for the maintenance window {window}" in report.reason
        assert report.running.digest == first.digest
    with running(given, fleet.token):
        settles(fleet, order, "confirmed")
        policy = messages.DeliveryPolicy(window=window)
        back = fleet.order(DEVICE, tiny_bundle(fleet.publisher), policy=policy)
        report = settles(fleet, back, "deferred")  # though its bundle is here
        assert f"waits for the maintenance window {window}" in report.reason
        assert report.running.digest == order.digest


def test_a_state_folder_of_another_server_is_not_used(fleet, tmp_path):
    given = config(tmp_path, fleet.url)
    with running(given, fleet.token) as agent:
        eventually(lambda: agent.standing.online, "online")
    moved = msgspec.structs.replace(given, link=LinkConfig(server="http://127.0.0.1:9"))
    with pytest.raises(InvalidInputError, match="is enrolled at"):
        Agent(setup(moved, fleet.token)).run(Event())


def test_an_agent_that_is_stopped_in_a_self_test_tries_the_model_again(fleet, tmp_path):
    begun = Event()

    def cut_short(_task, cancelled):
        begun.set()
        cancelled.wait(30)
        return "its self-test was ended by SIGTERM"

    given = config(tmp_path, fleet.url)
    with at_work(msgspec.structs.replace(setup(given, fleet.token), trial=cut_short)) as agent:
        eventually(lambda: agent.standing.online, "online")
        order = fleet.order(DEVICE, tiny_bundle(fleet.publisher))
        assert begun.wait(30)
    with running(given, fleet.token):
        settles(fleet, order, "confirmed")
    assert (order.generation, "refused") not in fleet.phases(DEVICE)
