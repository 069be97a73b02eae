"""The device's update machine: stories, and the promises that hold under any order of events."""

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from device_agent import update as u
from device_agent.transitions import standing
from device_agent.update_events import (
    Action,
    Activate,
    Cancel,
    Deferred,
    Event,
    Fetch,
    Fetched,
    FetchFailed,
    Notice,
    Offered,
    Rejected,
    Restarted,
    RollBack,
    SelfTest,
    SelfTested,
    ServerContact,
    Shadow,
    Stop,
    Tell,
    WindowClosed,
)
from device_agent.update_states import (
    Beside,
    Empty,
    Fetching,
    Idle,
    Memory,
    Outcome,
    Rules,
    Trial,
    Verified,
    candidate,
    confirmed,
    digests,
)
from edge_sdk.formats import from_json, to_json
from edge_sdk.messages import Assignment

RULES = Rules(profile="pi", windows=2, max_error_share=0.1)


def order(
    generation: int, digest: str = "a", profile: str = "pi", role: str = "serve"
) -> Assignment:
    return Assignment(
        role=role,
        device="d",
        generation=generation,
        model="m",
        version=digest,
        profile=profile,
        digest=digest,
        length=10,
        rollout="r",
        not_before=0.0,
    )


def play(memory: Memory, *events: Event) -> tuple[Memory, list[Action]]:
    done: list[Action] = []
    for event in events:
        memory, actions = u.step(RULES, memory, event)
        done += actions
    return memory, done


def install(memory: Memory, one: Assignment) -> Memory:
    """Offer, fetch, test, try and confirm."""
    g = one.generation
    return play(
        memory,
        Offered(one),
        Fetched(g),
        SelfTested(g),
        ServerContact(),
        WindowClosed(one.digest, 1, 10, 0),
        WindowClosed(one.digest, 2, 10, 0),
    )[0]


def told(actions: list[Action]) -> list[tuple[int, str]]:
    return [(a.generation, a.outcome.phase) for a in actions if isinstance(a, Tell)]


def test_an_order_is_fetched_tested_tried_and_confirmed():
    memory, actions = play(Memory(), Offered(order(1)))
    assert actions == [Tell(1, Outcome("fetching")), Fetch(order(1), 1)]
    memory, actions = play(memory, Fetched(1, 512))
    assert actions == [Tell(1, Outcome("verified", "", 512)), SelfTest(order(1))]
    memory, actions = play(memory, SelfTested(1))
    assert actions == [Activate(order(1)), Tell(1, Outcome("trial", "", 512))]
    windows = (WindowClosed("a", 1, 10, 0), WindowClosed("a", 2, 10, 0))
    memory, actions = play(memory, *windows)
    assert actions == []  # healthy, but nobody heard of it
    memory, actions = play(memory, ServerContact())
    assert actions == [Tell(1, Outcome("confirmed", "", 512))]
    assert memory.state == Idle(order(1), Outcome("confirmed", "", 512))


def test_contact_alone_confirms_nothing_and_an_empty_window_is_not_a_healthy_one():
    trial, _ = play(Memory(), Offered(order(1)), Fetched(1), SelfTested(1))
    empty = (WindowClosed("a", n, 0, 0) for n in range(1, 9))
    memory, _ = play(trial, ServerContact(), *empty)
    assert isinstance(memory.state, Trial)


def test_contact_from_before_the_trial_does_not_count():
    fetched, _ = play(Memory(), Offered(order(1)), Fetched(1), ServerContact())
    windows = (WindowClosed("a", n, 10, 0) for n in (1, 2, 3))
    memory, _ = play(fetched, SelfTested(1), *windows)
    assert isinstance(memory.state, Trial)


@pytest.mark.parametrize("generation", [0, 1, 2])
def test_a_replayed_order_is_told_and_changes_nothing(generation):
    memory = install(Memory(), order(2))
    after, actions = play(memory, Offered(order(generation, "old")))
    assert after == memory
    [notice] = actions
    assert isinstance(notice, Notice)
    assert f"order {generation} is not above 2" in notice.detail


def test_the_retained_order_of_every_reconnect_is_silent():
    memory = install(Memory(), order(2))
    assert play(memory, Offered(order(2))) == (memory, [])


def test_an_order_for_the_running_model_is_confirmed_at_once():
    memory, actions = play(install(Memory(), order(1)), Offered(order(2)))
    assert actions == [Tell(2, Outcome("confirmed"))]
    assert confirmed(memory.state) == order(2)


def test_an_order_that_gives_the_running_model_another_name_must_face_its_manifest():
    safe = install(Memory(), order(1))
    renamed = msgspec.structs.replace(order(2), version="9")
    memory, actions = play(safe, Offered(renamed))
    assert actions[-1] == Fetch(renamed, 1)
    memory, _ = play(memory, Rejected(2, "the bundle is m a pi"))
    assert confirmed(memory.state) == order(1)


def test_a_model_for_another_board_is_refused_without_a_download():
    safe = install(Memory(), order(1))
    memory, actions = play(safe, Offered(order(2, "b", profile="mcu")))
    assert told(actions) == [(2, "refused")]
    assert not any(isinstance(a, Fetch) for a in actions)
    assert confirmed(memory.state) == order(1)


def test_a_failed_self_test_is_refused_and_never_activated():
    safe = install(Memory(), order(1))
    memory, actions = play(safe, Offered(order(2, "b")), Fetched(2), SelfTested(2, "differs by 3"))
    assert told(actions)[-1] == (2, "refused")
    assert not any(isinstance(a, Activate) for a in actions)
    assert memory.state == Idle(order(1), Outcome("refused", "differs by 3"))


def test_too_many_errors_on_trial_go_back_without_a_server():
    safe = install(Memory(), order(1))
    trial, _ = play(safe, Offered(order(2, "b")), Fetched(2), SelfTested(2))
    memory, actions = play(trial, WindowClosed("b", 9, 8, 2))
    assert actions[0] == Activate(order(1))
    assert told(actions) == [(2, "reverted")]
    assert "2 of 10 inferences failed" in memory.state.outcome.reason


def test_windows_of_the_model_before_do_not_judge_the_candidate():
    safe = install(Memory(), order(1))
    trial, _ = play(safe, Offered(order(2, "b")), Fetched(2), SelfTested(2))
    assert play(trial, WindowClosed("a", 9, 0, 10)) == (trial, [])


def test_a_first_model_that_fails_leaves_nothing_running():
    trial, _ = play(Memory(), Offered(order(1)), Fetched(1), SelfTested(1))
    memory, actions = play(trial, WindowClosed("a", 1, 0, 10))
    assert actions[0] == Stop()
    assert isinstance(memory.state, Empty)


def test_a_newer_order_supersedes_a_trial_on_the_confirmed_model():
    safe = install(Memory(), order(1))
    trial, _ = play(safe, Offered(order(2, "b")), Fetched(2), SelfTested(2))
    memory, actions = play(trial, Offered(order(3, "c")))
    assert actions == [
        Activate(order(1)),
        Tell(3, Outcome("fetching")),
        Fetch(order(3, "c"), 1),
    ]
    assert play(memory, SelfTested(2), Fetched(2), Rejected(2, "x")) == (memory, [])


def test_a_newer_order_cancels_a_download():
    fetching, _ = play(Memory(), Offered(order(1)))
    _, actions = play(fetching, Offered(order(2, "b")))
    assert actions[0] == Cancel(1)


def test_a_newer_order_for_the_model_on_trial_does_not_begin_anew():
    trial, _ = play(Memory(), Offered(order(1)), Fetched(1), SelfTested(1))
    half, _ = play(trial, WindowClosed("a", 1, 5, 0))
    memory, actions = play(half, Offered(order(2)))
    assert told(actions) == [(2, "trial")]
    assert memory.state.healthy == 1


def test_tries_without_progress_end_in_failed_and_progress_begins_the_count_anew():
    memory, _ = play(Memory(), Offered(order(1)))
    for _ in range(3 * u.TRIES):  # a link that cuts every few bytes still gets there
        state = memory.state
        memory, actions = play(memory, FetchFailed(1, state.attempt, "cut", state.got + 1))
        assert actions == [Fetch(order(1), 1)]
    for attempt in range(1, u.TRIES):
        memory, actions = play(memory, FetchFailed(1, attempt, "cut", 5))
        assert actions == [Fetch(order(1), attempt + 1)]
    memory, actions = play(memory, FetchFailed(1, u.TRIES, "cut", 5))
    assert told(actions) == [(1, "failed")]
    assert "10 tries without progress, the last: cut" in memory.state.outcome.reason


def test_a_denied_download_fails_at_once():
    _, actions = play(Memory(), Offered(order(1)), FetchFailed(1, 1, "404", final=True))
    assert told(actions)[-1] == (1, "failed")


def test_a_restart_tests_the_confirmed_model_before_it_answers():
    safe = install(Memory(), order(1))
    memory, actions = play(safe, Restarted())
    assert actions == [SelfTest(order(1), known=True)]
    assert play(memory, SelfTested(1))[1][0] == Activate(order(1))


def test_a_restart_goes_on_with_the_download():
    safe = install(Memory(), order(1))
    fetching, _ = play(safe, Offered(order(2, "b")))
    _, actions = play(fetching, Restarted())
    assert actions == [SelfTest(order(1), known=True), Fetch(order(2, "b"), 1)]


def test_a_model_that_takes_the_process_down_on_trial_is_reverted():
    memory = install(Memory(), order(1))
    memory, _ = play(memory, Offered(order(2, "b")), Fetched(2), SelfTested(2))
    for _ in range(u.STARTS - 1):
        memory, _ = play(memory, Restarted(), SelfTested(1), SelfTested(2))
        assert isinstance(memory.state, Trial)
    memory, actions = play(memory, Restarted())
    assert told(actions) == [(2, "reverted")]
    assert "started 3 times" in memory.state.outcome.reason
    assert SelfTest(order(1), known=True) in actions


def test_a_model_that_takes_the_process_down_in_its_self_test_is_refused():
    memory, _ = play(Memory(), Offered(order(1)), Fetched(1))
    memory, actions = play(memory, *[Restarted()] * u.STARTS)
    assert told(actions)[-1] == (1, "refused")


def test_a_confirmed_model_lost_on_disk_is_fetched_again():
    memory, actions = play(install(Memory(), order(1)), Restarted(), SelfTested(1, "gone"))
    assert Fetch(order(1), 1) in actions
    assert any(isinstance(a, Notice) and "gone" in a.detail for a in actions)
    assert memory.state == Fetching(None, order(1))


def test_the_same_window_told_twice_counts_once():
    trial, _ = play(Memory(), Offered(order(1)), Fetched(1), SelfTested(1))
    memory, _ = play(trial, ServerContact(), *[WindowClosed("a", 1, 10, 0)] * 5)
    assert memory.state.healthy == 1


def test_a_failure_told_twice_starts_one_new_try():
    memory, _ = play(Memory(), Offered(order(1)))
    _, actions = play(memory, *[FetchFailed(1, 1, "cut")] * 3)
    assert actions == [Fetch(order(1), 2)]


def test_without_a_sound_model_to_go_back_to_a_failed_trial_stops():
    safe = install(Memory(), order(1))
    memory, actions = play(safe, Offered(order(2, "b")), Restarted(), SelfTested(1, "gone"))
    assert isinstance(actions[-1], Notice)
    trial, _ = play(memory, Fetched(2), SelfTested(2))
    _, actions = play(trial, WindowClosed("b", 1, 0, 10))
    assert actions[0] == Stop()


def test_a_rollback_by_hand_tests_and_runs_the_version_before_and_says_why():
    memory = install(install(Memory(), order(1)), order(2, "b"))
    assert digests(memory) == {"a", "b"}
    memory, actions = play(memory, RollBack())
    assert actions == [SelfTest(order(1), known=True)]
    memory, actions = play(memory, SelfTested(1))
    assert actions == [Activate(order(1)), Tell(2, Outcome("reverted", u.BY_HAND))]
    assert play(memory, Offered(order(2, "b"))) == (memory, [])  # the retained order again
    _, [notice] = play(memory, RollBack())
    assert "no earlier version is kept" in notice.detail


def test_a_rollback_by_hand_gives_up_the_candidate_first():
    safe = install(Memory(), order(1))
    trial, _ = play(safe, Offered(order(2, "b")), Fetched(2), SelfTested(2))
    memory, actions = play(trial, RollBack())
    assert actions == [Activate(order(1)), Tell(2, Outcome("reverted", u.BY_HAND))]
    assert confirmed(memory.state) == order(1)


def test_a_lost_model_is_stood_in_for_by_the_one_before_while_it_is_fetched_again():
    memory = install(install(Memory(), order(1)), order(2, "b"))
    memory, actions = play(memory, Restarted(), SelfTested(2, "gone"))
    assert actions[-2:] == [SelfTest(order(1), known=True), Fetch(order(2, "b"), 1)]
    _, actions = play(memory, SelfTested(1))
    assert actions[0] == Activate(order(1))


def test_a_deferred_download_is_told_once_with_its_reason_and_again_when_it_begins():
    fetching, _ = play(Memory(), Offered(order(1)))
    memory, actions = play(fetching, *[Deferred(1, "metered link")] * 3)
    assert actions == [Tell(1, Outcome("deferred", "metered link"))]
    memory, actions = play(memory, Deferred(1, ""))
    assert actions == [Tell(1, Outcome("fetching"))]
    assert memory == fetching


def beside(role: str) -> Memory:
    """Model a answers, b is loaded beside it."""
    safe = install(Memory(), order(1))
    return play(safe, Offered(order(2, "b", role=role)), Fetched(2), SelfTested(2))[0]


def test_a_standby_is_fetched_and_tested_but_does_not_answer_until_it_is_told_to():
    memory = beside("standby")
    assert memory.state == Beside(order(1), order(2, "b", role="standby"))
    assert standing(memory) == Tell(2, Outcome("standby"))
    memory, actions = play(memory, Offered(order(3, "b")))
    assert actions == [Activate(order(3, "b")), Tell(3, Outcome("trial"))]
    memory, actions = play(memory, Offered(order(4)))  # the instant way back
    assert actions == [Activate(order(1)), Tell(4, Outcome("confirmed"))]


def test_the_way_back_after_the_switch_was_confirmed_needs_a_word_for_it_but_no_trial():
    memory, _ = play(beside("standby"), Offered(order(3, "b")), ServerContact())
    memory, _ = play(memory, WindowClosed("b", 1, 9, 0), WindowClosed("b", 2, 9, 0))
    assert confirmed(memory.state) == order(3, "b")
    memory, actions = play(memory, Offered(order(4)))  # its bundle is here: is it still listed?
    assert actions[-1] == Fetch(order(4), 1)
    assert confirmed(play(memory, Rejected(4, "not listed"))[0].state) == order(3, "b")
    memory, actions = play(memory, Fetched(4))
    assert actions == [SelfTest(order(4), known=True)]
    memory, actions = play(memory, SelfTested(4))
    assert actions == [Activate(order(4)), Tell(4, Outcome("confirmed"))]
    assert memory.previous == order(3, "b")  # and forth again is as quick


def test_a_shadow_runs_beside_and_ends_with_its_order():
    safe = install(Memory(), order(1))
    shadow = order(2, "b", role="shadow")
    memory, actions = play(safe, Offered(shadow), Fetched(2), SelfTested(2))
    assert actions[-2:] == [Shadow(shadow), Tell(2, Outcome("shadow"))]
    _, actions = play(memory, Offered(order(3)))
    assert actions == [Shadow(None), Tell(3, Outcome("confirmed"))]
    _, actions = play(memory, Offered(order(3, "b")))
    assert actions == [
        Shadow(None),
        Activate(order(3, "b")),
        Tell(3, Outcome("trial")),
    ]


def test_a_shadow_becomes_a_standby_without_a_download():
    _, actions = play(beside("shadow"), Offered(order(3, "b", role="standby")))
    assert actions == [Shadow(None), Tell(3, Outcome("standby"))]


@pytest.mark.parametrize("role", ["standby", "shadow"])
def test_nothing_stands_beside_nothing_nor_beside_itself(role):
    memory, actions = play(Memory(), Offered(order(1, role=role)))
    assert told(actions) == [(1, "refused")]
    assert "nothing answers here yet" in memory.state.outcome.reason
    memory, actions = play(install(Memory(), order(1)), Offered(order(2, role=role)))
    assert told(actions) == [(2, "refused")]
    assert confirmed(memory.state) == order(1)


def test_a_shadow_that_takes_the_process_down_is_given_up_but_not_for_three_reboots_in_a_year():
    memory, times = beside("shadow"), 0
    for _ in range(5):  # healthy in between
        memory, _ = play(memory, Restarted(), SelfTested(1), SelfTested(2))
        memory, _ = play(memory, WindowClosed("a", 1, 9, 0))
        assert isinstance(memory.state, Beside)
    while isinstance(memory.state, Beside):
        times += 1
        memory, _ = play(memory, Restarted(), SelfTested(1), SelfTested(2))
    assert times == u.STARTS + 1  # the first start was the healthy one's
    assert "on shadow" in memory.state.outcome.reason
    assert confirmed(memory.state) == order(1)


def test_a_standby_whose_primary_was_lost_meanwhile_never_answers_by_itself():
    safe = install(Memory(), order(1))
    memory, _ = play(safe, Offered(order(2, "b", role="standby")), Fetched(2))
    memory, actions = play(memory, Restarted(), SelfTested(1, "gone"), SelfTested(2))
    assert told(actions)[-1] == (2, "refused")
    assert not any(isinstance(a, Activate) for a in actions)


LIVE = ("order", "confirmed")


class Device(RuleBasedStateMachine):
    """A device whose every job may fail, be late or be told twice, and whose power may fail."""

    def __init__(self) -> None:
        super().__init__()
        self.memory = Memory()
        self.jobs: list[Action] = []  # the worker's queue, in order
        self.past: list[Event] = []
        self.offered = [order(0)]
        self.verified: set[str] = set()  # digests
        self.tested: set[str] = set()  # digests, since the last start
        self.running: str | None = None
        self.shadow: str | None = None
        self.leaving: str | None = None  # answers until the version before has passed its test
        self.window = 0
        self.healthy: dict[str, int] = {}

    def step(self, event: Event) -> None:
        before = self.memory
        after, actions = u.step(RULES, before, event)
        self.memory = from_json(Memory, to_json(after), "memory")  # as it comes from disk
        assert self.memory == after
        assert after.generation >= before.generation
        self.check_confirmed(before, after, event)
        for action in actions:
            self.do(action)
        self.past.append(event)

    def check_confirmed(self, before: Memory, after: Memory, event: Event) -> None:
        """The confirmed model changes only by a passed trial, or to the same model ordered anew."""
        old, new = confirmed(before.state), confirmed(after.state)
        if new is None:
            assert old is None or (isinstance(event, SelfTested) and event.reason), "lost"
        elif old is not None and new == before.previous:
            assert isinstance(event, RollBack | SelfTested)
        elif before.previous is not None and new.digest == before.previous.digest:
            assert isinstance(event, Fetched)  # ordered, kept from before, and still listed
            assert isinstance(before.state, Fetching)
            assert new == before.state.order
        elif old is None or old.digest != new.digest:
            assert isinstance(before.state, Trial)
            assert before.state.order == new
            assert self.healthy.get(new.digest, 0) >= RULES.windows

    def do(self, action: Action) -> None:
        match action:
            case Activate(what):
                assert what.digest in self.tested, "runs without a self-test"
                assert what.digest in self.verified, "runs without a signature"
                self.running, self.leaving = what.digest, None
            case Stop():
                self.running = self.leaving = None
            case Shadow(what):
                assert what is None or what.digest in self.tested & self.verified
                self.shadow = what.digest if what else None
            case Fetch() | SelfTest():
                self.jobs.append(action)
            case Cancel(generation):
                self.jobs = [j for j in self.jobs if j.order.generation != generation]

    @rule(
        digest=st.sampled_from("abc"),
        ahead=st.integers(1, 3),
        ours=st.integers(0, 9),
        role=st.sampled_from(["serve", "serve", "standby", "shadow"]),
    )
    def new_order(self, digest: str, ahead: int, ours: int, role: str) -> None:
        top = max(o.generation for o in self.offered)
        one = order(top + ahead, digest, "pi" if ours else "mcu", role)
        self.offered.append(one)
        before = self.running
        self.step(Offered(one))
        if confirmed(self.memory.state) == one and self.running not in (None, digest):
            self.leaving = before  # the way back: answers until the one before is tested again
        if one.profile != RULES.profile:
            assert not self.jobs or self.jobs[-1].order != one

    @rule(pick=st.randoms())
    def old_order(self, pick) -> None:
        before = self.memory
        self.step(Offered(pick.choice(self.offered)))
        assert self.memory == before

    @precondition(lambda self: self.jobs)
    @rule(luck=st.sampled_from(["ok", "ok", "ok", "cut", "denied", "wrong"]), got=st.integers(0, 9))
    def job_ends(self, luck: str, got: int) -> None:
        match self.jobs.pop(0):
            case SelfTest(what):
                if luck in ("ok", "cut"):
                    self.tested.add(what.digest)
                    self.step(SelfTested(what.generation))
                else:
                    self.step(SelfTested(what.generation, "differs"))
            case Fetch(what, attempt):
                generation = what.generation
                if luck == "ok":
                    self.verified.add(what.digest)
                    self.step(Fetched(generation, got))
                elif luck == "wrong":
                    self.step(Rejected(generation, "forged"))
                else:
                    final = luck == "denied"
                    self.step(FetchFailed(generation, attempt, luck, got, final))

    @precondition(lambda self: self.running)
    @rule(rows=st.integers(0, 20), errors=st.sampled_from([0, 0, 0, 1, 20]))
    def window_ends(self, rows: int, errors: int) -> None:
        self.window += 1
        if rows:
            self.healthy[self.running] = self.healthy.get(self.running, 0) + 1
        self.step(WindowClosed(self.running, self.window, rows, errors))

    @rule()
    def contact(self) -> None:
        self.step(ServerContact())

    @rule()
    def roll_back(self) -> None:
        if candidate(self.memory.state) is None and self.memory.previous:
            self.leaving = self.running
        self.step(RollBack())

    @rule(reason=st.sampled_from(["", "metered"]))
    def deferred(self, reason: str) -> None:
        before = self.memory
        self.step(Deferred(before.generation, reason))
        assert digests(self.memory) == digests(before)

    @precondition(lambda self: self.past)
    @rule(pick=st.randoms())
    def doubled(self, pick) -> None:
        """An event comes again: the last one, or one long gone by another order."""
        state = self.memory.state
        live = {getattr(getattr(state, name, None), "generation", -1) for name in LIVE}
        stale = [
            e
            for e in self.past
            if isinstance(e, Fetched | FetchFailed | Rejected | SelfTested)
            and e.generation not in live
        ]
        stale += [e for e in self.past if isinstance(e, WindowClosed) and e.number <= self.seen]
        if stale:
            before, running = self.memory, self.running
            self.step(pick.choice(stale))
            assert (self.memory, self.running) == (before, running)

    @property
    def seen(self) -> int:
        return self.memory.state.seen if isinstance(self.memory.state, Trial) else self.window

    @rule()
    def power_fails(self) -> None:
        self.jobs.clear()
        self.tested.clear()
        self.past = [e for e in self.past if not isinstance(e, WindowClosed)]
        self.running, self.shadow, self.leaving, self.window = None, None, None, 0
        self.step(Restarted())

    @invariant()
    def what_runs_is_the_candidate_on_trial_or_the_confirmed_model(self) -> None:
        state = self.memory.state
        safe = confirmed(state)
        if isinstance(state, Trial):
            assert self.running == state.order.digest
        else:
            allowed = (None, safe.digest if safe else None, self.leaving)
            assert self.running in allowed

    @invariant()
    def a_shadow_runs_only_while_its_order_stands(self) -> None:
        state = self.memory.state
        wanted = isinstance(state, Beside) and state.order.role == "shadow"
        assert self.shadow == (state.order.digest if wanted else None)

    @invariant()
    def no_model_answers_by_an_order_to_stand_beside(self) -> None:
        safe = confirmed(self.memory.state)
        assert safe is None or safe.role == "serve"
        assert not isinstance(self.memory.state, Trial) or self.memory.state.order.role == "serve"

    @invariant()
    def something_is_under_way_or_settled(self) -> None:
        if isinstance(self.memory.state, Fetching | Verified):
            assert any(j.order == self.memory.state.order for j in self.jobs), "stuck"


Device.TestCase.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
TestDevice = Device.TestCase


def test_memory_of_a_newer_agent_is_refused_in_words():
    newer = to_json(msgspec.structs.replace(Memory(), format=2))
    with pytest.raises(Exception, match="upgrade the side that is older"):
        from_json(Memory, newer, "update.json")
