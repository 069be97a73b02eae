"""Concept drift from labels: whether the answers themselves are wrong more often than before.

The detectors are river's (extra `drift`): ADWIN (Bifet & Gavalda, SDM 2007), DDM (Gama et al., SBIA
2004) and Page-Hinkley (Page, Biometrika 41, 1954), each over the errors of one version in the order
in which the rows were answered. They need the labels of rows drawn at random.
"""

import importlib
from collections.abc import Sequence
from typing import Any

from fleet_server.labels import Label

DETECTORS = {
    "ADWIN": ("river.drift", "ADWIN"),
    "DDM": ("river.drift.binary", "DDM"),
    "Page-Hinkley": ("river.drift", "PageHinkley"),
}
NEEDS_RIVER = "concept drift in labels needs river: pip install 'edge-deployment-sdk[server,drift]'"
FEWEST = 100  # labelled rows


def concept_drift(labels: Sequence[Label]) -> tuple[str, ...]:
    """What each detector found, in words; empty if there are too few labels.

    Without the extra there is one sentence that says so.
    """
    words: list[str] = []
    versions = sorted({label.version for label in labels})
    for version in versions:
        audit = [x for x in labels if x.version == version and x.audit and x.predicted]
        if len(audit) < FEWEST:
            continue
        try:
            words += [w for name in DETECTORS if (w := _said(name, version, audit))]
        except ModuleNotFoundError:
            return (NEEDS_RIVER,)
        words = words or [f"version {version}: no concept drift in {len(audit)} labelled rows"]
    return tuple(words)


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


def _said(name: str, version: str, audit: Sequence[Label]) -> str:
    errors = [int(x.label != x.predicted) for x in audit]
    at = first_alarm(name, errors)
    if at is None:
        return ""
    before, after = errors[:at], errors[at:]
    rates = (sum(part) / max(len(part), 1) for part in (before, after))
    old, new = rates
    if new <= old:
        return ""  # it got better
    return (
        f"version {version}: {name} found more wrong answers from labelled row {at} of "
        f"{len(errors)} on ({100 * old:.0f} % before, {100 * new:.0f} % since)"
    )
