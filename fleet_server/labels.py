"""What the right answer was: truth that comes later, for some of the rows. Pure.

Labels arrive days after their windows and for few rows. Those of an audit (rows drawn at random)
estimate accuracy without bias; those of rows that were picked because the model was unsure do not,
and are kept apart.
"""

import math
from collections.abc import Iterable
from typing import Literal

import msgspec

from edge_sdk.topics import valid_device_id

Source = Literal["feedback", "queue", "weak"]
MAX_TEXT = 200
MAX_LABELS = 10_000  # in one request


class Label(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The truth about one row that a device answered.

    Attributes:
        row: names the row, once per device: the sample's id, or whatever the caller calls it.
        predicted: what the model said; "" if that is not known any more.
        label: what was right.
        confidence: of the model in its answer, 0..1; None if not known.
        taken_at: when the row was answered, Unix seconds.
        audit: the row was drawn at random, so it counts for the estimate of accuracy.
        source: a person or process at the site, the label queue, or weak supervision.
        certainty: how sure the labeller is, 0..1; below 1 for weak supervision.
    """

    device: str
    row: str
    model: str
    version: str
    predicted: str = ""
    label: str
    confidence: float | None = None
    taken_at: float
    audit: bool = True
    source: Source = "feedback"
    certainty: float = 1.0


class Counted(msgspec.Struct, frozen=True):
    """Right answers among labelled rows."""

    right: int
    rows: int


def why_not(label: Label, now: float) -> str | None:
    """Why a label can't be kept; None if it can."""
    texts = (label.row, label.model, label.version, label.label)
    if not all(texts) or max(len(t) for t in (*texts, label.predicted)) > MAX_TEXT:
        return f"row, model, version and label must be given, with at most {MAX_TEXT} characters"
    if not valid_device_id(label.device):
        return f"{label.device[:64]!r} is no device id"
    if not (math.isfinite(label.taken_at) and 0 < label.taken_at <= now + 86400):
        return f"row {label.row} was taken at {label.taken_at}, which is no time in the past"
    if label.confidence is not None and not 0 <= label.confidence <= 1:
        return f"the confidence of row {label.row} is {label.confidence}, not within 0..1"
    if not 0 <= label.certainty <= 1:
        return f"the certainty of row {label.row} is {label.certainty}, not within 0..1"
    return None


def counted(labels: Iterable[Label]) -> dict[str, Counted]:
    """Right answers by version, of audit rows whose answer is known."""
    right: dict[str, int] = {}
    rows: dict[str, int] = {}
    for label in labels:
        if label.audit and label.predicted:
            rows[label.version] = rows.get(label.version, 0) + 1
            right[label.version] = right.get(label.version, 0) + (label.predicted == label.label)
    return {version: Counted(right[version], n) for version, n in rows.items()}


def calibration_error(labels: Iterable[Label]) -> float | None:
    """Mean gap between confidence and share of right answers over ten bins of confidence.

    Expected calibration error (Naeini et al., AAAI 2015); None without labelled confidences.
    """
    bins: dict[int, list[tuple[float, bool]]] = {}
    for label in labels:
        if label.confidence is not None and label.predicted:
            one = (label.confidence, label.predicted == label.label)
            bins.setdefault(min(int(label.confidence * 10), 9), []).append(one)
    rows = sum(len(found) for found in bins.values())
    if not rows:
        return None
    gaps = [abs(sum(c - right for c, right in found)) for found in bins.values()]
    return sum(gaps) / rows


def wilson(count: Counted, z: float = 1.96) -> tuple[float, float]:
    """Wilson's interval of a share (E. B. Wilson, JASA 22, 1927); (0, 1) without rows.

    >>> low, high = wilson(Counted(90, 100))
    >>> round(low, 3), round(high, 3)
    (0.826, 0.945)
    """
    n = count.rows
    if not n:
        return 0.0, 1.0
    share = count.right / n
    middle = share + z * z / (2 * n)
    spread = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    return (middle - spread) / scale, (middle + spread) / scale
