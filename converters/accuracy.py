"""How good answers are, and how much worse than others on the same rows, by task. Pure."""

from collections.abc import Callable, Mapping

import msgspec
import numpy as np
from numpy.typing import NDArray

from converters.intervals import Floats, auc, bootstrapped, macro_f1, paired_drop, paired_mean
from edge_sdk.bundle import Figure, Metrics, Task

Scores = NDArray[np.float32]
Truth = NDArray[np.intp] | NDArray[np.float32]
_CLOSE = 0.1  # of the spread of answers: two numbers nearer are the same


class SliceDrop(msgspec.Struct, frozen=True):
    """The drop within some of the rows, a share, with its paired 95 % interval over `rows`.

    Attributes:
        label: a class's, or `column=value` of the rows.
    """

    label: str
    rows: int
    drop: float
    low: float
    high: float


def compare(
    truth: Truth, float_scores: Scores, scores: Scores, labels: tuple[str, ...],
    task: Task = "classification",
) -> Metrics:  # fmt: skip
    """Metrics of a converted model against those of the float model.

    Args:
        truth: classes (n,); 0 and 1 for an anomaly (n,); targets (n,) or (n, k) of a regression.
        float_scores: answers (n, k) of the float model.
        scores: of the other, for the same rows.
        labels: of the classes.
        task: what the answers are.
    """
    match task:
        case "classification":
            return _of_classes(truth, float_scores, scores, labels)
        case "regression":
            return _of_values(truth, float_scores, scores)
        case "anomaly":
            return _of_anomalies(truth, float_scores, scores)


def _of_classes(
    truth: Truth, float_scores: Scores, scores: Scores, labels: tuple[str, ...]
) -> Metrics:
    was, now = float_scores.argmax(axis=1), scores.argmax(axis=1)
    was_right, right = was == truth, now == truth
    drop, low, high = _lost(was_right, right)
    figures = {"f1": _figure(macro_f1(truth.astype(np.intp), was),
                             macro_f1(truth.astype(np.intp), now), len(truth))}  # fmt: skip
    if len(labels) == 2:
        figures["auc"] = _auc(truth, _margin(float_scores), _margin(scores))
    return Metrics(
        rows=len(truth),
        float_accuracy=float(was_right.mean()),
        accuracy=float(right.mean()),
        drop=drop,
        drop_low=low,
        drop_high=high,
        agreement=agreement(float_scores, scores, "classification"),
        per_class={
            label: float(right[truth == i].mean())
            for i, label in enumerate(labels)
            if (truth == i).any()
        },
        figures=figures,
    )


def _of_values(truth: Truth, float_scores: Scores, scores: Scores) -> Metrics:
    was, now, spread = _errors(truth, float_scores), _errors(truth, scores), _spread(truth)
    change, low, high = paired_mean(now - was)
    mae = Figure(
        float_model=float(was.mean()), converted=float(now.mean()), change=change, low=low,
        high=high,
    )  # fmt: skip
    return Metrics(
        rows=len(truth),
        quality="skill",
        float_accuracy=1 - mae.float_model / spread,
        accuracy=1 - mae.converted / spread,
        drop=change / spread,
        drop_low=low / spread,
        drop_high=high / spread,
        agreement=agreement(float_scores, scores, "regression"),
        per_class={},
        figures={"mae": mae},
    )


def _of_anomalies(truth: Truth, float_scores: Scores, scores: Scores) -> Metrics:
    found = _auc(truth, float_scores[:, 0], scores[:, 0])
    return Metrics(
        rows=len(truth),
        quality="auc",
        float_accuracy=found.float_model,
        accuracy=found.converted,
        drop=-found.change,
        drop_low=-found.high,
        drop_high=-found.low,
        agreement=agreement(float_scores, scores, "anomaly"),
        per_class={},
    )


def _lost(was_right: NDArray[np.bool_], right: NDArray[np.bool_]) -> tuple[float, float, float]:
    return paired_drop(int((was_right & ~right).sum()), int((right & ~was_right).sum()), len(right))


def _figure(
    before: Callable[[Floats], float], after: Callable[[Floats], float], rows: int
) -> Figure:
    change, low, high = bootstrapped(lambda weights: after(weights) - before(weights), rows)
    even = np.ones(rows)
    return Figure(
        float_model=before(even), converted=after(even), change=change, low=low, high=high
    )


def _auc(truth: Truth, before: NDArray[np.float32], after: NDArray[np.float32]) -> Figure:
    positive = np.asarray(truth == 1)
    was, now = auc(before.astype(np.float64), positive), auc(after.astype(np.float64), positive)
    return _figure(was, now, len(truth))


def _margin(scores: Scores) -> NDArray[np.float32]:
    return np.asarray(scores[:, 1] - scores[:, 0], np.float32)


def _errors(truth: Truth, scores: Scores) -> Floats:
    """Mean absolute error of each row (n,)."""
    wanted = truth.astype(np.float64).reshape(len(truth), -1)
    return np.asarray(np.abs(scores.astype(np.float64) - wanted).mean(axis=1), np.float64)


def _spread(truth: Truth) -> float:
    """Mean distance of the targets from their median: the MAE of the best constant."""
    wanted = truth.astype(np.float64).reshape(len(truth), -1)
    return float(np.abs(wanted - np.median(wanted, axis=0)).mean()) or 1.0


def agreement(before: Scores, after: Scores, task: Task) -> float:
    """Share of rows to which two models give the same answer (n, k).

    That is the same class; or numbers that differ by less than a tenth of how the first model's
    answers spread around their median.
    """
    if task == "classification":
        return float((before.argmax(axis=1) == after.argmax(axis=1)).mean())
    spread = np.abs(before - np.median(before, axis=0)).mean()
    return float((np.abs(after - before).mean(axis=1) <= _CLOSE * spread).mean())


def by_class(
    truth: Truth, float_scores: Scores, scores: Scores, labels: tuple[str, ...]
) -> tuple[SliceDrop, ...]:
    """The drop within each class that has rows; a mean can hide that one collapses."""
    groups = {label: np.asarray(truth == i) for i, label in enumerate(labels)}
    return _drops(groups, truth, float_scores, scores, "classification")


def by_slice(
    truth: Truth, float_scores: Scores, scores: Scores,
    columns: Mapping[str, NDArray[np.str_]], task: Task,
) -> tuple[SliceDrop, ...]:  # fmt: skip
    """The drop within the rows of each value of each metadata column (n,)."""
    groups = {
        f"{name}={value}": np.asarray(values == value)
        for name, values in columns.items()
        for value in np.unique(values)
    }
    return _drops(groups, truth, float_scores, scores, task)


def _drops(
    groups: Mapping[str, NDArray[np.bool_]], truth: Truth, before: Scores, after: Scores, task: Task
) -> tuple[SliceDrop, ...]:
    drop = {
        "classification": _class_drop, "regression": _value_drop, "anomaly": _anomaly_drop
    }[task]  # fmt: skip
    spread = _spread(truth) if task == "regression" else 1.0
    found = []
    for label, mine in groups.items():
        if mine.any():
            mean, low, high = drop(truth[mine], before[mine], after[mine])
            scaled = (mean / spread, low / spread, high / spread)
            found.append(SliceDrop(label, int(mine.sum()), *scaled))
    return tuple(found)


def _class_drop(truth: Truth, before: Scores, after: Scores) -> tuple[float, float, float]:
    return _lost(before.argmax(axis=1) == truth, after.argmax(axis=1) == truth)


def _value_drop(truth: Truth, before: Scores, after: Scores) -> tuple[float, float, float]:
    return paired_mean(_errors(truth, after) - _errors(truth, before))


def _anomaly_drop(truth: Truth, before: Scores, after: Scores) -> tuple[float, float, float]:
    """Of a slice in which all rows are normal, or none: nothing can be said."""
    if (truth == truth[0]).all():
        return 0.0, 0.0, 0.0
    found = _auc(truth, before[:, 0], after[:, 0])
    return -found.change, -found.high, -found.low
