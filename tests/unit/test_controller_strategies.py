"""Every strategy through the real store and controller, and what people do to it on the way."""

import itertools

import msgspec
import pytest
from msgspec.structs import replace

from edge_sdk.errors import InvalidInputError, RefusedError
from edge_sdk.formats import from_json
from fleet_server.controller import Controller
from fleet_server.rollout.replay import essence, replay
from fleet_server.rollout.state import Decision, Rollout
from fleet_server.rollout.strategies import shipped
from fleet_server.store.listing import MemberFilter
from fleet_server.versions import CHALLENGER, CHAMPION, set_alias, version_story
from fleet_server.views import AliasRow
from tests.fleet_sim import FleetSim


@pytest.fixture
def fleet(tmp_path, database):
    """Twelve devices at three sites, all running version 1, with a past of 20 windows."""
    made = FleetSim(tmp_path, database)
    made.publish("1")
    assert made.run_until_ended(made.roll_out("1", "all-at-once")) == "promoted"
    made.run(20)
    yield made
    made.store.close()


def rollout_of(fleet, rollout):
    return fleet.controller.read(fleet.store.rollout(rollout))


def log_of(fleet, rollout):
    told = reversed(fleet.store.decisions(rollout))
    return [from_json(Decision, d.document, "a decision") for d in told]


def history(fleet):
    """(role, version) in the order in which each device was told."""
    return {d.name: [(role, v) for _, v, role, _ in d.history] for d in fleet.devices.values()}


def test_blue_green_loads_it_everywhere_switches_at_once_and_keeps_the_way_back(fleet):
    fleet.publish("2")
    rollout = fleet.roll_out("2", "blue-green")
    fleet.run(2)
    assert {d.beside for d in fleet.devices.values()} == {("2", "standby")}
    assert set(fleet.running().values()) == {"1"}
    assert fleet.run_until_ended(rollout) == "promoted"
    assert set(fleet.running().values()) == {"2"}
    switched = {d.history[-1][0] for d in fleet.devices.values()}
    assert len(switched) == 1  # all in the same second
    fleet.tell(rollout, "roll back")
    fleet.run(2)
    assert set(fleet.running().values()) == {"1"}


def test_blue_green_goes_back_by_itself_when_it_errs_more_than_before(fleet):
    fleet.publish("2")
    fleet.errors["2"] = 0.2
    rollout = fleet.roll_out("2", "blue-green")
    assert fleet.run_until_ended(rollout) == "rolled back"
    fleet.run(2)
    assert set(fleet.running().values()) == {"1"}
    assert "errors +0.1" in fleet.store_reason(rollout)
    assert "without any control" in fleet.store_reason(rollout)


def test_a_shadow_that_agrees_becomes_a_canary_and_then_serves(fleet):
    fleet.publish("2", confidence=0.91)
    rollout = fleet.roll_out("2", "shadow")
    fleet.run(5)
    assert sum(d.beside == ("2", "shadow") for d in fleet.devices.values()) == 6
    assert set(fleet.running().values()) == {"1"}
    assert fleet.run_until_ended(rollout) == "promoted"
    assert set(fleet.running().values()) == {"2"}
    told = log_of(fleet, rollout)
    [widened] = [d for d in told if d.action == "widen" and d.phase == "canary"]
    assert {j.metric for j in widened.evidence} == {
        "disagreement", "shadow confidence", "shadow latency",
    }  # fmt: skip
    assert {j.against for j in widened.evidence} == {"primary"}


def test_a_shadow_that_disagrees_never_serves_anybody(fleet):
    fleet.publish("2")
    fleet.agreement["2"] = 0.6
    rollout = fleet.roll_out("2", "shadow")
    assert fleet.run_until_ended(rollout) == "rolled back"
    fleet.run(2)
    assert all(("serve", "2") not in told for told in history(fleet).values())
    assert {d.beside for d in fleet.devices.values()} == {None}


@pytest.mark.parametrize(("confidence", "ending"), [(0.95, "promoted"), (0.9, "rolled back")])
def test_an_ab_test_promotes_only_what_was_shown_to_be_better(fleet, confidence, ending):
    fleet.publish("2", confidence=confidence)
    half = replace(shipped("ab").phases[1], min_windows=15, max_wait_seconds=60.0)
    phases = (shipped("ab").phases[0], half, shipped("ab").phases[2])
    document = msgspec.to_builtins(replace(shipped("ab"), phases=phases))
    rollout = fleet.wish("2", document)
    fleet.run(3)
    assert list(fleet.running().values()).count("2") == 6
    assert fleet.run_until_ended(rollout) == ending


def test_the_log_of_any_rollout_replays_to_its_state(fleet):
    """What was stored is enough: the first state is the document as it was created."""
    fleet.publish("2", confidence=0.91)
    rollout = fleet.roll_out("2", "staged")
    first = rollout_of(fleet, rollout)
    fleet.run(8)
    fleet.tell(rollout, "pause")
    fleet.run(3)
    fleet.tell(rollout, "resume")
    assert fleet.run_until_ended(rollout) == "promoted"
    live = rollout_of(fleet, rollout)
    assert essence(replay(first, log_of(fleet, rollout))) == essence(live)
    forged = [
        replace(d, action="promote") if d.action == "widen" else d for d in log_of(fleet, rollout)
    ]
    with pytest.raises(Exception, match="does not follow from its evidence"):
        replay(first, forged)


def test_a_newer_version_supersedes_one_under_way_and_takes_its_devices(fleet):
    fleet.publish("2")
    older = fleet.roll_out("2")
    fleet.run(5)
    canaries = [name for name, version in fleet.running().items() if version == "2"]
    fleet.publish("3", confidence=0.91)
    with pytest.raises(InvalidInputError, match="is still running: wait, or"):
        fleet.roll_out("3", "all-at-once")
    newer = fleet.wish("3", {"name": "all-at-once"}, supersede=True)
    assert fleet.status(older) == "superseded"
    assert fleet.run_until_ended(newer) == "promoted"
    assert set(fleet.running().values()) == {"3"}
    before = {m.device: m.previous for m in rollout_of(fleet, newer).members}
    assert all(before[name] == "2" for name in canaries)
    assert fleet.store.claims() == {}


def test_two_rollouts_never_own_one_device(fleet):
    fleet.publish("2")
    rollout = fleet.roll_out("2")
    assert set(fleet.store.claims().values()) == {rollout}
    with pytest.raises(RefusedError, match="another rollout owns"):
        fleet.store.claim("r-other", ["d00"])
    fleet.tell(rollout, "abort")
    fleet.store.claim("r-other", ["d00"])


def test_one_controller_works_at_a_time_and_another_takes_over_when_it_is_gone(fleet):
    fleet.publish("2")
    rollout = fleet.roll_out("2", "all-at-once")
    other = Controller(fleet.store, fleet.keyring.director, fleet.deliver, holder="other")
    fleet.run(1)
    assert not other.tick(fleet.now)
    sent = len(fleet.inbox)
    fleet.now += 31.0
    assert other.tick(fleet.now)
    assert not fleet.controller.tick(fleet.now)
    assert len(fleet.inbox) <= sent or fleet.status(rollout) == "running"
    generations = [s.order_generation for s in fleet.store.seats()]
    assert set(generations) == {2}  # each was ordered once by whoever it was


def test_where_every_device_stands_is_written_down_once_a_change(fleet):
    fleet.publish("2")
    fleet.devices["d03"].refuses = frozenset({"2"})
    fleet.devices["d05"].offline = True
    document = msgspec.to_builtins(replace(shipped("all-at-once"), max_failed_share=0.5))
    rollout = fleet.wish("2", document)
    assert fleet.run_until_ended(rollout) == "promoted"
    record = fleet.store.rollout(rollout)
    rows = {r.device: r for r in fleet.controller.devices(record, MemberFilter(), "", 100)}
    assert len(rows) == len(fleet.devices)
    assert (rows["d03"].standing, rows["d03"].reason) == (
        "refused",
        "refused: the self-test failed",
    )
    assert rows["d05"].standing == "unreached"
    assert rows["d00"].standing == "confirmed"
    for name in fleet.devices:
        told = [t.standing for t in fleet.store.transitions(rollout, name)]
        assert all(a != b for a, b in itertools.pairwise(told)), told
    fleet.devices["d05"].offline = False
    fleet.run(3)
    assert fleet.stood(rollout)["d05"].standing == "confirmed"  # it came late, and is told so


def test_retry_gives_the_failed_ones_another_try(fleet):
    fleet.publish("2")
    fleet.devices["d03"].refuses = frozenset({"2"})
    document = msgspec.to_builtins(replace(shipped("all-at-once"), max_failed_share=0.5))
    rollout = fleet.wish("2", document)
    fleet.run_until_ended(rollout)
    fleet.devices["d03"].refuses = frozenset()
    fleet.tell(rollout, "retry")
    fleet.run(2)
    assert fleet.running()["d03"] == "2"


def test_a_scheduled_rollout_waits_and_an_aborted_one_leaves_what_is_confirmed(fleet):
    fleet.publish("2")
    rollout = fleet.wish("2", {"name": "all-at-once"}, start_at=fleet.now + 10)
    fleet.run(8)
    assert (fleet.status(rollout), set(fleet.running().values())) == ("scheduled", {"1"})
    fleet.run(5)
    assert set(fleet.running().values()) == {"2"}
    fleet.publish("3")
    rollout = fleet.roll_out("3")
    fleet.run(15)
    fleet.tell(rollout, "abort")
    fleet.run(3)
    assert sorted(set(fleet.running().values())) == ["2", "3"]


def test_limits_of_a_strategy_hold_in_the_fleet(fleet):
    fleet.publish("2")
    limits = {"in_flight": 2, "window": "02:00-04:00", "device_bytes_per_second": 5000}
    rollout = fleet.wish("2", {"name": "all-at-once", "limits": limits})
    fleet.run(2)
    assert list(fleet.running().values()).count("2") <= 4
    assert fleet.run_until_ended(rollout) == "promoted"
    assert len({d.history[-1][0] for d in fleet.devices.values()}) >= 6


def test_a_plan_says_who_gets_what_who_can_t_and_what_could_be_seen(fleet):
    fleet.join("d90", "north", profile="microcontroller")
    fleet.publish("2")
    plan = fleet.plan("2", {"name": "canary"})
    assert plan.phases == (("past", "serve", 0), ("canary", "serve", 3), ("everyone", "serve", 12))
    assert plan.bytes == 12 * fleet.store.bundles("digits")[-1].length
    [left] = [d for d in plan.devices if d.why_not]
    assert (left.device, left.why_not) == (
        "d90",
        "no bundle for its profile microcontroller is published",
    )
    seen = {d.metric: d for d in plan.detectable}
    assert 0.05 < seen["confidence"].smallest < 0.2
    assert "3 devices against 9 show a harm of" in seen["confidence"].words
    assert seen["accuracy"].smallest is None
    assert fleet.store.rollouts() != []
    assert fleet.status(fleet.roll_out("2")) == "running"


def test_a_strategy_that_can_t_be_read_is_refused_in_words(fleet):
    fleet.publish("2")
    for document, words in (
        ({"name": "canary", "phasen": []}, "can't be read"),
        ({"name": "nightly"}, "unknown strategy"),
        ({"name": "canary", "max_failed_share": 7}, "max_failed_share is 0 to 1"),
    ):
        with pytest.raises(InvalidInputError, match=words):
            fleet.wish("2", document)


def test_aliases_follow_rollouts_and_remember_what_they_meant(fleet):
    assert fleet.store.aliases("digits") == {("digits", CHAMPION): "1"}
    fleet.publish("2")
    rollout = fleet.roll_out("2")
    assert fleet.store.aliases("digits")[("digits", CHALLENGER)] == "2"
    assert fleet.run_until_ended(rollout) == "promoted"
    assert fleet.store.aliases("digits") == {("digits", CHAMPION): "2"}
    fleet.tell(rollout, "roll back")
    assert fleet.store.aliases("digits") == {("digits", CHAMPION): "1"}
    mine = AliasRow(
        model="digits", alias="gold", version="2", by="ann", reason="tried", at=fleet.now
    )
    set_alias(fleet.store, mine)
    story = version_story(fleet.store, "digits", "2")
    assert story.aliases == ("gold",)
    assert [(a.alias, a.version) for a in story.history] == [
        ("challenger", "2"), ("champion", "2"), ("challenger", ""), ("champion", "1"),
        ("gold", "2"),
    ]  # fmt: skip
    assert story.artefacts[0].profile == "raspberry-pi-4"
    assert version_story(fleet.store, "digits", "9") is None
    for alias, version in (("champion", "1"), ("Gold", "1"), ("gold", "9")):
        with pytest.raises(InvalidInputError):
            set_alias(fleet.store, replace(mine, alias=alias, version=version))


def test_a_rollout_s_document_stays_small_however_many_devices_it_has(fleet):
    fleet.publish("2")
    rollout = fleet.roll_out("2")
    record = fleet.store.rollout(rollout)
    assert from_json(Rollout, record.document, "it").members == ()
    assert len(rollout_of(fleet, rollout).members) == 12
