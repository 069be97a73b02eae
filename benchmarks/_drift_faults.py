"""Faults of sensors at five strengths, in pictures and in columns of numbers."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Floats = NDArray[np.float64]
Columns = dict[str, Floats]


def _blur(x: Floats, s: int) -> Floats:
    width = (0.4, 0.6, 0.8, 1.1, 1.5)[s - 1]
    return np.asarray(ndimage.gaussian_filter(x, (0, width, width, 0)))


def _noise(x: Floats, s: int) -> Floats:
    return x + np.random.default_rng(1).normal(0, (4, 8, 14, 22, 32)[s - 1], x.shape)


def _dark(x: Floats, s: int) -> Floats:
    return x * (0.85, 0.7, 0.55, 0.4, 0.25)[s - 1]


def _stuck(x: Floats, s: int) -> Floats:
    broken, rng = x.copy(), np.random.default_rng(5)
    for i in range((4, 10, 25, 60, 120)[s - 1]):
        row, column = rng.integers(0, x.shape[1], 2)
        broken[:, row, column] = 255 * (i % 2)
    return broken


def _crop(x: Floats, s: int) -> Floats:
    edge, size = (1, 2, 4, 6, 8)[s - 1], x.shape[1]
    zoom = size / (size - 2 * edge)
    inner = x[:, edge : size - edge, edge : size - edge]
    return np.asarray(ndimage.zoom(inner, (1, zoom, zoom, 1), order=1))


def _colour(x: Floats, s: int) -> Floats:
    cast = (0.05, 0.1, 0.2, 0.3, 0.45)[s - 1]
    return x * np.array([1 + cast, 1, 1 - cast])


PICTURE_FAULTS: dict[str, Callable[[Floats, int], Floats]] = {
    "blur": _blur,
    "noise": _noise,
    "brightness": _dark,
    "stuck pixels": _stuck,
    "crop": _crop,
    "colour shift": _colour,
}


def _hit(columns: Columns, how: Callable[[Floats, float, int], Floats]) -> Columns:
    """Every third column, given its standard deviation and number."""
    return {
        name: how(v, float(v.std()) or 1.0, i) if i % 3 == 0 else v
        for i, (name, v) in enumerate(columns.items())
    }


def _offset(columns: Columns, s: int) -> Columns:
    return _hit(columns, lambda v, sd, _: v + (0.25, 0.5, 1, 2, 4)[s - 1] * sd)


def _gain(columns: Columns, s: int) -> Columns:
    factor = (0.9, 0.75, 0.5, 0.25, 0.1)[s - 1]
    return _hit(columns, lambda v, _, __: v.mean() + factor * (v - v.mean()))


def _jitter(columns: Columns, s: int) -> Columns:
    size = (0.25, 0.5, 1, 2, 4)[s - 1]
    return _hit(columns, lambda v, sd, i: v + np.random.default_rng(i).normal(0, size * sd, len(v)))


def _frozen(columns: Columns, s: int) -> Columns:
    share = (0.1, 0.25, 0.5, 0.75, 1.0)[s - 1]
    return _hit(
        columns,
        lambda v, _, i: np.where(np.random.default_rng(i).random(len(v)) < share, v.mean(), v),
    )


def _gaps(columns: Columns, s: int) -> Columns:
    share = (0.01, 0.03, 0.1, 0.3, 0.6)[s - 1]
    return _hit(
        columns,
        lambda v, _, i: np.where(np.random.default_rng(i).random(len(v)) < share, np.nan, v),
    )


SENSOR_FAULTS: dict[str, Callable[[Columns, int], Columns]] = {
    "offset": _offset,
    "gain": _gain,
    "jitter": _jitter,
    "frozen": _frozen,
    "gaps": _gaps,
}
