"""What the windows say of a rollout: its two arms, each device's past, and the verdicts. Pure."""

import sys
from collections import Counter

import msgspec
import numpy as np

from fleet_server.evidence.changes import Bools, Changes, Points, changes
from fleet_server.evidence.gates import OF_LABELS, Against, Gate, Judgement, Metric
from fleet_server.evidence.interval import shared_level
from fleet_server.evidence.judge import NEEDED_ALONE, Cohort, judge
from fleet_server.evidence.labelled import Labelled, labelled_points
from fleet_server.evidence.windows import Columns, points
from fleet_server.rollout.cohort import reached_by
from fleet_server.rollout.grammar import Phase
from fleet_server.rollout.state import Look, Rollout, Standing

NO_POINTS = Points(*(np.zeros(0, dtype=kind) for kind in (np.int64, np.bool_, float, float)))
PAST_WINDOWS = 40  # that make a device's past, the newest before anybody was treated


class Arms(msgspec.Struct, frozen=True):
    """A rollout's windows, split.

    Attributes:
        cohort: who is in which arm; about `Rollout.able`, in that order.
        past, now: which windows belong to the past, and to the time that is judged.
    """

    cohort: Cohort
    windows: Columns
    past: Bools
    now: Bools

    def points(self, metric: Metric) -> Points:
        return points(metric, self.windows, self.past | self.now, self.now)


def arms(rollout: Rollout, found: Columns) -> Arms:
    """Split a rollout's windows.

    Both arms are judged over the same stretch of time: it begins when half of the treated devices
    had sent a window with the new version, so that what hits both is not cut differently.
    """
    able = rollout.able
    cohort = _cohort(rollout)
    treated = cohort.treated[found.device]
    version = found.version
    ran = np.array([sys.intern(m.previous) for m in able], dtype=object)[found.device]
    shadows = rollout.current.role == "shadow" and rollout.status != "promoted"
    runs_it = (
        (found.shadow == rollout.version) & (version == ran)
        if shadows
        else version == rollout.version
    )
    fresh = (found.at >= rollout.entered_at) & np.where(treated, runs_it, version == ran)
    start = _start(found, fresh & treated, rollout.entered_at)
    before = rollout.treated_since if rollout.treated_since is not None else np.inf
    past = (found.at < before) & (found.at >= rollout.past_since) & (version == ran)
    return Arms(cohort, found, _newest(found, past, len(able)), fresh & (found.at >= start))


def judged(
    rollout: Rollout, split: Arms, labels: Labelled | None = None
) -> tuple[tuple[Judgement, ...], dict[Metric, Changes]]:
    """The verdicts of the gates that apply in the present phase, and the changes behind them."""
    need, level = rollout.current.min_windows, level_of(rollout)
    verdicts: list[Judgement] = []
    behind: dict[Metric, Changes] = {}
    for gate in gates_of(rollout):
        metric = gate.metric
        if metric not in behind:
            told = metric in OF_LABELS
            found = _label_points(rollout, metric, labels) if told else split.points(metric)
            behind[metric] = changes(metric, found, len(rollout.able))
        verdicts += judge(gate, split.cohort, behind[metric], need, level)
    return tuple(verdicts), behind


def gates_of(rollout: Rollout) -> tuple[Gate, ...]:
    """The gates that are asked now; after the promotion those that need no control."""
    if rollout.status == "promoted":
        return tuple(g for g in rollout.strategy.gates if g.compares == "past")
    return gates_in(rollout, rollout.current)


def gates_in(rollout: Rollout, phase: Phase) -> tuple[Gate, ...]:
    """A shadow's gates while it shadows; where everyone serves, those against the past alone."""
    if not phase.judged or phase.reaches_nobody or phase.role == "standby":
        return ()
    everyone = reached_by(phase, len(rollout.able)) == len(rollout.able)
    allowed: tuple[Against, ...] = ("past",) if everyone else ("control", "past")
    if phase.role == "shadow":
        allowed = ("primary",)
    return tuple(g for g in rollout.strategy.gates if g.compares in allowed)


def level_of(rollout: Rollout) -> float:
    """The error each verdict may make, so that all of a rollout's together keep to the nominal."""
    return shared_level(
        sum(
            len(gates_in(rollout, phase)) * (1 + len(_judged_alone(rollout, phase)))
            for phase in rollout.strategy.phases
        )
    )


def _judged_alone(rollout: Rollout, phase: Phase) -> tuple[str, ...]:
    """The profiles of which each arm holds enough devices to judge them by themselves."""
    able = rollout.able
    treated = reached_by(phase, len(able))
    inside = Counter(m.profile for m in able[:treated])
    outside = Counter(m.profile for m in able[treated:])
    if len(inside | outside) < 2:
        return ()
    return tuple(sorted(p for p, n in inside.items() if min(n, outside[p]) >= NEEDED_ALONE))


def with_evidence(
    rollout: Rollout,
    look: Look,
    standings: dict[str, Standing],
    windows: Columns,
    labels: Labelled | None = None,
) -> Look:
    """The look, with what the windows add to it."""
    split = arms(rollout, windows)
    verdicts, behind = judged(rollout, split, labels)
    return msgspec.structs.replace(
        look,
        judged=verdicts,
        evidence=_heard(rollout, split, standings, behind),
    )


def past_ready(rollout: Rollout, windows: Columns, heard: set[str]) -> int:
    """How many of the devices that are heard have a past."""
    split = arms(rollout, windows)
    count = np.bincount(split.windows.device[split.past], minlength=len(rollout.able))
    enough = count >= rollout.current.min_windows
    return sum(bool(enough[n]) for n, m in enumerate(rollout.able) if m.device in heard)


def _heard(
    rollout: Rollout,
    split: Arms,
    standings: dict[str, Standing],
    behind: dict[Metric, Changes],
) -> tuple[int, int]:
    """Of the confirmed devices that have a past, how many have sent enough windows since."""
    need, size = rollout.current.min_windows, len(rollout.able)
    ran = np.array([standings.get(m.device) == "confirmed" for m in rollout.able], dtype=np.bool_)
    pasts = np.bincount(split.windows.device[split.past], minlength=size)
    comparable = ran & (pasts >= need)
    proofs = [g.metric for g in gates_of(rollout) if g.must == "prove"] or list(behind)
    enough = [behind[m].windows >= need for m in proofs if m not in OF_LABELS]
    told = np.logical_and.reduce(enough) if enough else np.ones(size, dtype=np.bool_)
    return int((comparable & told).sum()), int(comparable.sum())


def _cohort(rollout: Rollout) -> Cohort:
    able = rollout.able
    sites = sorted({m.stratum for m in able})
    profiles = _judged_alone(rollout, rollout.current)
    site_number = {name: n for n, name in enumerate(sites)}
    profile_number = {name: n for n, name in enumerate(profiles)}
    treated = len(rollout.treated)
    return Cohort(
        stratum=np.array([site_number[m.stratum] for m in able], dtype=np.int64),
        treated=np.arange(len(able)) < treated,
        profile=np.array([profile_number.get(m.profile, -1) for m in able], dtype=np.int64),
        profiles=profiles,
    )


def _start(found: Columns, fresh: Bools, otherwise: float) -> float:
    """When half of the treated devices had sent their first window."""
    if not fresh.any():
        return otherwise
    _, first = np.unique(found.device[fresh], return_index=True)
    return float(np.median(found.at[fresh][first]))


def _newest(found: Columns, mask: Bools, devices: int) -> Bools:
    """Of the windows in `mask` the last `PAST_WINDOWS` of each device."""
    place = np.flatnonzero(mask)
    device = found.device[place]
    order = np.argsort(device, kind="stable")
    counts = np.bincount(device, minlength=devices)
    ends = np.cumsum(counts)
    from_end = ends[device[order]] - np.arange(len(order))
    kept = np.zeros(len(found), dtype=np.bool_)
    kept[place[order[from_end <= PAST_WINDOWS]]] = True
    return kept


def index_of(rollout: Rollout) -> dict[str, int]:
    """The place of each device that can take the version, as the arrays have it."""
    return {m.device: number for number, m in enumerate(rollout.able)}


def _label_points(rollout: Rollout, metric: Metric, found: Labelled | None) -> Points:
    """The labelled answers of each device's past, and of the time that is judged."""
    if found is None:
        return NO_POINTS
    able = rollout.able
    ran = np.array([sys.intern(m.previous) for m in able], dtype=object)[found.device]
    since = rollout.treated_since if rollout.treated_since is not None else np.inf
    treated = found.device < len(rollout.treated)
    past = (found.at < since) & (found.version == ran)
    wanted = found.version == np.where(treated, rollout.version, ran)
    now = (found.at >= max(since, rollout.entered_at)) & wanted
    return labelled_points(metric, found, past | now, now)
