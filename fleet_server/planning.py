"""A wish for a rollout becomes a plan: devices chosen, in order, with what each can go back to."""

import secrets
import statistics
from collections.abc import Mapping
from typing import Any

import msgspec

from edge_sdk.errors import InvalidInputError
from fleet_server.evidence.windows import columns
from fleet_server.records import DeviceRecord, RolloutRecord, WindowRecord
from fleet_server.rollcall import RollCall
from fleet_server.rollout import grammar, strategies
from fleet_server.rollout.cohort import cohort_order
from fleet_server.rollout.evidence import PAST_WINDOWS, index_of
from fleet_server.rollout.grammar import Strategy
from fleet_server.rollout.plan import plan
from fleet_server.rollout.state import OPEN, Member, Rollout, Status
from fleet_server.store import Store
from fleet_server.views import RolloutPlan

MAX_DELAY = 400 * 86_400.0


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody wants to roll out.

    Attributes:
        strategy: {"name": ...} of a shipped one with changes to it, or a whole document.
        start_at: Unix seconds; 0 is now.
        supersede: end a rollout of the same model that is under way, and take its devices over.
        by: who wants it.
    """

    model: str
    version: str
    strategy: Mapping[str, Any]
    start_at: float = 0.0
    supersede: bool = False
    by: str = ""


class Planned(msgspec.Struct, frozen=True):
    """A rollout that is not saved yet, its plan, and the rollout that it takes over from."""

    rollout: Rollout
    plan: RolloutPlan
    supersedes: str = ""


def make_plan(store: Store, call: RollCall, wish: Wish, now: float) -> Planned:
    """Choose and order the devices.

    Raises:
        InvalidInputError: unknown version or strategy, or no device to reach.
        RefusedError: another rollout of the model is under way.
    """
    strategy = read_strategy(wish.strategy)
    if not (0 <= wish.start_at <= now + MAX_DELAY):
        raise InvalidInputError("the start must be a time within the next 400 days")
    profiles = call.profiles_of(wish.model, wish.version)
    if not profiles:
        raise InvalidInputError(
            f"no bundle of {wish.model} {wish.version} is published: edge publish FILE.edge"
        )
    other = _under_way(store, wish)
    devices, left_out = _choose(store, call, wish, other.id if other else "")
    if not any(d.profile in profiles for d in devices):
        raise InvalidInputError(
            f"no enrolled device can take {wish.model} {wish.version}: its bundles are for "
            f"{', '.join(sorted(profiles))}{_first_reason(left_out)}"
        )
    before = {m.device: m for m in store.members(other.id)} if other else {}
    members = _members(call, wish, devices, profiles, before)
    if any(p.judged for p in strategy.phases) and not any(m.previous for m in members):
        raise InvalidInputError(
            f"no device runs {wish.model} yet, so there is nothing to compare {wish.version} with: "
            "roll it out all-at-once"
        )
    lately = store.windows(wish.model, now - 3600)
    rollout = _rollout(call, wish, strategy, members, (now, _period(lately)))
    past = columns(store.windows(wish.model, rollout.past_since), index_of(rollout))
    lengths = {p: b.length for p in profiles if (b := call.bundle(wish.model, wish.version, p))}
    return Planned(rollout, plan(rollout, lengths, past, left_out), other.id if other else "")


def read_strategy(document: Mapping[str, Any]) -> Strategy:
    """A whole strategy, or a shipped one with some of its fields changed.

    Raises:
        InvalidInputError: unknown, can't be read, or can't be followed.
    """
    changes = dict(document)
    if "phases" not in document:
        name = str(changes.pop("name", ""))
        changes = msgspec.to_builtins(strategies.shipped(name)) | changes
    try:
        found = msgspec.convert(changes, Strategy)
    except msgspec.ValidationError as error:
        raise InvalidInputError(f"the strategy can't be read: {error}") from error
    grammar.check(found)
    return found


def site_of(device: DeviceRecord) -> str:
    """The site label; devices without one are a site of their own together."""
    return device.labels.get("site", "")


def _under_way(store: Store, wish: Wish) -> RolloutRecord | None:
    found = [r for r in store.rollouts_in(OPEN) if r.model == wish.model]
    if not found:
        return None
    [other] = found
    if not wish.supersede:
        raise InvalidInputError(
            f"rollout {other.id} of {other.model} {other.version} is still {other.status}: "
            f"wait, or edge rollout abort {other.id}, or --supersede it"
        )
    return other


def _choose(
    store: Store, call: RollCall, wish: Wish, superseded: str
) -> tuple[list[DeviceRecord], dict[str, str]]:
    """The devices to reach, and why the others are not."""
    owners, chosen, left_out = store.claims(), [], {}
    for device in store.devices():
        seat = call.seats.get(device.id)
        owner = owners.get(device.id, superseded)
        if seat is None or device.revoked_at is not None:
            left_out[device.id] = "it is revoked"
        elif seat.order_model not in ("", wish.model):
            left_out[device.id] = f"it runs another model, {seat.order_model}"
        elif owner != superseded:
            left_out[device.id] = f"rollout {owner} owns it now"
        else:
            chosen.append(device)
    return chosen, left_out


def _first_reason(left_out: Mapping[str, str]) -> str:
    device = min(left_out, default="")
    return f" (device {device}: {left_out[device]})" if device else ""


def _members(
    call: RollCall,
    wish: Wish,
    devices: list[DeviceRecord],
    profiles: set[str],
    before: Mapping[str, Member],
) -> tuple[Member, ...]:
    """In an order drawn from the devices themselves and the version, so that a plan can be kept."""
    by_id = {d.id: d for d in devices}
    draw = f"{wish.model}/{wish.version}/{secrets.token_hex(4)}"
    order = cohort_order([(d.id, site_of(d), d.profile) for d in devices], draw)
    return tuple(
        Member(
            device=name,
            stratum=site_of(by_id[name]),
            previous=_previous(call, wish.model, name, before),
            possible=by_id[name].profile in profiles,
            profile=by_id[name].profile,
        )
        for name in order
    )


def _previous(call: RollCall, model: str, name: str, before: Mapping[str, Member]) -> str:
    """What it runs for good; under way to a version that is superseded, what it ran before."""
    runs = call.running(call.seats[name], model)
    seat = call.seats[name]
    if name in before and (seat.running_version != runs or seat.phase == "trial"):
        return before[name].previous
    return runs


def _rollout(
    call: RollCall,
    wish: Wish,
    strategy: Strategy,
    members: tuple[Member, ...],
    times: tuple[float, float],
) -> Rollout:
    now, period = times
    lengths = [
        b.length for (m, v, _), b in call.bundles.items() if (m, v) == (wish.model, wish.version)
    ]
    first = strategy.phases[0]
    later = wish.start_at > now
    status: Status = "scheduled" if later else "to approve" if first.approval else "running"
    return Rollout(
        id=f"r{secrets.token_hex(3)}",
        model=wish.model,
        version=wish.version,
        strategy=strategy,
        members=members,
        status=status,
        by=wish.by,
        started_at=now,
        start_at=wish.start_at,
        entered_at=now,
        past_since=now - PAST_WINDOWS * period,
        window_seconds=period,
        bundle_bytes=max(lengths, default=0),
        treated_since=None if first.reaches_nobody or status != "running" else now,
    )


def _period(windows: list[WindowRecord]) -> float:
    return statistics.median(w.seconds for w in windows) if windows else 60.0
