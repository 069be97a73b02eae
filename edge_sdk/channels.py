"""What is watched: numbers computed from a model's inputs and outputs, the same everywhere.

The converter computes the baseline with this code and the agent computes its windows with it, so
a difference between the two is a difference in the data.
"""

from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge_sdk.features import Feature, apply_all
from edge_sdk.sketch import Channel, Floats
from edge_sdk.subspace import NOVELTY, Subspace, channel_novelty, novelty

Array = NDArray[np.generic]
# What an answer is: of classes, numbers (regression), or how far from normal (anomaly).
ScoreKind = Literal["probabilities", "logits", "values", "error"]
MAX_COLUMNS = 256
DARK, BRIGHT = 0.05, 0.95
# A baseline is made on the converting host, whose latency says nothing about a board: milliseconds
# have edges of their own, 4 bins an octave from 8 microseconds to 8 seconds, the same everywhere.
LATENCY = Channel(
    kind="numeric",
    edges=tuple(float(edge) for edge in 2.0 ** np.arange(-7, 13.25, 0.25)),
    counts=(),
    mean=0,
    sd=0,
)
# A model and its shadow are compared on edges that neither brings along.
CONFIDENCE = Channel(
    kind="numeric",
    edges=tuple(round(0.05 * step, 2) for step in range(21)),
    counts=(),
    mean=0,
    sd=0,
)
LEAD = Channel(
    kind="numeric",
    edges=tuple(round(0.1 * step, 1) for step in range(-10, 11)),
    counts=(),
    mean=0,
    sd=0,
)


class InputSchema(msgspec.Struct, frozen=True, kw_only=True):
    """What one raw input looks like, before any preprocessing.

    Attributes:
        name: of the model's input.
        kind: `image` (height, width[, colours]), `vector` (columns,), or `tensor` (anything else).
        shape: of one row, without the batch.
        low, high: the range that raw values have; outside it is schema skew.
        unit: of the raw values, for people.
        columns: a name for each column of a vector.
    """

    name: str
    kind: Literal["image", "vector", "tensor"]
    shape: tuple[int, ...]
    low: float
    high: float
    unit: str = ""
    columns: tuple[str, ...] = ()


class Preprocessing(msgspec.Struct, frozen=True):
    """What turns raw values into what the model takes: `raw * scale + offset`, then the steps.

    What `apply` gives may be the raw rows themselves.
    """

    scale: float = 1.0
    offset: float = 0.0
    steps: tuple[Feature, ...] = ()

    def apply(self, raw: Array) -> NDArray[np.float32]:
        """The model's float input for raw rows (n, ...).

        >>> Preprocessing(scale=0.5, offset=1).apply(np.array([[2, 4]])).tolist()
        [[2.0, 3.0]]

        Raises:
            InvalidInputError: rows that a step can't take.
        """
        if self.scale == 1 and self.offset == 0:
            values = np.asarray(raw, np.float32)  # what the model takes as it is is not copied
        else:
            values = raw.astype(np.float32)
            values *= np.float32(self.scale)
            values += np.float32(self.offset)
        return apply_all(self.steps, values)

    def __str__(self) -> str:
        steps = [str(step.__struct_config__.tag) for step in self.steps]
        return ", then ".join([f"raw * {self.scale:g} + {self.offset:g}", *steps])


def schema_skew(schema: InputSchema, row: Array) -> str | None:
    """Why one raw row does not fit the schema, as a short word to count by; None if it fits."""
    if row.shape != schema.shape:
        return "shape"
    if row.dtype.kind not in "fiub":
        return "type"
    if row.dtype.kind == "f" and not np.isfinite(row).all():
        return "missing"
    if row.min() < schema.low or row.max() > schema.high:
        return "range"
    return None


def fits(schema: InputSchema, rows: Array) -> bool:
    """Whether `schema_skew` finds nothing in any of the raw rows (n, *shape)."""
    if rows.shape[1:] != schema.shape or rows.dtype.kind not in "fiub":
        return False
    if rows.dtype == np.uint8 and schema.low <= 0 and schema.high >= 255:
        return True
    flat = rows.reshape(-1)
    low, high = flat[flat.argmin()], flat[flat.argmax()]  # for one row faster than min and max
    return bool(low >= schema.low and high <= schema.high)  # no NaN passes either


def watched_inputs(
    schema: InputSchema, rows: Array, subspace: Subspace | None, inside: Array | None = None
) -> dict[str, Floats]:
    """`input_channels`, and how novel rows are in the subspace, if one is known.

    Args:
        schema: of the rows.
        rows: raw, (n, *shape).
        subspace: of the channels together, or of the model's embedding.
        inside: real embeddings (m, d) of the same rows, or of some.
    """
    channels = input_channels(schema, rows)
    if subspace is not None and subspace.columns:
        channels[NOVELTY] = channel_novelty(subspace, channels)
    elif subspace is not None and inside is not None:
        channels[NOVELTY] = novelty(subspace, inside)
    return channels


def input_channels(schema: InputSchema, rows: Array) -> dict[str, Floats]:
    """Channels `input.*` of raw rows (n, *shape), each (n,).

    Images give statistics of the picture, all on the schema's range scaled to 0..1: brightness
    (mean), contrast (standard deviation), sharpness (mean absolute Laplacian), dark and bright
    (share of pixels in the lowest and highest 5 % of the range), and of pictures in three colours
    the cast: how far the first (red) and the last (blue) are above the mean of all. Vectors give
    their columns, other tensors mean, spread and peak.
    """
    if schema.kind == "image":
        span = (schema.high - schema.low) or 1.0
        found = _picture_channels(_grey(rows, schema.low, span))
        if rows.ndim == 4 and rows.shape[3] == 3:
            found |= _cast(rows, found["input.brightness"], schema.low, span)
        return found
    flat = rows.astype(np.float64).reshape(len(rows), -1)
    if schema.kind == "vector":
        names = schema.columns or tuple(f"x{i}" for i in range(flat.shape[1]))
        columns = np.ascontiguousarray(flat[:, :MAX_COLUMNS].T)
        return {f"input.{n}": column for n, column in zip(names, columns, strict=False)}
    return {
        "input.mean": flat.mean(axis=1),
        "input.spread": flat.std(axis=1),
        "input.peak": np.abs(flat).max(axis=1),
    }


def _grey(rows: Array, low: float, span: float) -> NDArray[np.float32]:
    """Pictures (n, height, width) on 0..1; sums colours plane by plane, which numpy does fast."""
    values = rows.astype(np.float32)
    colours = 1
    if values.ndim == 4:
        colours, planes = values.shape[3], values
        values = planes[..., 0].copy()
        for colour in range(1, colours):
            values += planes[..., colour]
    values -= np.float32(low * colours)
    values *= np.float32(1 / (span * colours))
    return values


def _cast(rows: Array, brightness: Floats, low: float, span: float) -> dict[str, Floats]:
    red, blue = (rows[..., i].reshape(len(rows), -1).mean(axis=1) for i in (0, 2))
    return {
        "input.red_cast": (red - low) / span - brightness,
        "input.blue_cast": (blue - low) / span - brightness,
    }


def _picture_channels(grey: NDArray[np.float32]) -> dict[str, Floats]:
    flat = grey.reshape(len(grey), -1)
    laplace = grey[:, :-2, 1:-1] + grey[:, 2:, 1:-1]
    laplace += grey[:, 1:-1, :-2]
    laplace += grey[:, 1:-1, 2:]
    laplace -= 4 * grey[:, 1:-1, 1:-1]
    np.abs(laplace, out=laplace)
    columns = {
        "input.brightness": flat.mean(axis=1),
        "input.contrast": flat.std(axis=1),
        "input.sharpness": laplace.mean(axis=(1, 2)),
        "input.dark": (flat <= DARK).mean(axis=1),
        "input.bright": (flat >= BRIGHT).mean(axis=1),
    }
    return {name: values.astype(np.float64) for name, values in columns.items()}


def output_channels(probabilities: Floats) -> dict[str, Floats]:
    """Channels `output.*` of class probabilities (n, classes): class, confidence, margin."""
    rows = np.arange(len(probabilities))
    best = probabilities.argmax(axis=1)
    confidence = probabilities[rows, best]
    others = probabilities.copy()
    others[rows, best] = -np.inf  # cheaper than sorting every row
    second = others.max(axis=1) if others.shape[1] > 1 else np.zeros(len(rows))
    return {
        "output.class": best.astype(np.float64),
        "output.confidence": confidence,
        "output.margin": confidence - second,
    }


def reconstruction_error(given: Array, made: Array) -> NDArray[np.float32]:
    """Mean squared difference (n, 1) of what a model was given (n, ...) and what it made of it."""
    squares = (made.astype(np.float64) - given.astype(np.float64)) ** 2
    means = squares.reshape(len(squares), -1).mean(axis=1, keepdims=True)
    return np.asarray(means, np.float32)


def answer_channels(scores: Array, kind: ScoreKind) -> dict[str, Floats]:
    """Channels `output.*` of answers (n, k), dequantised: of classes, or of the numbers given."""
    if kind == "values" or kind == "error":
        names = [f"output.{kind.removesuffix('s')}{i or ''}" for i in range(scores.shape[1])]
        return {name: scores[:, i].astype(np.float64) for i, name in enumerate(names[:MAX_COLUMNS])}
    return output_channels(to_probabilities(scores, kind))


def of_classes(kind: ScoreKind) -> bool:
    """Whether an answer says how likely each class is."""
    return kind == "probabilities" or kind == "logits"


def real_answers(scores: Array, kind: ScoreKind) -> Floats:
    """Class probabilities (n, classes), or the numbers that the model gives (n, k)."""
    if kind == "probabilities" or kind == "logits":
        return to_probabilities(scores, kind)
    return scores.astype(np.float64)


def to_probabilities(scores: Array, kind: Literal["probabilities", "logits"]) -> Floats:
    """Class probabilities (n, classes) from what the model gives (already dequantised)."""
    values = scores.astype(np.float64)
    if kind == "probabilities":
        return values
    exponent = np.exp(values - values.max(axis=1, keepdims=True))
    return np.asarray(exponent / exponent.sum(axis=1, keepdims=True), dtype=np.float64)
