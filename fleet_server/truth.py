"""What labels say has changed: answers that are wrong more often, or sure for no reason. Pure.

Only labels of rows drawn at random count. *Concept drift* is told where river's detectors find it
and the errors of before and since differ by more than chance; *calibration drift* where answers of
a version are right more or less often than its calibrated confidences say.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from edge_sdk.calibration import CONFIDENCE
from edge_sdk.sketch import Baseline, sketch
from fleet_server.concept import Shift, audited, shifts
from fleet_server.decay.causes import ACTIONS, Finding, Kind, severity_of
from fleet_server.labels import Counted, Label, wilson
from fleet_server.rollups import Whereabouts

FEWEST = 100  # labelled rows with a confidence
FEWEST_THERE = 30  # of one site
SURE = 4.0  # standard deviations: labels are looked at again and again
GAP = 0.03  # of accuracy

Places = Mapping[str, Whereabouts]
Baselines = Mapping[str, Baseline]


def told_by_labels(labels: Sequence[Label], places: Places, baselines: Baselines) -> list[Finding]:
    """Findings of one model, at most one a version.

    Args:
        labels: in the order in which the rows were answered.
        places: of the devices that they are of.
        baselines: of a bundle of each version.
    """
    try:
        moved = shifts(labels)
    except ModuleNotFoundError:  # the report says what to install
        moved = []
    found = {shift.version: _concept(shift, labels, places) for shift in moved}
    for version, baseline in baselines.items():
        if version not in found:
            finding = _calibration(audited(labels, version), baseline)
            if finding is not None:
                found[version] = finding
    return list(found.values())


def _concept(shift: Shift, labels: Sequence[Label], places: Places) -> Finding:
    since = [x for x in audited(labels, shift.version) if x.taken_at >= shift.since]
    before = [x for x in audited(labels, shift.version) if x.taken_at < shift.since]
    sites = sorted({_site(x, places) for x in since} - {""})
    worse = [site for site in sites if _is_worse(site, before, since, places)]
    [where] = worse if len(worse) == 1 and len(sites) > 1 else [""]
    here = [x for x in since if where in ("", _site(x, places))]
    then = [x for x in before if where in ("", _site(x, places))]
    old, new = _errors(then), _errors(here)
    return _finding(
        "concept drift",
        here,
        f"site={where}" if where else "fleet",
        loss=max(new - old, 0.0),
        words=f"version {shift.version} is wrong in {100 * new:.0f} % of labelled rows, "
        f"{100 * old:.0f} % before",
        detail=f"{', '.join(shift.detectors)} over {shift.rows} labelled rows; {len(here)} since",
    )


def _is_worse(site: str, before: Sequence[Label], since: Sequence[Label], places: Places) -> bool:
    """Whether the intervals of the errors before and since are apart there."""
    counts = []
    for rows in (before, since):
        there = [x for x in rows if _site(x, places) == site]
        if len(there) < FEWEST_THERE:
            return False
        counts.append(Counted(sum(x.label != x.predicted for x in there), len(there)))
    return wilson(counts[1])[0] > wilson(counts[0])[1]


def _calibration(audit: Sequence[Label], baseline: Baseline) -> Finding | None:
    """Right answers against those that calibrated confidences promise (a normal approximation)."""
    known, channel = baseline.calibration, baseline.channels.get(CONFIDENCE)
    rows = [x for x in audit if x.confidence is not None]
    if known is None or channel is None or len(rows) < FEWEST:
        return None
    counts = np.array(sketch(channel, np.array([x.confidence for x in rows])).counts, float)
    promised, chance = counts @ known.share, counts @ (known.share * (1 - known.share))
    learnt = np.square(counts) @ (known.share * (1 - known.share) / known.rows)
    right = sum(x.label == x.predicted for x in rows)
    gap = float(promised - right) / len(rows)
    if abs(gap) < GAP or abs(promised - right) < SURE * math.sqrt(chance + learnt):
        return None
    return _finding(
        "calibration drift",
        rows,
        "fleet",
        loss=max(gap, 0.0),
        words=f"version {rows[0].version} is right in {100 * right / len(rows):.0f} % of labelled "
        f"rows, its confidences promise {100 * promised / len(rows):.0f} %",
        detail=f"over {len(rows)} labelled rows; accuracy estimated without labels is off as much",
    )


def _finding(
    kind: Kind, rows: Sequence[Label], scope: str, *, loss: float, words: str,
    detail: str,
) -> Finding:  # fmt: skip
    devices = tuple(sorted({x.device for x in rows}))
    where = f"at {scope.replace('=', ' ')}" if scope != "fleet" else "in the whole fleet"
    return Finding(
        kind=kind,
        cause="labels",
        scope=scope,
        devices=devices,
        of=len(devices),
        moved=(),
        loss=loss,
        severity=severity_of(kind, loss),
        since=rows[0].taken_at,
        versions=(rows[0].version,),
        title=f"{kind} {where}: {words}",
        detail=detail,
        action=ACTIONS["labels"],
    )


def _site(label: Label, places: Places) -> str:
    found = places.get(label.device)
    return found.slice.site if found else ""


def _errors(labels: Sequence[Label]) -> float:
    return sum(x.label != x.predicted for x in labels) / max(len(labels), 1)
