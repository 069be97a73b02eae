"""Under any order, loss or doubling of what happens: the promises that a rollout keeps.

A rollout's pure parts with devices in memory that take orders late, twice, out of turn or never,
fail, go silent and come back, while people pause, approve, retry, abort and roll back.
"""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from msgspec.structs import replace

from edge_sdk.errors import EdgeError
from edge_sdk.formats import from_json, to_json
from edge_sdk.messages import Assignment
from fleet_server.evidence.gates import Judgement
from fleet_server.records import Seat
from fleet_server.rollcall import RollCall
from fleet_server.rollout.cohort import cohort_order, reached_by
from fleet_server.rollout.commands import obey
from fleet_server.rollout.engine import begin, decide
from fleet_server.rollout.evidence import gates_of
from fleet_server.rollout.grammar import Limits
from fleet_server.rollout.orders import due
from fleet_server.rollout.replay import essence, replay
from fleet_server.rollout.standing import look_at
from fleet_server.rollout.state import LIVE, UNDONE, Decision, Member, Order, Rollout
from fleet_server.rollout.strategies import SHIPPED

DEVICES = [f"d{i}" for i in range(8)]
DIGESTS = {"1": "one", "2": "two"}
COMMANDS = ("pause", "resume", "approve", "abort", "roll back", "retry")


class Bundle:
    """As much of a published bundle as the roll call asks for."""

    def __init__(self, version):
        self.model, self.version, self.profile = "m", version, "p"
        self.digest = DIGESTS[version]


class Board:
    """A device: takes only orders above the last, runs and holds what it was told, or fails."""

    def __init__(self):
        self.generation, self.running, self.beside = 1, "1", ""
        self.phase = "confirmed"

    def take(self, order, luck):
        if order.generation <= self.generation:
            return
        self.generation = order.generation
        if luck == "fails":
            self.phase = "reverted"
        elif order.role == "serve":
            self.running, self.beside, self.phase = order.version, "", "confirmed"
        else:
            self.beside, self.phase = order.version, order.role


class AnyOrder(RuleBasedStateMachine):
    """The live run; its log is replayed at the end."""

    @initialize(
        name=st.sampled_from(sorted(SHIPPED)),
        approval=st.booleans(),
        limits=st.sampled_from([Limits(), Limits(in_flight=2), Limits(per_minute=3)]),
        can_fail=st.sampled_from([0.1, 0.5]),
    )
    def start(self, name, approval, limits, can_fail):
        strategy = replace(SHIPPED[name], limits=limits, max_failed_share=can_fail)
        last = replace(strategy.phases[-1], approval=approval)
        phases = (*strategy.phases[:-1], last)
        order = cohort_order([(d, "s", "p") for d in DEVICES], "r1")
        made = Rollout(
            id="r1",
            model="m",
            version="2",
            strategy=replace(strategy, phases=phases),
            members=tuple(Member(d, "s", "1", profile="p") for d in order),
            status="to approve" if phases[0].approval else "running",
            by="ann",
            started_at=0.0,
            entered_at=0.0,
            past_since=-40.0,
            window_seconds=1.0,
        )
        self.first = self.state = made if phases[0].approval else begin(made, 0.0)
        self.log: list[Decision] = []
        self.now = 1.0
        self.boards = {d: Board() for d in DEVICES}
        seats = [
            Seat(
                device=d, profile="p", last_seen=0.5, revoked=False, running_model="m",
                running_version="1", running_digest="one", beside_digest="", phase="confirmed",
                reason="", generation=1, order_generation=1, order_model="m", order_version="1",
                order_digest="one", order_rollout="r0", ordered_at=-100.0,
            )
            for d in DEVICES
        ]  # fmt: skip
        self.call = RollCall(seats, [Bundle("1"), Bundle("2")], {})
        self.sent = {d: [] for d in DEVICES}
        self.ended = None

    # --- the server

    def tick(self, verdict, past):
        fleet = self.call.views(self.state)
        seen, standings = look_at(self.state, fleet, self.now)
        confirmed = seen.count("confirmed")
        told = tuple(
            Judgement(metric=g.metric, verdict=verdict, limit=0.0, words=verdict)
            for g in gates_of(self.state)
        )
        seen = replace(seen, judged=told, past=(past, 8), evidence=(confirmed, confirmed))
        self.move(*decide(self.state, seen))
        fleet = self.call.views(self.state)
        _, standings = look_at(self.state, fleet, self.now)
        for member, target in due(self.state, fleet, standings, self.now):
            self.give(member, target)

    def move(self, after, decision):
        self.state = replace(
            from_json(Rollout, to_json(replace(after, members=())), "it"), members=after.members
        )
        if decision:
            self.log.append(from_json(Decision, to_json(decision), "a decision"))

    def give(self, member, target):
        seat = self.call.seats[member.device]
        order = Assignment(
            device=member.device, generation=seat.order_generation + 1, model="m",
            version=target.version, profile="p", digest=DIGESTS[target.version], length=1,
            rollout="r1", not_before=self.now, role=target.role,
        )  # fmt: skip
        self.check(member, order)
        self.call.ordered(order)
        self.sent[member.device].append(order)

    def check(self, member, order):
        """No device is ever ordered a version outside the rollout's rules."""
        assert order.version in ("2", member.previous)
        if order.version == "2":
            assert self.state.status not in (*UNDONE, "paused", "to approve", "scheduled")
            place = self.state.members.index(member)
            phase = self.state.current
            assert place < reached_by(phase, 8) or self.state.status in ("promoted", "reopened")
            wanted = "serve" if self.state.status in ("promoted", "reopened") else phase.role
            assert order.role == wanted
        else:
            assert self.state.status in UNDONE
        before = self.sent[member.device]
        assert not before or order.generation > before[-1].generation

    # --- what happens

    @rule(
        verdict=st.sampled_from(["pass", "pass", "inconclusive", "no data", "fail"]),
        past=st.sampled_from([0, 8, 8]),
        wait=st.sampled_from([1.0, 1.0, 30.0, 100.0, 90_000.0]),
    )
    def looks(self, verdict, past, wait):
        self.now += wait
        self.tick(verdict, past)

    @rule(data=st.data(), luck=st.sampled_from(["works", "works", "works", "fails"]))
    def order_arrives(self, data, luck):
        """The newest or an old one, again or for the first time; the others may never come."""
        waiting = [d for d in DEVICES if self.sent[d]]
        if waiting:
            device = data.draw(st.sampled_from(waiting))
            self.boards[device].take(data.draw(st.sampled_from(self.sent[device])), luck)

    @rule(device=st.sampled_from(DEVICES), again=st.booleans())
    def report_arrives(self, device, again):
        """What the device says now; told twice it changes nothing."""
        self.report(device)
        once = self.call.seats[device]
        if again:
            self.report(device)
        assert replace(self.call.seats[device], last_seen=once.last_seen) == once

    def report(self, device):
        board = self.boards[device]
        self.call.seats[device] = replace(
            self.call.seats[device],
            last_seen=self.now,
            running_version=board.running,
            running_digest=DIGESTS[board.running],
            beside_digest=DIGESTS.get(board.beside, ""),
            phase=board.phase,
            reason="it crashed" if board.phase == "reverted" else "",
            generation=board.generation,
        )

    @rule(command=st.sampled_from(COMMANDS), by=st.sampled_from(["ann", "bob"]))
    def person_asks(self, command, by):
        fleet = self.call.views(self.state)
        bad = {d: v.generation for d, v in fleet.items() if v.phase == "reverted"}
        order = Order(
            command=command, by=by, at=self.now, devices=bad if command == "retry" else {}
        )
        try:
            self.move(*obey(self.state, order))
        except EdgeError:
            return
        assert command != "approve" or by == "bob"

    # --- what always holds

    @invariant()
    def ended_is_ended(self):
        if self.ended is not None and self.state.status == self.ended:
            assert not self.state.treated
        self.ended = self.state.status if self.state.status in UNDONE else self.ended
        assert self.ended is None or self.state.status in UNDONE

    def teardown(self):
        if not hasattr(self, "log"):
            return
        assert essence(replay(self.first, self.log)) == essence(self.state)
        self.nobody_is_stuck()

    def nobody_is_stuck(self):
        """With devices that answer and people who agree, every rollout comes to its end."""
        for _ in range(60):
            self.now += 61.0
            for device in DEVICES:
                for order in self.sent[device]:
                    self.boards[device].take(order, "works")
                self.report(device)
            for command in ("resume", "approve", "retry"):
                self.person_asks(command, "bob")
            self.tick("pass", 8)
            if self.state.status in ("promoted", *UNDONE):
                break
        assert self.state.status not in LIVE, f"stuck: {self.state.status} {self.state.reason}"


AnyOrder.TestCase.settings = settings(max_examples=80, stateful_step_count=30, deadline=None)
TestAnyOrder = AnyOrder.TestCase
