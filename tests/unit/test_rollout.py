"""Rollouts: who gets what, when it goes on, and that nobody waits for ever."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from edge_sdk.errors import InvalidInputError
from fleet_server.evidence import Arm, Gate, Point
from fleet_server.rollout import (
    LIVE,
    Device,
    Member,
    Phase,
    Rollout,
    Strategy,
    abort,
    cohort_order,
    reach,
    standing,
    step,
    strategy,
)

SITES = ("north", "south", "east")
FLEET = [(f"d{i}", SITES[i % 3], ("pi4", "zero")[i % 2]) for i in range(12)]


def rollout(name="canary", *, previous="1", now=0.0):
    order = cohort_order(FLEET, "r1")
    site = {device: where for device, where, _ in FLEET}
    return Rollout(
        id="r1",
        model="m",
        version="2",
        strategy=strategy(name),
        members=tuple(Member(d, site[d], previous) for d in order),
        started_at=now,
        entered_at=now,
        past_since=-40.0,
    )


def canaries():
    """A canary rollout whose devices have a past: three of them have the new version."""
    state = rollout()
    state, decision = step(state, answers(state), quiet(state), 5.0)
    assert decision.reason == "past is complete"
    assert len(state.treated) == 3
    return state


def answers(state, *, failed=(), silent=(), now=10.0):
    """Every treated device confirmed but those named."""
    found = {}
    for member in state.members:
        treated = member in state.treated
        good = treated and member.device not in failed and member.device not in silent
        found[member.device] = Device(
            id=member.device,
            running="2" if good else "1",
            failed="reverted: crashed" if member.device in failed else "",
            ordered_at=1.0 if treated else None,
            last_seen=0.5 if member.device in silent else now,
        )
    return found


def quiet(state, effect=0.0, windows=15):
    """Windows of every gate that show no change but `effect` on the treated."""
    treated = {m.device for m in state.treated}
    levels = {"errors": 0.0, "confidence": 0.9, "latency": 1.0}
    arms = {}
    for metric, level in levels.items():
        arms[metric] = []
        for i, m in enumerate(state.members):
            here = level + (effect if m.device in treated and metric == "confidence" else 0)
            wiggle = [0.001 * ((i + t) % 3 - 1) if level else 0.0 for t in range(windows)]
            past = tuple(Point(t, level + w, 100) for t, w in enumerate(wiggle))
            now = tuple(Point(t, here + w, 100) for t, w in enumerate(wiggle))
            arms[metric].append(Arm(m.device, m.stratum, m.device in treated, past, now))
    return arms


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


def test_no_device_is_touched_before_there_is_a_past_to_compare_with():
    state = rollout()
    assert state.treated == ()
    state, decision = step(state, answers(state), quiet(state, windows=9), 5.0)
    assert (decision, state.treated) == (None, ())
    state, decision = step(state, answers(state), {}, 90_000.0)
    assert decision.action == "hold"
    assert (
        "a past: 0 of 12 devices have 10 windows" in decision.reason or "0 of 0" in decision.reason
    )


def test_a_good_version_widens_and_is_promoted_with_its_evidence():
    state = canaries()
    state, decision = step(state, answers(state), quiet(state), 10.0)
    assert decision.action == "widen"
    assert {j.verdict for j in decision.evidence} == {"pass"}
    state, decision = step(state, answers(state), {}, 20.0)
    assert (state.status, decision.action) == ("promoted", "promote")
    assert decision.reason == "12 devices run 2"


def test_a_bad_version_is_rolled_back_for_its_words():
    state = canaries()
    state, decision = step(state, answers(state), quiet(state, effect=-0.2), 10.0)
    assert (state.status, decision.action) == ("rolled back", "roll back")
    assert "confidence -0.200" in decision.reason
    assert state.treated == ()


def test_it_does_not_go_on_while_a_canary_that_confirmed_has_not_been_judged():
    state = canaries()
    arms = quiet(state)
    late = state.treated[0].device
    cut = {
        m: [msgspec.structs.replace(a, now=a.now[:3]) if a.device == late else a for a in found]
        for m, found in arms.items()
    }
    state, decision = step(state, answers(state), cut, 10.0)
    assert decision is None
    state, decision = step(state, answers(state), cut, 90_000.0)
    assert "evidence: 2 of 3 devices have sent 10 windows" in decision.reason


def test_a_canary_that_never_had_a_past_is_not_waited_for():
    state = canaries()
    arms = quiet(state)
    newcomer = state.treated[0].device
    cut = {
        m: [msgspec.structs.replace(a, past=()) if a.device == newcomer else a for a in found]
        for m, found in arms.items()
    }
    assert step(state, answers(state), cut, 10.0)[1].action == "widen"


def test_without_data_it_waits_and_in_the_end_is_held_for_a_person():
    state = canaries()
    state, decision = step(state, answers(state), {}, 10.0)
    assert decision is None
    state, decision = step(state, answers(state), {}, 90_000.0)
    assert (state.status, decision.action) == ("held", "hold")
    assert "2 of each are needed" in decision.reason
    state, decision = step(state, answers(state), quiet(state), 90_001.0)
    assert decision.action == "widen"


def test_devices_that_fail_to_install_stop_it_before_any_gate():
    state = canaries()
    bad = state.treated[0].device
    state, decision = step(state, answers(state, failed={bad}), quiet(state), 10.0)
    assert decision.action == "roll back"
    assert "1 of 3 devices that answered failed: reverted: crashed" in decision.reason


def test_an_unreached_device_is_not_waited_for_for_long_nor_counted_as_success():
    state = rollout("all-at-once")
    absent = state.treated[0].device
    assert step(state, answers(state, silent={absent}), {}, 10.0)[1] is None
    state, decision = step(state, answers(state, silent={absent}, now=100.0), {}, 100.0)
    assert decision.action == "promote"
    assert decision.reason == "11 devices run 2, 1 not yet"


def test_a_device_that_was_heard_with_its_order_and_went_silent_is_lost():
    state = canaries()
    device = Device(id="d", running="1", ordered_at=1.0, last_seen=5.0)
    assert standing(state, Member("d", "s", "1"), device, 100.0) == "waiting"
    assert standing(state, Member("d", "s", "1"), device, 5000.0) == "lost"


def test_an_aborted_rollout_wants_nothing_and_ended_ones_stay_as_they_are():
    state, decision = abort(rollout(), "by hand", 5.0)
    assert (state.status, decision.action, state.treated) == ("aborted", "abort", ())
    assert abort(state, "again", 6.0) == (state, None)
    assert step(state, {}, {}, 7.0) == (state, None)


def test_an_unknown_strategy_names_the_known_ones():
    with pytest.raises(InvalidInputError, match="known are all-at-once, canary, staged"):
        strategy("blue")


@given(st.floats(0, 1), st.integers(0, 1000))
def test_a_phase_never_reaches_more_devices_than_there_are(share, devices):
    assert 0 <= reach(share, devices) <= devices
    assert (reach(share, devices) == 0) == (share == 0 or devices == 0)


class AnyOrder(RuleBasedStateMachine):
    """Under any sequence of looks: phases only widen, ended is ended, no version out of turn."""

    def __init__(self):
        super().__init__()
        plan = Strategy(
            name="t",
            gates=(Gate("confidence", 0.05),),
            phases=(
                Phase(name="p", share=0.0, min_windows=5, judged=False),
                Phase(name="a", share=0.25, min_windows=5),
                Phase(name="b", share=0.75, min_windows=5),
                Phase(name="c", share=1.0, judged=False),
            ),
        )
        self.state = msgspec.structs.replace(rollout(), strategy=plan)
        self.now = 0.0
        self.reached = 0
        self.ended = None

    @rule(
        effect=st.sampled_from([0.0, 0.0, -0.2]),
        windows=st.integers(0, 20),
        failed=st.sets(st.sampled_from([d for d, _, _ in FLEET]), max_size=1),
        silent=st.sets(st.sampled_from([d for d, _, _ in FLEET]), max_size=4),
        wait=st.floats(0, 50_000),
    )
    def look(self, effect, windows, failed, silent, wait):
        self.now += wait
        before = self.state
        fleet = answers(before, failed=failed, silent=silent, now=self.now)
        self.state, decision = step(before, fleet, quiet(before, effect, windows), self.now)
        replayed = step(before, fleet, quiet(before, effect, windows), self.now)
        assert replayed == (self.state, decision)
        if decision and decision.action in ("widen", "promote") and before.current.judged:
            assert all(j.verdict == "pass" for j in decision.evidence)
        assert (decision is None) == (
            (self.state.status, self.state.phase) == (before.status, before.phase)
        )

    @precondition(lambda self: self.state.status in LIVE)
    @rule()
    def give_up(self):
        self.state, _ = abort(self.state, "by hand", self.now)

    @invariant()
    def ended_is_ended(self):
        if self.ended:
            assert self.state == self.ended
        if self.state.status not in LIVE:
            self.ended = self.state

    @invariant()
    def only_widens(self):
        reached = len(self.state.treated)
        if self.state.status in (*LIVE, "promoted"):
            assert reached >= self.reached
            assert set(self.state.treated) <= set(self.state.members)
            self.reached = reached
        else:
            assert reached == 0


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=60, stateful_step_count=15, deadline=None)
