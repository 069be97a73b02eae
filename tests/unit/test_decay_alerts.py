"""An alert's life: opened once, widened with its cause, muted, re-baselined, closed, restarted."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_sdk.errors import FormatError, InvalidInputError, RefusedError
from fleet_server import alert_life as life
from fleet_server.decay import Finding, Movement
from fleet_server.decay.keeping import pack, unpack
from fleet_server.fleet import alert_row
from fleet_server.views import OVER
from tests.fleet_sim import FleetSim
from tests.server_side import every_alert

NOW = 1_800_000_000.0


def a_finding(scope="site=north", devices=("a", "b"), **changes):
    moved = Movement("input.brightness", 1.0, 0.3, -2.0, 0.0, 0.5, 0.3, 20.0)
    found = Finding(
        kind="data drift", cause="environment", scope=scope, devices=devices, of=4,
        moved=(moved,), loss=0.1, severity="critical", since=NOW - 60, versions=("1",),
        title="data drift", detail="d", action="look",
    )  # fmt: skip
    return msgspec.structs.replace(found, **changes)


def an_alert():
    return life.opened("m", a_finding(), NOW)


def test_an_alert_says_what_where_how_much_and_what_to_do():
    row = an_alert()
    assert (row.state, row.scope, row.kind) == ("open", "m site=north", "data drift")
    assert (row.cause, row.action, row.loss, row.devices, row.of) == (
        "environment", "look", 0.1, 2, 4,
    )  # fmt: skip
    assert row.channels == ("input.brightness",)


def test_a_cause_that_spreads_is_still_one_alert():
    row = an_alert()
    wider = a_finding("fleet", ("a", "b", "c", "d", "e"))
    assert life.about(wider, [row]) is row
    assert life.about(a_finding("site=south", ("x", "y")), [row]) is None
    assert life.about(msgspec.structs.replace(wider, kind="schema skew"), [row]) is None
    told = life.told(row, "m", wider, NOW + 60)
    assert (told.id, told.scope, told.devices) == (row.id, "m fleet", 5)


def test_a_muted_alert_is_silent_until_its_time_and_opens_again_if_the_cause_is_still_there():
    row = life.muted(an_alert(), NOW + 3600, NOW)
    assert life.told(row, "m", a_finding(), NOW + 3599).state == "muted"
    assert life.told(row, "m", a_finding(), NOW + 3600).state == "open"


@pytest.mark.parametrize("until", [NOW, NOW - 1, NOW + 91 * 86400, float("nan"), float("inf")])
def test_an_alert_can_not_be_muted_for_no_time_or_for_ever(until):
    with pytest.raises(InvalidInputError, match="90 days at most"):
        life.muted(an_alert(), until, NOW)


@given(
    st.lists(st.sampled_from(["acknowledge", "mute", "rebaseline", "close", "found"]), max_size=8)
)
def test_what_is_over_stays_over(events):
    row = an_alert()
    over = False
    for event in events:
        try:
            match event:
                case "acknowledge":
                    row = life.acknowledged(row)
                case "mute":
                    row = life.muted(row, NOW + 60, NOW)
                case "rebaseline":
                    row = life.rebaselined(row)
                case "close":
                    row = life.closed(row) if not over else row
                case "found":
                    row = life.told(row, "m", a_finding(), NOW) if not over else row
        except RefusedError:
            assert over
        else:
            assert not over or event in ("close", "found")
        over = row.state in OVER
        assert (row.muted_until is None) == (row.state != "muted")


@pytest.fixture
def fleet(tmp_path, database):
    made = FleetSim(tmp_path, database, devices=6)
    made.publish("1")
    made.roll_out("1", "all-at-once")
    made.run(30)
    yield made
    made.store.close()


def rows(fleet):
    return [alert_row(alert) for alert in every_alert(fleet.store)]


def assert_pasts_outlive_bytes(watch):
    for name, device in watch.devices.items():
        again = unpack(pack(device))
        for group, stream in device.streams.items():
            assert again.streams[group].layout.names == stream.layout.names
            assert again.streams[group].moved == stream.moved
            past, other = stream.past, again.streams[group].past
            assert other.normal.level == pytest.approx(past.normal.level, rel=1e-5, abs=1e-6)
        assert again.version == device.version, name


def test_a_restarted_server_goes_on_with_the_same_alert_and_the_same_pasts(fleet):
    fleet.drift["north"] = (0.6, -0.15)
    fleet.run(8)
    [before] = rows(fleet)
    assert_pasts_outlive_bytes(fleet.controller._drift._watches["digits"])
    fleet.start_controller()
    fleet.run(20)
    [after] = rows(fleet)
    assert (after.id, after.state, after.scope) == (before.id, "open", "digits site=north")
    assert after.loss == pytest.approx(before.loss, abs=0.05)


def test_what_is_re_baselined_is_over_and_does_not_come_back(fleet):
    fleet.drift["north"] = (0.6, -0.15)
    fleet.run(8)
    [row] = rows(fleet)
    with fleet.store.transaction():
        assert fleet.controller.rebaseline(row, fleet.now).state == "re-baselined"
    fleet.run(40)
    assert [r.state for r in rows(fleet)] == ["re-baselined"]
    fleet.drift["north"] = (0.3, -0.15)
    fleet.run(8)
    assert [r.state for r in rows(fleet)] == ["open", "re-baselined"]


@given(st.binary(max_size=200))
def test_junk_in_place_of_a_saved_past_is_refused_in_words(junk):
    with pytest.raises(FormatError, match="stored past"):
        unpack(junk)
