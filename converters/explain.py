"""What a model looks at, by SHAP, LIME and partial dependence: the converted one's and the float's.

A row is cut into parts: the columns of a vector, else a grid of patches. A part is taken away by
putting the mean of the calibration rows in its place. Both models get the same rows, so that a
difference is one of the models.
"""

import warnings
from collections.abc import Callable

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge_sdk.channels import Array
from edge_sdk.errors import EdgeError
from edge_sdk.interpreter import Scores

Floats = NDArray[np.float64]
Answer = Callable[[Array], Scores]
ROWS, GRID_ROWS, GRID = 6, 40, 7
_MOST_COLUMNS, _PATCHES = 64, 4
_SAMPLES, _SEED = 200, 1


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """How much one part of the rows matters: the mean size of its share of the answer."""

    name: str
    shap_float: float
    shap: float
    lime_float: float
    lime: float


class Dependence(msgspec.Struct, frozen=True):
    """The mean answer of both models over values of one column, the others as they are."""

    name: str
    values: tuple[float, ...]
    float_model: tuple[float, ...]
    converted: tuple[float, ...]


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """What two models look at.

    Attributes:
        parts: the most important first.
        shap_moved, lime_moved: mean difference of the two models' shares, over the mean size of
            the float model's.
        dependence: of the columns of a vector, empty for others.
        dependence_moved: the largest difference of two curves, over the range of all curves.
    """

    format: int = 1
    rows: int
    parts: tuple[Part, ...]
    shap_moved: float
    lime_moved: float
    dependence: tuple[Dependence, ...]
    dependence_moved: float


def explained(
    float_model: Answer, converted: Answer, rows: Array, background: Array,
    columns: tuple[str, ...] = (),
) -> Explanation:  # fmt: skip
    """The explanation of two models on some rows.

    Args:
        float_model: answers (n, k) of raw rows (n, *shape).
        converted: the same of the other model.
        rows: raw rows (n, *shape) to explain; the first `ROWS` are.
        background: raw rows whose mean stands for what is taken away.
        columns: names of a vector's columns.

    Raises:
        EdgeError: shap or lime is not installed.
    """
    some = rows[:ROWS]
    mean = background.astype(np.float64).mean(axis=0)
    names, places = parts_of(rows.shape[1:], columns)
    kinds = [int(answer.argmax()) for answer in float_model(some)]
    shares = []
    for model in (float_model, converted):
        found = [
            _shares(_masked(model, row, mean, places, kind), len(names))
            for row, kind in zip(some, kinds, strict=True)
        ]
        shares.append(np.stack(found))  # (rows, 2, parts): SHAP, LIME
    before, after = shares
    sizes = [np.abs(one).mean(axis=0) for one in shares]
    order = np.argsort(-sizes[0][0], kind="stable")
    curves = _dependence(float_model, converted, rows[:GRID_ROWS], names)
    return Explanation(
        rows=len(some),
        parts=tuple(
            Part(
                name=names[i],
                shap_float=float(sizes[0][0, i]),
                shap=float(sizes[1][0, i]),
                lime_float=float(sizes[0][1, i]),
                lime=float(sizes[1][1, i]),
            )
            for i in order
        ),
        shap_moved=_moved(before[:, 0], after[:, 0]),
        lime_moved=_moved(before[:, 1], after[:, 1]),
        dependence=curves,
        dependence_moved=_curves_moved(curves),
    )


def parts_of(
    shape: tuple[int, ...], columns: tuple[str, ...]
) -> tuple[tuple[str, ...], NDArray[np.intp]]:
    """Names of the parts of a row, and the number of the part at each of its places (*shape).

    >>> names, places = parts_of((8, 8, 1), ())
    >>> len(names), names[5], int(places[2, 3, 0])
    (16, 'patch 1,1', 5)
    """
    if len(shape) == 1 and shape[0] <= _MOST_COLUMNS:
        return columns or tuple(f"x{i}" for i in range(shape[0])), np.arange(shape[0])
    grid = [min(n, _PATCHES) if axis < 2 else 1 for axis, n in enumerate(shape)]
    axes = [np.arange(n) * g // n for n, g in zip(shape, grid, strict=True)]
    places = np.zeros(shape, np.intp)
    for axis, (index, size) in enumerate(zip(axes, grid, strict=True)):
        along = index.reshape([-1 if a == axis else 1 for a in range(len(shape))])
        places = places * size + along
    used = grid[: min(2, len(shape))]
    names = tuple("patch " + ",".join(str(i) for i in at) for at in np.ndindex(*used))
    return names, places


def _masked(
    model: Answer, row: Array, mean: Floats, places: NDArray[np.intp], kind: int
) -> Callable[[Floats], Floats]:
    """The answer for a row of which only some parts (n, parts) are there."""

    def answer(there: Floats) -> Floats:
        kept = there.astype(bool)[:, places]
        given = np.where(kept, row, mean)
        if row.dtype.kind in "iu":
            given = np.rint(given)
        return model(given.astype(row.dtype))[:, kind].astype(np.float64)

    return answer


def _shares(answer: Callable[[Floats], Floats], parts: int) -> Floats:
    """Each part's share by SHAP and by LIME, (2, parts)."""
    try:
        import shap
        from lime.lime_base import LimeBase
    except ModuleNotFoundError as error:
        raise EdgeError(
            f"explaining needs {error.name}: pip install 'edge-deployment-sdk[explain]'"
        ) from error
    whole, nothing = np.ones((1, parts)), np.zeros((1, parts))
    with warnings.catch_warnings():  # both libraries use what numpy and scikit-learn deprecate
        warnings.simplefilter("ignore")
        explainer = shap.explainers.Permutation(answer, nothing, seed=_SEED)
        by_shap = explainer(whole, max_evals=max(500, 2 * parts + 1), silent=True).values[0]
        rng = np.random.default_rng(_SEED)
        around = (rng.random((_SAMPLES, parts)) < 0.5).astype(np.float64)
        around[0] = 1
        distance = 1 - around.mean(axis=1)
        base = LimeBase(lambda d: np.exp(-(d**2) / 0.25), random_state=_SEED)
        labels = answer(around)[:, np.newaxis]
        _, found, _, _ = base.explain_instance_with_data(
            around, labels, distance, 0, parts, feature_selection="none"
        )
    by_lime = np.zeros(parts)
    for part, weight in found:
        by_lime[part] = weight
    return np.stack([np.asarray(by_shap, np.float64), by_lime])


def _moved(before: Floats, after: Floats) -> float:
    size = float(np.abs(before).mean())
    return float(np.abs(after - before).mean()) / size if size else 0.0


def _dependence(
    float_model: Answer, converted: Answer, rows: Array, names: tuple[str, ...]
) -> tuple[Dependence, ...]:
    if rows.ndim != 2:
        return ()
    kind = int(float_model(rows).mean(axis=0).argmax())
    found = []
    for column, name in enumerate(names):
        values = np.unique(
            np.quantile(rows[:, column].astype(np.float64), np.linspace(0.05, 0.95, GRID))
        )
        curves: tuple[list[float], list[float]] = ([], [])
        for value in values:
            given = rows.copy()
            given[:, column] = value
            for curve, model in zip(curves, (float_model, converted), strict=True):
                curve.append(float(model(given)[:, kind].mean()))
        found.append(Dependence(name, tuple(float(v) for v in values), *map(tuple, curves)))
    return tuple(found)


def _curves_moved(curves: tuple[Dependence, ...]) -> float:
    if not curves:
        return 0.0
    before = np.concatenate([curve.float_model for curve in curves])
    after = np.concatenate([curve.converted for curve in curves])
    span = float(before.max() - before.min())
    return float(np.abs(after - before).max()) / span if span else 0.0
