"""The tick: reads the fleet, asks the pure deciders, writes what they say.

All state is in the database: a controller that dies between two ticks loses nothing. One holds the
lease and works; each rollout is one transaction, written only if nobody changed the rollout since
it was read, and if the lease still holds; so every step may be repeated, and none is done twice.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from msgspec.structs import replace

from edge_sdk.errors import InvalidInputError
from edge_sdk.formats import from_json, to_json
from edge_sdk.messages import Assignment, DeliveryPolicy, sign_assignment
from edge_sdk.signing import SigningKey
from fleet_server import versions
from fleet_server.decay import DAY, State
from fleet_server.drift_alerts import DriftAlerts
from fleet_server.evidence.gates import OF_LABELS
from fleet_server.evidence.labelled import labelled
from fleet_server.evidence.windows import Columns, columns, joined
from fleet_server.planning import Wish, make_plan
from fleet_server.records import DeviceRecord, RolloutRecord, StandingRecord
from fleet_server.rollcall import RollCall
from fleet_server.rollout import commands, engine, orders
from fleet_server.rollout.evidence import index_of, past_ready, with_evidence
from fleet_server.rollout.orders import Target
from fleet_server.rollout.standing import look_at, reason_of
from fleet_server.rollout.state import (
    BAD,
    OPEN,
    UNDONE,
    Decision,
    Device,
    Look,
    Member,
    Order,
    Rollout,
    Standing,
)
from fleet_server.rollout_rows import device_rows, rollout_row
from fleet_server.store import Store
from fleet_server.store.listing import MemberFilter
from fleet_server.views import AlertRow, RolloutDevice, RolloutPlan, RolloutRow

LEASE, LEASE_SECONDS = "controller", 30.0
ORDERS_A_TICK = 2000  # signed and written at once for one rollout; the rest follows at the next
QUARANTINE_LOOKS_BACK = 24 * 3600.0
Signed = tuple[Assignment, bytes]


class Controller:
    """Runs rollouts and watches for drift; `publish` sends a device its signed order."""

    def __init__(
        self,
        store: Store,
        director: SigningKey,
        publish: Callable[[str, bytes], None],
        drift_past: float = DAY,
        holder: str = "server",
    ) -> None:
        """`holder` names this server among those that share the database, over its restarts."""
        self._store = store
        self._director = director
        self._publish = publish
        self._holder = holder
        self._drift = DriftAlerts(store, drift_past)
        self._judged_at: dict[str, float] = {}
        self._members: dict[str, tuple[Member, ...]] = {}
        self._sizes: dict[str, tuple[int, int]] = {}
        self._seen: dict[str, tuple[int, Columns | None]] = {}
        self._stood: dict[str, dict[str, StandingRecord]] = {}

    def tick(self, now: float) -> bool:
        """Look once; returns whether anything changed. Safe to repeat after a crash."""
        if not self._store.hold_lease(LEASE, self._holder, now, LEASE_SECONDS):
            return False
        call, watched = self._call(now), list(self._watched(now))
        self._forget({record.id for record in watched})
        changed = [self._one(record, call, now) for record in watched]
        changed.append(self._rest(call, now))
        with self._store.transaction():
            bundles = list(call.bundles.values())
            changed.append(self._drift.look(self._devices(), bundles, now))
        return any(changed)

    def plan(self, wish: Wish, now: float) -> RolloutPlan:
        """What a rollout would do; raises as `create` does."""
        return make_plan(self._store, self._call(now), wish, now).plan

    def create(self, wish: Wish, now: float) -> str:
        """Start a rollout, or schedule it.

        Raises:
            InvalidInputError: unknown version or strategy, no device to reach, or another rollout
                of the model still under way.
            RefusedError: another rollout took the devices meanwhile.
        """
        with self._store.transaction():
            planned = make_plan(self._store, self._call(now), wish, now)
            made = planned.rollout
            if planned.supersedes:
                why = f"for {made.id} of {made.model} {made.version}"
                self._obey(
                    planned.supersedes,
                    Order(command="supersede", by=wish.by, at=now, reason=why),
                )
            self._store.claim(made.id, [m.device for m in made.members])
            self._store.add_members(made.id, made.members)
            reason = f"{len(made.members)} devices by {made.strategy.name}"
            begun = Decision(at=now, action="start", phase=made.current.name, reason=reason)
            self._write(made, begun, now)
        return made.id

    def command(self, rollout_id: str, order: Order) -> None:
        """Do to a rollout what a person asks.

        Raises:
            InvalidInputError: there is no such rollout, or nothing to do.
            RefusedError: it is in no state for it, or an approval comes from who started it.
        """
        with self._store.transaction():
            self._obey(rollout_id, order)

    def read(self, record: RolloutRecord) -> Rollout:
        """A rollout as the rules know it."""
        found = from_json(Rollout, record.document, f"rollout {record.id}")
        if record.id not in self._members:
            self._members[record.id] = self._store.members(record.id)
        return replace(found, members=self._members[record.id])

    def describe(self, record: RolloutRecord) -> RolloutRow:
        """A rollout as pages and commands show it."""
        found = from_json(Rollout, record.document, f"rollout {record.id}")
        running = self._store.confirmed(record.id, found.model, found.version)
        standings = self._store.standing_counts(record.id)
        return rollout_row(found, self._size(record.id), running, standings)

    def devices(
        self, record: RolloutRecord, wanted: MemberFilter, after: str, limit: int
    ) -> list[RolloutDevice]:
        """Some devices of a rollout, as `member_page` gives them; reads no more than these."""
        found = from_json(Rollout, record.document, f"rollout {record.id}")
        members, able = self._size(record.id)
        gaps = self._store.places_without_bundle(record.id) if able < members else ()
        shown = self._store.member_page(record.id, wanted, after, limit)
        return device_rows(found, able, gaps, shown)

    def _size(self, rollout_id: str) -> tuple[int, int]:
        if rollout_id not in self._sizes:  # members never change
            self._sizes[rollout_id] = self._store.rollout_size(rollout_id)
        return self._sizes[rollout_id]

    def forget(self, device: str, now: float) -> dict[str, int]:
        """Erase what came from a device; how many rows of each kind there were."""
        with self._store.transaction():
            erased = self._store.forget_device(device)
            self._drift.forget(device)
            self._store.add_event(now, "operator", "device forgotten", device)
        return erased

    def drift_states(self, model: str) -> Sequence[State]:
        """How each device of a model stands against its own past, as last looked at."""
        return self._drift.states(model)

    def rebaseline(self, alert: AlertRow, now: float) -> AlertRow:
        """What an alert's devices look like now is how they shall look."""
        with self._store.transaction():  # the tick, too, holds it: they take turns
            return self._drift.rebaseline(alert, now)

    def drifting(self) -> Mapping[str, tuple[str, ...]]:
        """Device to the input channels that moved there, as last looked at."""
        return self._drift.drifting

    def _forget(self, watched: set[str]) -> None:
        """Drop what was kept of rollouts that decide nothing any more."""
        for kept in (self._judged_at, self._seen, self._stood, self._members):
            for rollout_id in kept.keys() - watched:
                kept.pop(rollout_id, None)  # pages read beside the tick

    # --- one rollout

    def _one(self, record: RolloutRecord, call: RollCall, now: float) -> bool:
        before = self.read(record)
        fleet = call.views(before)
        look, standings = look_at(before, fleet, now)
        look = self._with_evidence(before, look, standings, fleet, now)
        after, decision = engine.decide(before, look)
        if decision:  # another phase reaches others, and asks other things of them
            fleet = call.views(after)
            _, standings = look_at(after, fleet, now)
        due = orders.due(after, fleet, standings, now)
        signed = self._sign(after, due, call, now)
        moved = self._moved(before, after, fleet, standings, now)
        if not (decision or signed or moved or after != before):
            return False
        with self._store.transaction():
            if not self._still(record, now):
                return False
            if after != before:
                self._write(after, decision, now)
            self._store.move(moved)
            self._store.order(signed)
        for one in moved:
            self._stood[record.id][one.device] = one
        self._send(signed, call)
        return bool(decision or signed or moved)

    def _with_evidence(
        self,
        rollout: Rollout,
        look: Look,
        standings: dict[str, Standing],
        fleet: Mapping[str, Device],
        now: float,
    ) -> Look:
        """Ask the windows, no more often than new ones come."""
        asks = rollout.status in ("running", "held", "promoted")
        if not asks or now - self._judged_at.get(rollout.id, 0.0) < rollout.window_seconds / 2:
            return look
        if rollout.current.reaches_nobody:
            self._judged_at[rollout.id] = now
            return self._with_past(rollout, look, fleet, now)
        if not (rollout.current.judged or rollout.status == "promoted") or not look.count(
            "confirmed"
        ):
            return look
        self._judged_at[rollout.id] = now
        asked = any(gate.metric in OF_LABELS for gate in rollout.strategy.gates)
        labels = self._store.labels(rollout.model, rollout.past_since) if asked else ()
        told = labelled(labels, index_of(rollout)) if labels else None
        return with_evidence(rollout, look, standings, self._windows(rollout), told)

    def _with_past(
        self, rollout: Rollout, look: Look, fleet: Mapping[str, Device], now: float
    ) -> Look:
        quiet = rollout.unreached_after
        heard = {
            m.device
            for m in rollout.able
            if m.previous and m.device in fleet
            if now - (fleet[m.device].last_seen or 0.0) <= quiet
        }
        ready = past_ready(rollout, self._windows(rollout), heard)
        return replace(look, past=(ready, len(heard)))

    def _windows(self, rollout: Rollout) -> Columns:
        """The rollout's windows: those of the last look, and what was stored since."""
        read_to, seen = self._seen.get(rollout.id, (0, None))
        fresh = self._store.windows(rollout.model, rollout.past_since, read_to)
        found = columns(fresh, index_of(rollout))
        found = joined(seen, found) if seen is not None else found
        self._seen[rollout.id] = (fresh[-1].id if fresh else read_to, found)
        return found

    def _moved(
        self,
        before: Rollout,
        after: Rollout,
        fleet: Mapping[str, Device],
        standings: Mapping[str, Standing],
        now: float,
    ) -> list[StandingRecord]:
        """Who stands elsewhere than the database says."""
        if after.status in UNDONE:
            return []
        stood = self._stood.setdefault(before.id, {})
        if not stood:
            stood.update(self._store.standings(before.id))
        found = []
        for name, where in standings.items():
            device, known = fleet.get(name), stood.get(name)
            generation = device.generation if device else 0
            if known and (known.standing, known.generation) == (where, generation):
                continue
            found.append(
                StandingRecord(
                    rollout=before.id,
                    device=name,
                    standing=where,
                    reason=reason_of(device),
                    generation=generation,
                    at=now,
                )
            )
        return found

    # --- what ended rollouts still want

    def _rest(self, call: RollCall, now: float) -> bool:
        """Devices that came late get what was promoted; what was undone is taken back."""
        ages = self._store.ages()
        owned = self._store.claims()
        wanted = self._late(call, ages, owned)
        for rollout_id in self._undone(call, ages):
            record = self._store.rollout(rollout_id)
            if record is None:
                continue
            rollout = self.read(record)
            due = orders.due(rollout, call.views(rollout), {}, now)
            wanted += [(rollout, member.device, target) for member, target in due]
        signed = self._sign_all(wanted[:ORDERS_A_TICK], call, now)
        if not signed:
            return False
        with self._store.transaction():
            if not self._store.hold_lease(LEASE, self._holder, now, LEASE_SECONDS):
                return False
            self._store.order(signed)
        self._send(signed, call)
        return True

    def _late(
        self,
        call: RollCall,
        ages: Sequence[tuple[str, str, str, str]],
        owned: Mapping[str, str],
    ) -> list[tuple[Rollout, str, Target]]:
        newest = {model: n for n, (_, model, _, status) in enumerate(ages) if status == "promoted"}
        place = {rollout_id: n for n, (rollout_id, _, _, _) in enumerate(ages)}
        found = []
        for model, number in newest.items():
            rollout_id, _, version, _ = ages[number]
            late = [
                seat.device
                for seat in call.seats.values()
                if seat.order_model in ("", model)
                and seat.device not in owned
                and place.get(seat.order_rollout, -1) <= number
                and call.needs(seat, model, Target(version))
            ]
            record = self._store.rollout(rollout_id) if late else None
            if record is not None:
                promoted = self.read(record)
                found += [(promoted, device, Target(version)) for device in late]
        return found

    def _undone(self, call: RollCall, ages: Sequence[tuple[str, str, str, str]]) -> set[str]:
        """Undone rollouts whose version or role some device still has in its newest order."""
        versions = {i: version for i, _, version, status in ages if status in UNDONE}
        return {
            seat.order_rollout
            for seat in call.seats.values()
            if versions.get(seat.order_rollout) == seat.order_version and seat.order_version
        }

    # --- reading and writing

    def _devices(self) -> Iterator[DeviceRecord]:
        """Asked for only if there is something to look at."""
        yield from self._store.devices()

    def _call(self, now: float) -> RollCall:
        failures = self._store.failures(now - QUARANTINE_LOOKS_BACK, BAD)
        return RollCall(self._store.seats(), self._store.bundles(), failures)

    def _watched(self, now: float) -> Iterable[RolloutRecord]:
        """The rollouts that may decide something: those under way, and those under watch."""
        for record in self._store.rollouts_in((*OPEN, "promoted")):
            if record.status != "promoted" or now <= (self.read(record).watching_until or 0.0):
                yield record

    def _sign(
        self, rollout: Rollout, due: Sequence[tuple[Member, Target]], call: RollCall, now: float
    ) -> list[Signed]:
        wanted = [(rollout, member.device, target) for member, target in due[:ORDERS_A_TICK]]
        return self._sign_all(wanted, call, now)

    def _sign_all(
        self, wanted: Sequence[tuple[Rollout, str, Target]], call: RollCall, now: float
    ) -> list[Signed]:
        signed = []
        for rollout, device, target in wanted:
            seat = call.seats[device]
            bundle = call.bundle(rollout.model, target.version, seat.profile)
            if bundle is None:
                continue  # what it ran before is published no more: it stays where it is
            undoes = rollout.status in UNDONE
            assignment = Assignment(
                device=device,
                generation=orders.next_generation(seat.order_generation, seat.generation),
                model=rollout.model,
                version=target.version,
                profile=bundle.profile,
                digest=bundle.digest,
                length=bundle.length,
                rollout=rollout.id,
                not_before=now,
                needs=bundle.manifest.ops,
                role=target.role,
                policy=DeliveryPolicy() if undoes else rollout.strategy.limits.policy(now),
            )
            signed.append((assignment, sign_assignment(assignment, self._director)))
        return signed

    def _send(self, signed: Sequence[Signed], call: RollCall) -> None:
        for assignment, envelope in signed:
            call.ordered(assignment)
            self._publish(assignment.device, envelope)

    def _still(self, record: RolloutRecord, now: float) -> bool:
        """Whether the lease holds and nobody changed the rollout; only inside a transaction."""
        if not self._store.hold_lease(LEASE, self._holder, now, LEASE_SECONDS):
            return False
        found = self._store.rollout(record.id)
        return found is not None and found.document == record.document

    def _obey(self, rollout_id: str, order: Order) -> None:
        record = self._store.rollout(rollout_id)
        if record is None:
            raise InvalidInputError(f"there is no rollout {rollout_id[:40]!r}")
        before = self.read(record)
        if order.command == "retry":
            stood = self._store.standings(rollout_id).values()
            bad = {s.device: s.generation for s in stood if s.standing in BAD}
            order = replace(order, devices=bad)
        after, decision = commands.obey(before, order)
        self._write(after, decision, order.at)

    def _write(self, rollout: Rollout, decision: Decision | None, now: float) -> None:
        bare = replace(rollout, members=())
        self._store.save_rollout(
            rollout.id, rollout.model, rollout.version, rollout.status, to_json(bare), now
        )
        if rollout.status not in OPEN:
            self._store.release(rollout.id)
        if decision is None:
            return
        self._store.add_decision(rollout.id, decision.at, to_json(decision))
        versions.follow(self._store, rollout, decision)
        name = f"rollout {rollout.id}: {decision.action}"
        detail = f"{rollout.model} {rollout.version}, {decision.phase}: {decision.reason}"
        self._store.add_event(decision.at, "controller", name, detail)
