"""Feature steps of a manifest: what turns raw values into what a model takes, beyond scaling.

Each is data with one function; the converter's host and the device call the same one. Sums are
made in float64 and rounded to float32 once, so that two machines give the same model input.
"""

from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from edge_sdk.errors import InvalidInputError

Floats32 = NDArray[np.float32]
Numbers = Annotated[tuple[float, ...], Meta(min_length=1, max_length=4096)]
Count = Annotated[int, Meta(ge=1, le=1_000_000)]


class Standardise(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="standardise"):
    """`(value - mean) / sd` for each value of the last axis; one number stands for all of them."""

    mean: Numbers
    sd: Numbers

    def apply(self, values: Floats32) -> Floats32:
        """Rows (n, ..., k) of the same shape."""
        centred = values - np.asarray(self.mean, np.float64)
        return np.asarray(centred / np.asarray(self.sd, np.float64), np.float32)

    def problem(self) -> str | None:
        """Why it can't be used; None if it can."""
        if not (np.isfinite(self.mean).all() and np.isfinite(self.sd).all() and all(self.sd)):
            return "mean and sd must be numbers, no sd may be 0"
        return None


class Bucket(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="bucket"):
    """Each value of the last axis becomes the number of its edges that are not above it.

    Attributes:
        edges: ascending, for each value of the last axis; an empty tuple leaves that one as it is.
    """

    edges: tuple[tuple[float, ...], ...]

    def apply(self, values: Floats32) -> Floats32:
        """Rows (n, ..., k) of the same shape."""
        _same(values.shape[-1], len(self.edges), "bucket")
        made = values.copy()
        for i, edges in enumerate(self.edges):
            if edges:
                inner = np.asarray(edges, np.float64)
                made[..., i] = np.searchsorted(inner, values[..., i].astype(np.float64), "right")
        return made

    def problem(self) -> str | None:
        """Why it can't be used; None if it can."""
        rising = all((np.diff(e) > 0).all() and np.isfinite(e).all() for e in self.edges if e)
        return None if rising else "edges must be ascending numbers"


class Window(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="window"):
    """A series (n, t, ...) in overlapping pieces: (n, pieces, size, ...); what is over is left."""

    size: Count
    stride: Count

    def apply(self, values: Floats32) -> Floats32:
        """Rows (n, t, ...) as (n, 1 + (t - size) // stride, size, ...)."""
        if values.ndim < 2 or values.shape[1] < self.size:
            raise InvalidInputError(
                f"feature step window: a row of shape {values.shape[1:]} is shorter than the "
                f"window's {self.size}"
            )
        starts = range(0, values.shape[1] - self.size + 1, self.stride)
        return np.stack([values[:, i : i + self.size] for i in starts], axis=1)

    def problem(self) -> str | None:
        """Why it can't be used; None if it can."""
        return None


class Project(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="project"):
    """Principal components: `(values - mean) @ components.T`, fewer columns than came.

    Attributes:
        mean: of each column (k,).
        components: (c, k), one row each.
    """

    mean: Numbers
    components: tuple[Numbers, ...]

    def apply(self, values: Floats32) -> Floats32:
        """Rows (n, k) as (n, c)."""
        _same(values.shape[-1], len(self.mean), "project")
        centred = values - np.asarray(self.mean, np.float64)
        # not a matrix product: each BLAS sums in another order
        made = [(centred * np.asarray(row, np.float64)).sum(axis=-1) for row in self.components]
        return np.stack(made, axis=-1).astype(np.float32)

    def problem(self) -> str | None:
        """Why it can't be used; None if it can."""
        widths = {len(self.mean), *(len(row) for row in self.components)}
        if not self.components or len(widths) != 1:
            return "every component needs as many numbers as the mean"
        return None


Feature = Standardise | Bucket | Window | Project


def apply_all(steps: tuple[Feature, ...], values: Floats32) -> Floats32:
    """All steps in order, on rows (n, ...).

    >>> steps = (Standardise((2.0,), (4.0,)), Bucket(((0.0,), ())))
    >>> apply_all(steps, np.array([[6.0, 2.0], [0.0, 4.0]], np.float32)).tolist()
    [[1.0, 0.0], [0.0, 0.5]]

    Raises:
        InvalidInputError: a row that a step can't take.
    """
    for step in steps:
        try:
            values = step.apply(values)
        except ValueError as error:
            raise InvalidInputError(
                f"feature step {step.__struct_config__.tag}: a row of shape {values.shape[1:]} "
                f"does not fit it"
            ) from error
    return values


def problems(steps: tuple[Feature, ...]) -> list[str]:
    """What is wrong with steps that were read, one sentence each."""
    found = [(step.__struct_config__.tag, step.problem()) for step in steps]
    return [f"feature step {tag}: {what}" for tag, what in found if what]


def _same(got: int, wanted: int, step: str) -> None:
    if got != wanted:
        raise InvalidInputError(f"feature step {step}: a row has {got} columns, it takes {wanted}")
