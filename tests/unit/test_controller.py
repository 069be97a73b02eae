"""Whole rollouts on the real store and controller, with simulated devices in fake time."""

import json

import pytest
from msgspec.structs import replace

from edge_sdk.errors import InvalidInputError
from edge_sdk.messages import read_order
from edge_sdk.ops import Op
from fleet_server.audit import verify
from tests.fleet_sim import FleetSim


@pytest.fixture
def fleet(tmp_path, database):
    """Twelve devices at three sites, all running version 1, with a past of 20 windows."""
    made = FleetSim(tmp_path, database)
    made.publish("1")
    first = made.roll_out("1", "all-at-once")
    assert made.run_until_ended(first) == "promoted"
    made.run(20)
    yield made
    made.store.close()


def test_a_good_version_reaches_everyone_canaries_first(fleet):
    fleet.publish("2", confidence=0.91)
    rollout = fleet.roll_out("2")
    fleet.run(5)
    assert sorted(set(fleet.running().values())) == ["1", "2"]
    assert list(fleet.running().values()).count("2") == 3
    assert fleet.run_until_ended(rollout) == "promoted"
    assert set(fleet.running().values()) == {"2"}


def test_an_order_says_which_operators_its_bundle_needs(fleet):
    needs = (Op("CONV_2D", 3, 5),)
    fleet.publish("2", ops=needs)
    fleet.roll_out("2", "all-at-once")
    fleet.run(1)
    orders = {read_order(row.envelope) for row in fleet.store.assignments().values()}
    assert {(order.version, order.needs) for order in orders} == {("2", needs)}


def test_a_bad_version_goes_back_by_itself_and_says_why(fleet):
    fleet.publish("2", confidence=0.7)
    rollout = fleet.roll_out("2")
    assert fleet.run_until_ended(rollout) == "rolled back"
    fleet.run(3)
    assert set(fleet.running().values()) == {"1"}
    row = fleet.controller.describe(fleet.store.rollout(rollout))
    assert "3 devices with the new version against 9 like them: confidence -0." in row.reason
    assert [g.verdict for g in row.gates if g.metric == "confidence"] == ["fail"]


def test_a_drifting_site_is_one_alert_and_rolls_nothing_back(fleet):
    fleet.publish("2", confidence=0.91)
    rollout = fleet.roll_out("2", "staged")
    fleet.run(14)
    fleet.drift["north"] = (0.7, -0.15)
    assert fleet.run_until_ended(rollout) == "promoted"
    [alert] = fleet.alerts()
    assert alert.scope == "digits site=north"
    fleet.drift.clear()
    fleet.run(30)
    assert fleet.alerts() == []
    told = fleet.store.audit(actor="decay", target=alert.id)
    assert (told[0].action, told[-1].action) == ("alert closed", "alert opened")
    assert json.loads(told[-1].detail)["scope"] == "digits site=north"  # what it was opened on
    assert verify(fleet.store.audit_chain())[0] > len(told)


def test_a_bad_version_is_found_under_the_drift_too(fleet):
    fleet.drift["north"] = (0.7, -0.15)
    fleet.run(20)
    fleet.publish("2", confidence=0.7)
    assert fleet.run_until_ended(fleet.roll_out("2")) == "rolled back"
    assert len(fleet.alerts()) == 1


def test_a_restarted_controller_goes_on_where_the_old_one_was(fleet):
    fleet.publish("2", confidence=0.91)
    rollout = fleet.roll_out("2")
    for _ in range(200):
        fleet.start_controller()
        fleet.run(1)
        if fleet.status(rollout) != "running":
            break
    assert fleet.status(rollout) == "promoted"
    assert set(fleet.running().values()) == {"2"}
    actions = [d.document for d in fleet.store.decisions(rollout)]
    assert len(actions) == 4  # start, past is complete, canaries passed, promoted: none twice


def test_generations_only_rise_whatever_happens(fleet):
    fleet.publish("2", confidence=0.7)
    fleet.run_until_ended(fleet.roll_out("2"))
    fleet.publish("3", confidence=0.9)
    fleet.run_until_ended(fleet.roll_out("3"))
    for device in fleet.devices.values():
        assert device.generations == sorted(set(device.generations))


def test_a_device_with_orders_that_a_restored_server_does_not_know_takes_the_next(fleet):
    for name, reported in (("d03", 1_000), ("d04", 2**60)):  # the second is not believed
        found = fleet.store.device(name)
        fleet.store.save_report(
            replace(found, generation=reported, report_seq=found.report_seq + 1)
        )
    fleet.publish("2")
    fleet.roll_out("2", "all-at-once")
    fleet.run(1)
    given = {name: row.generation for name, row in fleet.store.assignments().items()}
    assert (given["d03"], given["d04"], given["d05"]) == (1_001, 2, 2)


def test_devices_that_refuse_it_stop_it(fleet):
    fleet.publish("2")
    for device in fleet.devices.values():
        device.refuses = frozenset({"2"})
    rollout = fleet.roll_out("2", "all-at-once")
    assert fleet.run_until_ended(rollout) == "rolled back"
    reason = fleet.controller.describe(fleet.store.rollout(rollout)).reason
    assert "12 of 12 devices that answered failed: refused: the self-test failed" in reason
    assert set(fleet.running().values()) == {"1"}


def test_an_offline_device_does_not_hold_the_others_and_gets_it_when_it_returns(fleet):
    fleet.devices["d03"].offline = True
    fleet.publish("2")
    rollout = fleet.roll_out("2", "all-at-once")
    assert fleet.run_until_ended(rollout) == "promoted"
    assert fleet.running()["d03"] == "1"
    fleet.devices["d03"].offline = False
    fleet.run(3)
    assert fleet.running()["d03"] == "2"


def test_a_device_that_joins_later_gets_what_was_promoted(fleet):
    fleet.publish("2")
    fleet.run_until_ended(fleet.roll_out("2", "all-at-once"))
    fleet.join("d99", "north")
    fleet.run(3)
    assert fleet.running()["d99"] == "2"


def test_a_rollout_that_a_person_rolls_back_takes_its_devices_back(fleet):
    fleet.publish("2")
    rollout = fleet.roll_out("2")
    fleet.run(5)
    assert "2" in fleet.running().values()
    fleet.tell(rollout, "roll back")
    fleet.run(3)
    assert set(fleet.running().values()) == {"1"}


def test_what_can_t_be_rolled_out_is_refused_in_words(fleet, tmp_path):
    with pytest.raises(InvalidInputError, match=r"no bundle of digits 9 is published"):
        fleet.roll_out("9")
    fleet.publish("2")
    fleet.roll_out("2")
    with pytest.raises(InvalidInputError, match="is still running"):
        fleet.roll_out("2")
    with pytest.raises(InvalidInputError, match="there is no rollout"):
        fleet.tell("r-none", "abort")


def test_a_canary_needs_something_to_be_compared_with(tmp_path, database):
    empty = FleetSim(tmp_path, database)
    empty.publish("1")
    with pytest.raises(InvalidInputError, match="nothing to compare 1 with"):
        empty.roll_out("1", "canary")
    empty.store.close()
