"""The tick: reads the fleet, asks the pure deciders, writes what they say in one transaction.

All state is in the database; a controller that dies between two ticks loses nothing but the
windows it follows for drift, which it reads again.
"""

import math
import secrets
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from edge_sdk.errors import InvalidInputError
from edge_sdk.formats import from_json, to_json
from edge_sdk.messages import Assignment, sign_assignment
from edge_sdk.signing import SigningKey
from fleet_server import rollout as rules
from fleet_server.decay import DAY, State
from fleet_server.drift_alerts import DriftAlerts
from fleet_server.evidence import WORSE_IF_HIGHER, Arm, Metric, Point
from fleet_server.records import (
    AssignmentRecord,
    BundleRecord,
    DeviceRecord,
    RolloutRecord,
    WindowRecord,
)
from fleet_server.rollout import Device, Member, Rollout, Strategy
from fleet_server.rollout_rows import ENDED_BADLY, rollout_row
from fleet_server.store import Store
from fleet_server.views import AlertRow, RolloutRow

PAST_WINDOWS = 40


class Controller:
    """Runs rollouts and watches for drift; `publish` sends a device its signed order."""

    def __init__(
        self,
        store: Store,
        director: SigningKey,
        publish: Callable[[str, bytes], None],
        drift_past: float = DAY,
    ) -> None:
        self._store = store
        self._director = director
        self._publish = publish
        self._drift = DriftAlerts(store, drift_past)
        self._judged_at: dict[str, float] = {}

    def tick(self, now: float) -> bool:
        """Look once; returns whether anything changed. Safe to repeat after a crash."""
        with self._store.transaction():
            fleet = _Fleet(self._store)
            live = [_read(r) for r in self._store.rollouts(None) if r.status in rules.LIVE]
            changed = [self._advance(rollout, fleet, now) for rollout in live]
            orders = self._orders(fleet, now)
            alerted = self._drift.look(fleet.devices.values(), fleet.bundles, now)
        for device, envelope in orders:
            self._publish(device, envelope)
        return any(changed) or bool(orders) or alerted

    def create(self, model: str, version: str, strategy: Mapping[str, Any], now: float) -> str:
        """Start a rollout; `strategy` is {"name": ...} of a shipped one, or a whole document.

        Raises:
            InvalidInputError: unknown version or strategy, no device to reach, or another rollout
                of the model still running.
        """
        with self._store.transaction():
            fleet = _Fleet(self._store)
            plan = self._plan(fleet, model, version, _strategy(strategy), now)
            self._save(plan, now)
            reason = f"{len(plan.members)} devices by {plan.strategy.name}"
            self._record(
                plan,
                rules.Decision(at=now, action="start", phase=plan.current.name, reason=reason),
            )
        return plan.id

    def abort(self, rollout_id: str, now: float) -> None:
        """End a rollout; its devices go back. Raises InvalidInputError if there is none such."""
        with self._store.transaction():
            found = [r for r in self._store.rollouts(None) if r.id == rollout_id]
            if not found:
                raise InvalidInputError(f"there is no rollout {rollout_id[:40]!r}")
            ended, decision = rules.abort(_read(found[0]), "aborted by the operator", now)
            if decision:
                self._save(ended, now)
                self._record(ended, decision)

    def describe(self, record: RolloutRecord, devices: Sequence[DeviceRecord]) -> RolloutRow:
        """A rollout as pages and commands show it."""
        orders = self._store.assignments()
        return rollout_row(_read(record), {d.id: d for d in devices}, orders)

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

    def _plan(
        self, fleet: "_Fleet", model: str, version: str, strategy: Strategy, now: float
    ) -> Rollout:
        bundles = {b.profile for b in fleet.bundles if (b.model, b.version) == (model, version)}
        if not bundles:
            raise InvalidInputError(
                f"no bundle of {model} {version} is published: edge publish FILE.edge"
            )
        for record in self._store.rollouts(None):
            if record.status in rules.LIVE and record.model == model:
                raise InvalidInputError(
                    f"rollout {record.id} of {model} {record.version} is still {record.status}: "
                    f"wait, or edge rollout abort {record.id}"
                )
        free = [
            d
            for d in fleet.devices.values()
            if d.revoked_at is None and fleet.model_of(d.id) in ("", model)
        ]
        if not any(d.profile in bundles for d in free):
            raise InvalidInputError(
                f"no enrolled device can take {model} {version}: "
                f"its bundles are for {', '.join(sorted(bundles))}"
            )
        seed = f"r{secrets.token_hex(3)}"
        order = rules.cohort_order([(d.id, site_of(d), d.profile) for d in free], seed)
        members = tuple(
            Member(
                device=device,
                stratum=site_of(fleet.devices[device]),
                previous=fleet.version_of(device),
                possible=fleet.devices[device].profile in bundles,
            )
            for device in order
        )
        if any(p.judged for p in strategy.phases) and not any(m.previous for m in members):
            raise InvalidInputError(
                f"no device runs {model} yet, so there is nothing to compare {version} with: "
                "roll it out all-at-once"
            )
        period = self._period(model, now)
        return Rollout(
            id=seed,
            model=model,
            version=version,
            strategy=strategy,
            members=members,
            started_at=now,
            entered_at=now,
            past_since=now - PAST_WINDOWS * period,
            window_seconds=period,
            treated_since=now if strategy.phases[0].share else None,
        )

    def _period(self, model: str, now: float) -> float:
        seconds = [w.seconds for w in self._store.windows(model, now - 3600)]
        return statistics.median(seconds) if seconds else 60.0

    def _advance(self, rollout: Rollout, fleet: "_Fleet", now: float) -> bool:
        arms: dict[str, list[Arm]] = {}
        if rollout.current.judged or not rollout.current.share:
            if now - self._judged_at.get(rollout.id, 0.0) < rollout.window_seconds / 2:
                return False
            self._judged_at[rollout.id] = now
            arms = arms_of(rollout, self._store.windows(rollout.model, rollout.past_since))
        seen = {m.device: fleet.view(m.device, rollout) for m in rollout.members}
        present = {device: view for device, view in seen.items() if view}
        after, decision = rules.step(rollout, present, arms, now)
        if after != rollout:
            self._save(after, now)
        if decision:
            self._record(after, decision)
        return decision is not None

    def _orders(self, fleet: "_Fleet", now: float) -> list[tuple[str, bytes]]:
        wanted: dict[str, tuple[str, str, str]] = {}
        for record in self._store.rollouts(None):  # oldest first: the newest has the last word
            wanted.update(_wanted(_read(record), fleet))
        orders = [
            self._order(fleet, device, target, now)
            for device, target in wanted.items()
            if fleet.needs(device, target)
        ]
        self._store.order(orders)
        return [(assignment.device, envelope) for assignment, envelope in orders]

    def _order(
        self, fleet: "_Fleet", device: str, target: tuple[str, str, str], now: float
    ) -> tuple[Assignment, bytes]:
        model, version, rollout = target
        bundle = fleet.bundle(model, version, fleet.devices[device].profile)
        if bundle is None:
            raise LookupError(f"{device} was to be ordered {model} {version}, which it can't take")
        current = fleet.assignments.get(device)
        assignment = Assignment(
            device=device,
            generation=current.generation + 1 if current else 1,
            model=model,
            version=version,
            profile=bundle.profile,
            digest=bundle.digest,
            length=bundle.length,
            rollout=rollout,
            not_before=now,
            needs=bundle.manifest.ops,
        )
        return assignment, sign_assignment(assignment, self._director)

    def _save(self, rollout: Rollout, now: float) -> None:
        self._store.save_rollout(
            rollout.id, rollout.model, rollout.version, rollout.status, to_json(rollout), now
        )

    def _record(self, rollout: Rollout, decision: rules.Decision) -> None:
        self._store.add_decision(rollout.id, decision.at, to_json(decision))
        name = f"rollout {rollout.id}: {decision.action}"
        detail = f"{rollout.model} {rollout.version}, {decision.phase}: {decision.reason}"
        self._store.add_event(decision.at, "controller", name, detail)


class _Fleet:
    """One consistent look at devices, bundles and orders."""

    def __init__(self, store: Store) -> None:
        self.devices = {d.id: d for d in store.devices()}
        self.bundles: list[BundleRecord] = store.bundles()
        self.assignments: dict[str, AssignmentRecord] = store.assignments()
        self._by_key = {(b.model, b.version, b.profile): b for b in self.bundles}

    def bundle(self, model: str, version: str, profile: str) -> BundleRecord | None:
        return self._by_key.get((model, version, profile))

    def model_of(self, device: str) -> str:
        current = self.assignments.get(device)
        return current.model if current else ""

    def version_of(self, device: str) -> str:
        current = self.assignments.get(device)
        return current.version if current else ""

    def needs(self, device: str, target: tuple[str, str, str]) -> bool:
        """Whether `target` (model, version, rollout) is another bundle than the current order."""
        found = self.devices.get(device)
        if found is None or found.revoked_at is not None:
            return False
        bundle = self.bundle(*target[:2], found.profile)
        current = self.assignments.get(device)
        return bundle is not None and (current is None or current.digest != bundle.digest)

    def view(self, device: str, rollout: Rollout) -> Device | None:
        """What the rollout's rules need to know; `running` only by the digest reported."""
        found = self.devices.get(device)
        if found is None or found.revoked_at is not None:
            return None
        bundle = self.bundle(rollout.model, rollout.version, found.profile)
        runs = (
            bundle is not None
            and found.running_digest == bundle.digest
            and found.phase == "confirmed"
        )
        order = self.assignments.get(device)
        ours = order if order and order.rollout == rollout.id else None
        answered = ours is not None and found.generation == ours.generation
        failed = answered and found.phase in ENDED_BADLY
        return Device(
            id=device,
            running=rollout.version if runs else "",
            failed=f"{found.phase}: {found.reason}" if failed else "",
            ordered_at=ours.issued_at if ours else None,
            last_seen=found.last_seen,
        )


def arms_of(rollout: Rollout, windows: Iterable[WindowRecord]) -> dict[str, list[Arm]]:
    """The rollout's windows by metric: each device's past, and its part of this phase.

    Both arms are judged over the same stretch of time: it begins when half of the treated devices
    had sent a window with the new version, so that what hits both is not cut differently.
    """
    treated = {m.device for m in rollout.treated}
    by_device: dict[str, list[WindowRecord]] = {}
    for window in windows:
        by_device.setdefault(window.device, []).append(window)
    fresh = {
        m.device: [
            w
            for w in by_device.get(m.device, ())
            if w.received_at >= rollout.entered_at
            and w.version == (rollout.version if m.device in treated else m.previous)
        ]
        for m in rollout.members
    }
    firsts = [found[0].received_at for d, found in fresh.items() if d in treated and found]
    start = statistics.median(firsts) if firsts else rollout.entered_at
    arms: dict[str, list[Arm]] = {}
    for metric in WORSE_IF_HIGHER:
        arms[metric] = [
            Arm(
                device=m.device,
                stratum=m.stratum,
                treated=m.device in treated,
                past=_points(metric, _past(rollout, m, by_device.get(m.device, ()))),
                now=_points(metric, [w for w in fresh[m.device] if w.received_at >= start]),
            )
            for m in rollout.members
            if m.possible
        ]
    return arms


def site_of(device: DeviceRecord) -> str:
    """The site label; devices without one are a site of their own together."""
    return device.labels.get("site", "")


def _past(
    rollout: Rollout, member: Member, windows: Sequence[WindowRecord]
) -> Sequence[WindowRecord]:
    until = math.inf if rollout.treated_since is None else rollout.treated_since
    found = [w for w in windows if w.received_at < until and w.version == member.previous]
    return found[-PAST_WINDOWS:]


def _points(metric: Metric, windows: Iterable[WindowRecord]) -> tuple[Point, ...]:
    points = []
    for window in windows:
        answered = window.rows + window.errors
        if metric == "errors" and answered:
            points.append(Point(window.received_at, window.errors / answered, answered))
        elif metric == "confidence" and window.confidence_mean is not None:
            points.append(Point(window.received_at, window.confidence_mean, window.confidence_rows))
        elif metric == "latency" and window.latency_mean is not None and window.rows:
            points.append(Point(window.received_at, window.latency_mean, window.rows))
    return tuple(points)


def _wanted(rollout: Rollout, fleet: _Fleet) -> dict[str, tuple[str, str, str]]:
    """What this rollout wants devices to run: (model, version, rollout) by device."""
    new = (rollout.model, rollout.version, rollout.id)
    wanted = {m.device: new for m in rollout.treated}
    if rollout.status == "promoted":  # devices that joined since get it too
        wanted.update({d: new for d in fleet.devices if fleet.model_of(d) in ("", rollout.model)})
    if rollout.status in ("rolled back", "aborted"):
        for member in rollout.members:
            order = fleet.assignments.get(member.device)
            if member.previous and order and order.rollout == rollout.id:
                wanted[member.device] = (rollout.model, member.previous, rollout.id)
    return wanted


def _read(record: RolloutRecord) -> Rollout:
    return from_json(Rollout, record.document, f"rollout {record.id}")


def _strategy(document: Mapping[str, Any]) -> Strategy:
    if "phases" not in document:
        unknown = set(document) - {"name"}
        if unknown:
            raise InvalidInputError(f"a named strategy takes no {', '.join(sorted(unknown))}")
        return rules.strategy(str(document.get("name", "")))
    try:
        return msgspec.convert(document, Strategy)
    except msgspec.ValidationError as error:
        raise InvalidInputError(f"the strategy can't be read: {error}") from error
