"""Simulated canary rollouts as the server would store them, and the engine's way through them.

200 devices of two hardware profiles at 10 sites, 20 canaries by the engine's own draw, a past of 40
hourly windows, then two days. Each device has its own level, its own daily rhythm and its own
small change in everything that is measured; some fleets have heavy tails, in some a site as a whole
wanders. Accuracy and rows are as in an earlier study of ours: 100 answers an hour, between devices
sd 0.05, between hours 0.03, between answers 0.35. Labels come as sums of an hour.
"""

import math
from collections.abc import Iterator

import msgspec
import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from fleet_server.evidence.gates import MEASURES, RATIOS, Gate
from fleet_server.evidence.labelled import Labelled
from fleet_server.evidence.measures import Measures
from fleet_server.evidence.windows import Columns, columns
from fleet_server.records import WindowRecord
from fleet_server.rollout.cohort import cohort_order
from fleet_server.rollout.engine import decide
from fleet_server.rollout.evidence import index_of, past_ready, with_evidence
from fleet_server.rollout.grammar import Phase, Strategy
from fleet_server.rollout.standing import look_at
from fleet_server.rollout.state import Device, Look, Member, Rollout
from fleet_server.rollout.strategies import shipped

DEVICES, SITES, CANARIES, PAST, HOURS, ROWS = 200, 10, 20, 40, 48, 100
HOUR = 3600.0
START = PAST * HOUR  # when the rollout begins
KINDS = ("quiet", "heavy tails", "wandering sites")
CRASH = 0.0005  # share of windows that begin with a restart, of a version that is well
HARMS = (
    "accuracy -2 points on one profile",
    "latency +20 %",
    "crash loops 1 %",
    "confidence +12 points, accuracy as before, labels",
    "confidence +12 points, accuracy as before, no labels",
    "confidence -12 points",
)
Floats = NDArray[np.float64]


class World(msgspec.Struct):
    """One simulated rollout that is about to begin, and all that its devices are going to send."""

    rollout: Rollout
    windows: Columns
    labels: Labelled
    accuracy: Floats  # (devices, hours), canaries first

    @property
    def now(self) -> tuple[Floats, Floats]:
        """Accuracy since the start: of the canaries, of the others."""
        return self.accuracy[:CANARIES, PAST:], self.accuracy[CANARIES:, PAST:]


def two_days(name: str = "canary", *, margins: bool = True) -> Strategy:
    """A shipped strategy whose canaries are a tenth and are watched for two days.

    Without margins any harm at all counts, which is the hardest that a harmless version can meet.
    """
    strategy = shipped(name)
    phases = [_watched(phase) if phase.name == "canary" else phase for phase in strategy.phases]
    gates = strategy.gates if margins else tuple(_strict(gate) for gate in strategy.gates)
    return replace(strategy, phases=tuple(phases), gates=gates)


def _watched(phase: Phase) -> Phase:
    return replace(phase, share=CANARIES / DEVICES, soak_seconds=HOURS * HOUR, max_wait_seconds=1e9)


def _strict(gate: Gate) -> Gate:
    none = 1.0 if MEASURES[gate.metric][1] in RATIOS else 0.0
    return replace(gate, margin=none, too_good=1e-9 if gate.too_good else 0.0)


def world(kind: str, harm: str, rng: np.random.Generator) -> World:
    """A fleet of a kind whose canaries suffer `harm`; "" is none."""
    fleet = [(f"d{i}", str(i % SITES), f"board {i // SITES % 2}") for i in range(DEVICES)]
    place = {device: (site, board) for device, site, board in fleet}
    order = cohort_order(fleet, str(rng.random()))
    members = tuple(Member(d, place[d][0], "1", profile=place[d][1]) for d in order)
    rollout = Rollout(
        id="r1",
        model="m",
        version="2",
        strategy=two_days(),
        members=members,
        started_at=START,
        entered_at=START,
        past_since=0.0,
        window_seconds=HOUR,
    )
    told = _values(kind, harm, members, rng)
    return World(rollout, _windows(members, told), _labels(told, harm), told["accuracy"])


def _values(
    kind: str, harm: str, members: tuple[Member, ...], rng: np.random.Generator
) -> dict[str, Floats]:
    """(devices, hours) of each thing that is measured, the past first."""
    site = np.array([int(m.stratum) for m in members])
    other = np.array([m.profile for m in members]) == "board 1"
    treated = np.outer(np.arange(DEVICES) < CANARIES, np.arange(PAST + HOURS) >= PAST)

    def level() -> Floats:
        return _level(kind, site, rng)

    hit = {name: treated * (harm == name) for name in HARMS}
    bold = hit[HARMS[3]] | hit[HARMS[4]]
    timid = hit[HARMS[5]]
    return {
        "accuracy": level() - 0.02 * hit[HARMS[0]] * other[:, None],
        "confidence": np.clip(level() + 0.12 * bold - 0.12 * timid, 0, 1),
        "estimated": level(),
        "latency": np.exp(2 * level()) * (1 + 0.2 * hit[HARMS[1]]),
        "memory": 5e7 * np.exp(level()),
        "temperature": 40 + 50 * level(),
        "errors": rng.binomial(ROWS, np.clip(0.05 * level(), 0, 1)).astype(float),
        "classes": rng.binomial(ROWS, np.clip(level() - 0.3, 0, 1)).astype(float),
        "boot": np.cumsum(rng.random(treated.shape) < CRASH + 0.01 * hit[HARMS[2]], axis=1) * 1.0,
    }


def _level(kind: str, site: NDArray[np.int64], rng: np.random.Generator) -> Floats:
    hours = np.arange(PAST + HOURS)
    shape = (DEVICES, PAST + HOURS)
    own = 0.8 + rng.normal(0, 0.05, (DEVICES, 1))
    phase = rng.uniform(0, 2 * math.pi, (DEVICES, 1))
    rhythm = rng.uniform(0, 0.03, (DEVICES, 1)) * np.sin(2 * math.pi * hours / 24 + phase)
    heavy = kind == "heavy tails"
    noise = rng.standard_t(3, shape) / math.sqrt(3) if heavy else rng.normal(size=shape)
    found = own + rhythm + math.hypot(0.03, 0.35 / math.sqrt(ROWS)) * noise
    if kind == "wandering sites":
        found += rng.normal(0, 0.01, (SITES, len(hours))).cumsum(axis=1)[site]
    found[:, PAST:] += rng.normal(0, 0.01, (DEVICES, 1))
    return np.asarray(found, dtype=np.float64)


def _windows(members: tuple[Member, ...], told: dict[str, Floats]) -> Columns:
    """What was stored, hour by hour, as the controller reads it."""
    encode = msgspec.msgpack.Encoder().encode
    stored, lists = [], {name: values.T.tolist() for name, values in told.items()}
    for hour in range(PAST + HOURS):
        row = {name: values[hour] for name, values in lists.items()}
        for i, member in enumerate(members):
            first = int(row["classes"][i])
            measures = Measures(
                memory=int(row["memory"][i]),
                temperature=row["temperature"][i],
                classes=(first, ROWS - first),
                estimated=row["estimated"][i],
            )
            stored.append(
                WindowRecord(
                    id=len(stored),
                    device=member.device,
                    boot=f"{member.device}-{row['boot'][i]}",
                    seq=hour,
                    received_at=(hour + 0.5) * HOUR,
                    version="2" if i < CANARIES and hour >= PAST else "1",
                    digest="",
                    seconds=HOUR,
                    rows=ROWS,
                    errors=int(row["errors"][i]),
                    skew=0,
                    confidence_mean=row["confidence"][i],
                    confidence_rows=ROWS,
                    latency_mean=row["latency"][i],
                    measures=encode(measures),
                )
            )
    return columns(stored, {member.device: n for n, member in enumerate(members)})


def _labels(told: dict[str, Floats], harm: str) -> Labelled:
    hours, size = (0 if harm == HARMS[4] else PAST + HOURS), DEVICES
    device = np.tile(np.arange(size), hours)
    at = np.repeat((np.arange(hours) + 0.5) * HOUR, size)
    new = (device < CANARIES) & (at >= START)
    return Labelled(
        device=device,
        at=at,
        version=np.where(new, "2", "1").astype(object),
        right=told["accuracy"].T[:hours].ravel(),
        confidence=told["confidence"].T[:hours].ravel(),
        weight=np.full(len(at), float(ROWS)),
    )


def looks(found: World, strategy: Strategy) -> Iterator[tuple[int, Rollout]]:
    """What the engine makes of the rollout, hour by hour, until its canaries are through."""
    state = replace(found.rollout, strategy=strategy)
    for hour in range(HOURS + 1):
        now = START + hour * HOUR
        state, _ = decide(state, _look(found, state, now))
        yield hour, state
        if state.status not in ("running", "held") or state.current.name == "everyone":
            return


def _look(found: World, state: Rollout, now: float) -> Look:
    """As the controller looks: where devices stand, and the windows that have come by then."""
    index = index_of(state)
    look, standings = look_at(state, {d: _device(d, i, now) for d, i in index.items()}, now)
    seen = _until(found.windows, now)
    if state.current.reaches_nobody:
        return replace(look, past=(past_ready(state, seen, set(index)), len(index)))
    return with_evidence(state, look, standings, seen, _labels_until(found.labels, now))


def _device(name: str, place: int, now: float) -> Device:
    new = place < CANARIES
    return Device(id=name, running="2" if new else "1", ordered_at=START, last_seen=now)


def _until(found: Columns, now: float) -> Columns:
    """The windows that had been stored by then; views, since they are in the order of time."""
    end = int(np.searchsorted(found.at, now))
    values = {m: (value[:end], rows[:end]) for m, (value, rows) in found.values.items()}
    cut = {n: getattr(found, n)[:end] for n in found.__struct_fields__ if n != "values"}
    return Columns(values=values, **cut)


def _labels_until(found: Labelled, now: float) -> Labelled:
    end = int(np.searchsorted(found.at, now))
    return Labelled(*(getattr(found, name)[:end] for name in found.__struct_fields__))


def blamed(found: World, strategy: Strategy) -> int | None:
    """The hour at which the engine rolls the version back; None if it does not."""
    for hour, state in looks(found, strategy):
        if state.status == "rolled back":
            return hour
    return None
