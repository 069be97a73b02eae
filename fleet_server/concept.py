"""Concept drift from labels: whether the answers themselves are wrong more often than before.

The detectors are river's (extra `drift`): ADWIN (Bifet & Gavalda, SDM 2007), DDM (Gama et al., SBIA
2004) and Page-Hinkley (Page, Biometrika 41, 1954), each over the errors of one version in the order
in which the rows were answered. They need the labels of rows drawn at random.
"""

import importlib
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from fleet_server.labels import Counted, Label, wilson

DETECTORS = {
    "ADWIN": ("river.drift", "ADWIN"),
    "DDM": ("river.drift.binary", "DDM"),
    "Page-Hinkley": ("river.drift", "PageHinkley"),
}
NEEDS_RIVER = "concept drift in labels needs river: pip install 'edge-deployment-sdk[server,drift]'"
FEWEST = 100  # labelled rows
AGREE = 2  # detectors, so that none's false alarms count


class Shift(msgspec.Struct, frozen=True):
    """A version whose answers are wrong more often since some time.

    Attributes:
        since: when the first row was answered of those that are likeliest to be another rate.
        rows: labelled ones that were looked at.
        before, after: share of wrong answers.
        detectors: that raised.
    """

    version: str
    since: float
    rows: int
    before: float
    after: float
    detectors: tuple[str, ...]


def shifts(labels: Sequence[Label]) -> list[Shift]:
    """What at least two detectors found, by version, if more than chance stands behind it.

    Raises:
        ModuleNotFoundError: river is not installed.
    """
    found = []
    for version in sorted({label.version for label in labels}):
        audit = audited(labels, version)
        if len(audit) >= FEWEST and (shift := _shift(version, audit)) is not None:
            found.append(shift)
    return found


def concept_drift(labels: Sequence[Label]) -> tuple[str, ...]:
    """What was found, in words; empty if there are too few labels.

    Without the extra there is one sentence that says so.
    """
    counts = {version: len(audited(labels, version)) for version in {x.version for x in labels}}
    enough = {version: n for version, n in sorted(counts.items()) if n >= FEWEST}
    if not enough:
        return ()
    try:
        found = shifts(labels)
    except ModuleNotFoundError:
        return (NEEDS_RIVER,)
    words = [
        f"version {s.version}: {' and '.join(s.detectors)} found more wrong answers "
        f"({100 * s.before:.0f} % before, {100 * s.after:.0f} % since) in {s.rows} labelled rows"
        for s in found
    ]
    return tuple(words) or tuple(
        f"version {version}: no concept drift in {n} labelled rows" for version, n in enough.items()
    )


def audited(labels: Sequence[Label], version: str) -> list[Label]:
    """The labels of a version that were drawn at random and whose answer is known."""
    return [x for x in labels if x.version == version and x.audit and x.predicted]


def detector(name: str) -> Any:  # noqa: ANN401 - river is untyped here and optional
    """A fresh detector by its name in `DETECTORS`."""
    module, cls = DETECTORS[name]
    return getattr(importlib.import_module(module), cls)()


def first_alarm(name: str, errors: Sequence[int]) -> int | None:
    """At which of the errors (1 wrong, 0 right) the detector raises; None if it does not."""
    found = detector(name)
    for i, error in enumerate(errors):
        found.update(error)
        if found.drift_detected:
            return i
    return None


def _shift(version: str, audit: Sequence[Label]) -> Shift | None:
    errors = [int(x.label != x.predicted) for x in audit]
    raised = {n: at for n in DETECTORS if (at := first_alarm(n, errors)) is not None}
    if len(raised) < AGREE:
        return None
    at = likeliest_split(errors)
    before, after = errors[:at], errors[at:]
    if _apart(before, after) <= 0:
        return None
    return Shift(
        version=version,
        since=audit[at].taken_at,
        rows=len(errors),
        before=sum(before) / len(before),
        after=sum(after) / len(after),
        detectors=tuple(raised),
    )


def likeliest_split(errors: Sequence[int]) -> int:
    """From which error on another rate is the likeliest (Hinkley & Hinkley, Biometrika 57, 1970).

    >>> likeliest_split([0, 1, 0, 0, 0, 0, 1, 1, 0, 1, 1, 1])
    6
    """
    wrong, n = np.cumsum(errors)[:-1], np.arange(1, len(errors))
    since, rest = sum(errors) - wrong, len(errors) - n
    return int((_likelihood(wrong, n) + _likelihood(since, rest)).argmax()) + 1


def _likelihood(wrong: NDArray[np.int_], rows: NDArray[np.int_]) -> NDArray[np.float64]:
    rate = np.clip(wrong / rows, 1e-12, 1 - 1e-12)
    return np.asarray(wrong * np.log(rate) + (rows - wrong) * np.log(1 - rate))


def _apart(before: Sequence[int], after: Sequence[int]) -> float:
    """By how much the 95 % intervals of two shares of errors miss each other; else below 0."""
    then, now = (wilson(Counted(sum(part), len(part))) for part in (before, after))
    return now[0] - then[1]
