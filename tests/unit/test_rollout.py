"""Rollouts: who gets what, when it goes on, and that nobody waits for ever."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from edge_sdk.errors import InvalidInputError, RefusedError
from fleet_server.evidence.gates import Gate, Judgement
from fleet_server.rollout import grammar
from fleet_server.rollout.cohort import cohort_order, reach
from fleet_server.rollout.commands import obey
from fleet_server.rollout.engine import begin, decide
from fleet_server.rollout.grammar import Limits, Phase, Strategy
from fleet_server.rollout.orders import Target, due
from fleet_server.rollout.standing import look_at, standing
from fleet_server.rollout.state import Device, Look, Member, Order, Rollout
from fleet_server.rollout.strategies import SHIPPED, shipped

SITES = ("north", "south", "east")
FLEET = [(f"d{i}", SITES[i % 3], ("pi4", "zero")[i % 2]) for i in range(12)]


def rollout(name="canary", *, previous="1", now=0.0, **changes):
    order = cohort_order(FLEET, "r1")
    site = {device: where for device, where, _ in FLEET}
    board = {device: profile for device, _, profile in FLEET}
    strategy = replace(shipped(name), **changes)
    made = Rollout(
        id="r1",
        model="m",
        version="2",
        strategy=strategy,
        members=tuple(Member(d, site[d], previous, profile=board[d]) for d in order),
        by="ann",
        started_at=now,
        entered_at=now,
        past_since=-40.0,
        window_seconds=1.0,
    )
    return begin(made, now)


def canaries(name="canary", **changes):
    """A canary rollout whose devices have a past: three of them have the new version."""
    state, decision = decide(rollout(name, **changes), Look(at=5.0, past=(12, 12)))
    assert decision.reason == "past is complete"
    return state


def answers(state, *, failed=(), silent=(), now=10.0):
    """Every treated device confirmed but those named."""
    found = {}
    role = state.current.role
    for member in state.members:
        treated, name = member in state.treated, member.device
        good = treated and name not in failed and name not in silent
        found[name] = Device(
            id=name,
            running="2" if good and role == "serve" else "",
            beside="2" if good and role != "serve" else "",
            beside_as=role if role != "serve" else "standby",
            phase="reverted" if name in failed else "empty",
            reason="crashed" if name in failed else "",
            ordered_at=1.0 if treated else None,
            ordered="2" if treated else "",
            role=role if treated else "serve",
            generation=2 if treated else 0,
            last_seen=0.5 if name in silent else now,
        )
    return found


def look(state, *, verdict="pass", heard=None, now=10.0, **how):
    """What a look at those answers gives, every gate with one verdict."""
    seen, _ = look_at(state, answers(state, now=now, **how), now)
    told = tuple(
        Judgement(metric=g.metric, verdict=verdict, limit=0.0, words=f"{g.metric}: {verdict}")
        for g in state.strategy.gates
    )
    confirmed = seen.count("confirmed")
    evidence = (confirmed if heard is None else heard, confirmed)
    return replace(seen, judged=told if state.current.judged else (), evidence=evidence)


def ask(state, command, by="ann", at=50.0, **more):
    return obey(state, Order(command=command, by=by, at=at, **more))


# --- who is reached


def test_a_quarter_of_a_fleet_holds_a_quarter_of_every_site():
    order = cohort_order(FLEET, "seed")
    site = {device: where for device, where, _ in FLEET}
    assert sorted(site[d] for d in order[:3]) == sorted(SITES)
    assert sorted(site[d] for d in order[:6]) == sorted(SITES * 2)


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), min_size=1, max_size=60),
    st.text(max_size=5),
)
def test_every_prefix_of_the_order_is_fair_to_every_site(places, seed):
    fleet = [(f"d{i}", f"s{s}", f"p{p}") for i, (s, p) in enumerate(places)]
    order = cohort_order(fleet, seed)
    assert sorted(order) == sorted(d for d, _, _ in fleet)
    site = {d: s for d, s, _ in fleet}
    for k in range(1, len(order) + 1):
        for name in set(site.values()):
            share = sum(site[d] == name for d in order[:k])
            whole = sum(s == name for s in site.values())
            assert abs(share - k * whole / len(order)) <= len(set(site.values()))


def test_another_rollout_draws_other_canaries():
    assert cohort_order(FLEET, "a")[:3] != cohort_order(FLEET, "b")[:3]


@given(st.floats(0, 1), st.integers(0, 1000))
def test_a_phase_never_reaches_more_devices_than_there_are(share, devices):
    assert 0 <= reach(share, devices) <= devices
    assert (reach(share, devices) == 0) == (share == 0 or devices == 0)


# --- the grammar


def test_every_shipped_strategy_can_be_followed_and_read_back():
    for strategy in SHIPPED.values():
        grammar.check(strategy)
        assert msgspec.json.decode(msgspec.json.encode(strategy), type=Strategy) == strategy
    with pytest.raises(InvalidInputError, match="shipped are all-at-once, canary, staged"):
        shipped("blue")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"phases": (Phase(name="half", share=0.5),)}, "last phase must reach everyone"),
        ({"phases": ()}, "1 to 20 phases"),
        (
            {"phases": (Phase(name="a", share=0.9), Phase(name="b", share=0.5),
                        Phase(name="c", share=1.0))},
            "can't reach fewer devices",
        ),
        ({"phases": (Phase(name="a"), Phase(name="a", share=1.0))}, "the same name"),
        ({"phases": (Phase(name="a", share=1.0, min_windows=0),)}, "windows are 1 or above"),
        ({"gates": (Gate("latency", 0.0),)}, "the margin is a ratio"),
        ({"limits": Limits(window="at night")}, "must look like 02:00-04:00"),
        ({"limits": Limits(per_minute=-1)}, "per_minute must be 0"),
        ({"max_failed_share": 2.0}, "max_failed_share is 0 to 1"),
    ],
)  # fmt: skip
def test_a_strategy_that_can_t_be_followed_is_refused_with_the_reason(changes, words):
    with pytest.raises(InvalidInputError, match=words):
        grammar.check(replace(shipped("all-at-once"), **changes))


# --- decisions


def test_no_device_is_touched_before_there_is_a_past_to_compare_with():
    state = rollout()
    assert state.treated == ()
    state, decision = decide(state, Look(at=5.0, past=(9, 12)))
    assert (decision, state.treated) == (None, ())
    state, decision = decide(state, Look(at=90_000.0, past=(9, 12)))
    assert decision.action == "hold"
    assert "a past: 9 of 12 devices have 10 windows" in decision.reason


def test_a_good_version_widens_and_is_promoted_with_its_evidence():
    state = canaries()
    assert len(state.treated) == 3
    state, decision = decide(state, look(state))
    assert decision.action == "widen"
    assert {j.verdict for j in decision.evidence} == {"pass"}
    state, decision = decide(state, look(state, now=20.0))
    assert (state.status, decision.action) == ("promoted", "promote")
    assert decision.reason == "12 devices run 2"


def test_a_bad_version_is_rolled_back_for_its_words():
    state = canaries()
    state, decision = decide(state, look(state, verdict="fail"))
    assert (state.status, decision.action) == ("rolled back", "roll back")
    assert "confidence: fail" in decision.reason
    assert state.treated == ()


def test_it_does_not_go_on_while_a_canary_that_confirmed_has_not_been_judged():
    state = canaries()
    state, decision = decide(state, look(state, heard=2))
    assert decision is None
    state, decision = decide(state, look(state, heard=2, now=90_000.0))
    assert "evidence: 2 of 3 devices have sent 10 windows" in decision.reason


@pytest.mark.parametrize("verdict", ["no data", "inconclusive"])
def test_without_proof_it_waits_is_held_for_a_person_and_goes_on_once_there_is_some(verdict):
    state = canaries()
    state, decision = decide(state, look(state, verdict=verdict))
    assert decision is None
    state, decision = decide(state, look(state, verdict=verdict, now=90_000.0))
    assert (state.status, decision.action) == ("held", "hold")
    assert f"errors: {verdict}" in decision.reason
    assert "latency" not in decision.reason  # that gate only stops, it proves nothing
    state, decision = decide(state, look(state, now=90_001.0))
    assert decision.action == "widen"


@pytest.mark.parametrize(("choice", "action"), [("proceed", "widen"), ("roll back", "roll back")])
def test_what_happens_when_the_wait_is_over_is_the_operator_s_choice(choice, action):
    state = canaries()
    phases = tuple(replace(p, on_timeout=choice) for p in state.strategy.phases)
    state = replace(state, strategy=replace(state.strategy, phases=phases))
    _, decision = decide(state, look(state, verdict="inconclusive", now=90_000.0))
    assert (decision.action, decision.reason[:22]) == (action, "waited too long for er")


def test_a_phase_soaks_after_enough_devices_have_it():
    phases = (replace(shipped("all-at-once").phases[0], soak_seconds=60.0),)
    state = rollout("all-at-once", phases=phases)
    state, decision = decide(state, look(state, now=10.0))
    assert decision is None
    state, decision = decide(state, look(state, now=69.0))
    assert decision is None
    assert decide(state, look(state, now=70.0))[1].action == "promote"


def test_devices_that_fail_to_install_stop_it_before_any_gate():
    state = canaries()
    bad = state.treated[0].device
    state, decision = decide(state, look(state, failed={bad}))
    assert decision.action == "roll back"
    assert decision.reason == "1 of 3 devices that answered failed: reverted: crashed"


def test_an_unreached_device_is_not_waited_for_for_long_nor_counted_as_success():
    state = rollout("all-at-once")
    absent = state.treated[0].device
    assert decide(state, look(state, silent={absent}))[1] is None
    state, decision = decide(state, look(state, silent={absent}, now=100.0))
    assert decision.action == "promote"
    assert decision.reason == "11 devices run 2, 1 not yet"


def test_late_returners_that_fail_call_a_promotion_in_question_and_a_person_decides():
    state = rollout("all-at-once")
    late = {m.device for m in state.treated[:3]}
    state, _ = decide(state, look(state, silent=late, now=100.0))
    assert decide(state, look(state, silent=late, now=200.0))[1] is None
    state, decision = decide(state, look(state, failed=late, now=300.0))
    assert (state.status, decision.action) == ("reopened", "reopen")
    assert "since it was promoted: 3 of 12 devices that answered failed" in decision.reason
    assert decide(state, look(state, now=301.0)) == (state, None)  # it does not change its mind
    stands, _ = ask(state, "resume")
    assert stands.status == "promoted"
    assert decide(stands, look(stands, failed=late, now=400.0))[1] is None
    assert ask(state, "roll back")[0].status == "rolled back"


def test_the_watch_after_a_promotion_ends():
    state = rollout("all-at-once", watch_seconds=50.0)
    state, _ = decide(state, look(state, now=100.0))
    late = {m.device for m in state.members[:3]}
    assert decide(state, look(state, failed=late, now=151.0)) == (state, None)


# --- where devices stand


@pytest.mark.parametrize(
    ("facts", "now", "where"),
    [
        ({"ordered_at": None, "last_seen": 100.0}, 110.0, "waiting"),
        ({"ordered_at": None, "last_seen": 5.0}, 900.0, "unreached"),
        ({"last_seen": 0.5}, 20.0, "offline"),
        ({"last_seen": 0.5}, 90.0, "unreached"),
        ({"last_seen": 5.0}, 20.0, "ordered"),
        ({"last_seen": 5.0, "phase": "trial"}, 20.0, "updating"),
        ({"last_seen": 5.0, "phase": "deferred"}, 20.0, "deferred"),
        ({"last_seen": 5.0, "phase": "trial"}, 1000.0, "lost"),
        ({"last_seen": 5.0, "phase": "refused"}, 1000.0, "refused"),
        ({"last_seen": 5.0, "running": "2"}, 1000.0, "confirmed"),
        ({"last_seen": 5.0, "running": "2", "phase": "reverted"}, 20.0, "reverted"),
        ({"last_seen": 5.0, "beside": "2"}, 20.0, "ordered"),  # loaded, but not running
        ({"last_seen": 5.0, "superseded": True}, 20.0, "superseded"),
        ({"ordered_at": None, "failures": 3, "last_seen": 5.0}, 20.0, "quarantined"),
        ({"last_seen": 5.0, "gone": True}, 20.0, "gone"),
    ],
)
def test_where_a_device_stands_is_told_from_facts(facts, now, where):
    device = Device(**{"id": "d", "ordered_at": 1.0, "ordered": "2", **facts})
    assert standing(canaries(), Member("d", "s", "1"), device, now) == where


def test_without_a_bundle_or_a_device_there_is_nothing_to_wait_for():
    assert standing(canaries(), Member("d", "s", "1", possible=False), None, 9.0) == "no bundle"
    assert standing(canaries(), Member("d", "s", "1"), None, 9.0) == "gone"


# --- what devices are told


def told(state, fleet, now=10.0):
    _, standings = look_at(state, fleet, now)
    return {m.device: target for m, target in due(state, fleet, standings, now)}


def fresh(state, **facts):
    """No device was told anything yet; all run what they ran."""
    return {m.device: Device(id=m.device, last_seen=9.0, **facts) for m in state.members}


def test_only_the_phase_s_devices_are_told_and_only_once():
    state = canaries()
    assert told(state, fresh(state)) == {m.device: Target("2") for m in state.treated}
    assert told(state, answers(state)) == {}


def test_blue_green_loads_everywhere_then_switches_everywhere_and_can_go_back():
    state = canaries("blue-green")
    assert set(told(state, fresh(state)).values()) == {Target("2", "standby")}
    assert len(told(state, fresh(state))) == 12
    loaded = answers(state)
    state, decision = decide(state, look(state))
    assert (decision.action, state.current.name) == ("widen", "switch")
    assert told(state, loaded) == {m.device: Target("2") for m in state.members}
    back, _ = ask(state, "roll back")
    assert told(back, answers(state)) == {m.device: Target("1") for m in state.members}


def test_a_shadow_serves_nobody_until_it_is_a_canary():
    state = canaries("shadow")
    assert set(told(state, fresh(state)).values()) == {Target("2", "shadow")}
    state, _ = decide(state, look(state))
    assert state.current.name == "canary"
    assert len(state.treated) == 3
    shadows = {d: replace(v, role="shadow") for d, v in answers(state).items()}
    assert len(told(state, shadows)) == 3


def test_after_an_abort_who_confirmed_it_keeps_it_and_who_did_not_goes_back():
    state = canaries()
    half = state.treated[0].device
    ended, decision = ask(state, "abort")
    assert (ended.status, decision.action) == ("aborted", "abort")
    assert told(ended, answers(state, silent={half})) == {half: Target("1")}
    undone, _ = ask(ended, "roll back")
    assert len(told(undone, answers(state))) == 3


def test_an_ended_rollout_stays_as_it_is():
    state, _ = ask(canaries(), "abort")
    for command in ("abort", "pause", "approve", "supersede"):
        with pytest.raises(RefusedError, match="is aborted"):
            ask(state, command)
    assert decide(state, look(state)) == (state, None)


def test_a_paused_rollout_tells_nobody_anything_and_its_wait_stands_still():
    state = canaries()
    paused, _ = ask(state, "pause", at=10.0)
    assert told(paused, fresh(paused)) == {}
    assert decide(paused, look(paused)) == (paused, None)
    going, _ = ask(paused, "resume", at=100_000.0)
    assert decide(going, look(going, verdict="inconclusive", now=100_001.0))[1] is None
    assert told(going, fresh(going))


def test_a_scheduled_rollout_begins_at_its_time():
    state = replace(rollout("all-at-once"), status="scheduled", start_at=100.0, treated_since=None)
    assert told(state, fresh(state)) == {}
    assert decide(state, Look(at=99.0)) == (state, None)
    state, decision = decide(state, Look(at=100.0))
    assert (state.status, decision.action, len(state.treated)) == ("running", "start", 12)


def test_a_phase_that_needs_approval_gets_it_from_a_second_person_only():
    phases = shipped("canary").phases
    asks = (*phases[:2], replace(phases[2], approval=True))
    state = canaries(phases=asks)
    state, decision = decide(state, look(state))
    assert (state.status, decision.action) == ("to approve", "ask")
    assert told(state, answers(state)) == {}
    with pytest.raises(RefusedError, match="ann started rollout r1"):
        ask(state, "approve", by="ann")
    state, decision = ask(state, "approve", by="bob")
    assert (state.status, state.current.name, decision.reason) == ("running", "everyone", "by bob")


def test_retrying_gives_the_failed_ones_their_order_once_more():
    state = canaries(max_failed_share=0.5)
    bad = state.treated[0].device
    fleet = answers(state, failed={bad})
    assert told(state, fleet) == {}
    state, _ = ask(state, "retry", devices={bad: fleet[bad].generation})
    assert told(state, fleet) == {bad: Target("2")}
    again = {**fleet, bad: replace(fleet[bad], generation=3, phase="empty", reason="")}
    assert told(state, again) == {}
    with pytest.raises(InvalidInputError, match="nothing to retry"):
        ask(state, "retry")


def test_a_device_that_failed_too_often_is_left_alone_and_frees_its_place():
    state = rollout("all-at-once", limits=Limits(in_flight=1))
    first, second = (m.device for m in state.treated[:2])
    fleet = fresh(state)
    fleet[first] = replace(fleet[first], failures=3)
    assert list(told(state, fleet)) == [second]


def test_limits_hold_for_devices_in_flight_and_for_orders_a_minute():
    state = rollout("all-at-once", limits=Limits(in_flight=5, in_flight_per_site=2))
    given = told(state, fresh(state))
    site = {m.device: m.stratum for m in state.members}
    assert len(given) == 5
    assert max([site[d] for d in given].count(s) for s in SITES) == 2
    flying = {
        d: replace(v, ordered_at=8.0, ordered="2") if d in given else v
        for d, v in fresh(state).items()
    }
    assert told(state, flying) == {}
    slow = rollout("all-at-once", limits=Limits(per_minute=4))
    given = told(slow, fresh(slow))
    done = {
        d: replace(v, ordered_at=9.0, ordered="2", running="2") if d in given else v
        for d, v in fresh(slow).items()
    }
    assert len(given) == 4
    assert told(slow, done) == {}
    later = {d: replace(v, last_seen=70.0) for d, v in done.items()}
    assert len(told(slow, later, now=70.0)) == 4


def test_a_byte_rate_spreads_the_orders():
    state = rollout("all-at-once", limits=Limits(bytes_per_second=1000))
    state = replace(state, bundle_bytes=20_000)
    assert len(told(state, fresh(state))) == 3  # 60,000 bytes a minute


def test_limits_never_slow_down_the_way_back():
    state = rollout("all-at-once", limits=Limits(in_flight=1))
    state, _ = ask(state, "roll back")
    assert len(told(state, answers(rollout("all-at-once")))) == 12


def test_an_order_carries_its_policy():
    limits = Limits(window="02:00-04:00", device_bytes_per_second=5, valid_hours=2, metered=False)
    policy = limits.policy(1000.0)
    assert (policy.window, policy.rate_limit_bytes, policy.metered) == ("02:00-04:00", 5, False)
    assert policy.not_after == 1000.0 + 7200
    assert Limits().policy(1000.0).not_after == 0.0
