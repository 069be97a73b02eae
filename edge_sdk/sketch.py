"""Histograms on fixed edges: the summary of a channel that a device sends in place of its data.

The edges come from the training baseline and never move, so sketches of windows, devices, days and
cohorts are merged by adding them up. Values outside the outer edges are kept in an under- and an
overflow bin; mean and variance come from exact sums, free of binning error.
"""

import math
from collections.abc import Mapping
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge_sdk.calibration import CLASSES, CONFIDENCE, Calibration, Disturbed, Reference, calibration
from edge_sdk.errors import InvalidInputError
from edge_sdk.files import sha256
from edge_sdk.subspace import Subspace

Floats = NDArray[np.float64]
MANY = 32  # channels


class Channel(msgspec.Struct, frozen=True, kw_only=True):
    """How one channel looked in training: the reference and the fixed edges.

    Attributes:
        kind: `numeric` is binned on `edges`; `category` is counted by index into `categories`.
        edges: k ascending inner edges make k + 1 bins, the first and last open-ended.
        counts: the reference's rows in each bin.
        mean, sd: of the reference, exact.
    """

    kind: Literal["numeric", "category"]
    edges: tuple[float, ...] = ()
    categories: tuple[str, ...] = ()
    counts: tuple[int, ...]
    mean: float
    sd: float


class Baseline(msgspec.Struct, frozen=True):
    """The reference of one model version: every channel that its devices report.

    Attributes:
        correct: of the rows in each bin of `output.confidence`, how many were answered right; empty
            if that is not known.
        subspace: what the channel `input.novelty` is measured from; None if there is none.
        disturbed: how right the answers are when the rows are disturbed, and how that looks.
    """

    channels: dict[str, Channel]
    rows: int
    format: int = 1
    correct: tuple[int, ...] = ()
    subspace: Subspace | None = None
    disturbed: tuple[Disturbed, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a subspace of channels that nobody watches."""
        lacking = {*(self.subspace.columns if self.subspace else ())} - self.channels.keys()
        if lacking:
            raise ValueError(f"the subspace is of channels that are not there: {sorted(lacking)}")

    @property
    def calibration(self) -> Calibration | None:
        """How right answers of each confidence are; None if that is not known."""
        known = self.channels.get(CONFIDENCE)
        if known is None or len(self.correct) != len(known.counts):
            return None
        return calibration(np.array(known.counts, float), np.array(self.correct, float))

    @property
    def reference(self) -> Reference | None:
        """What `edge_sdk.calibration.looks` holds rows against; None without a calibration."""
        known, classes = self.calibration, self.channels.get(CLASSES)
        if known is None or classes is None:
            return None
        inputs = {n: c for n, c in self.channels.items() if n.startswith("input.")}
        return Reference(
            known,
            np.array(classes.counts, float),
            tuple(inputs),
            np.array([channel.mean for channel in inputs.values()], float),
            np.array([channel.sd for channel in inputs.values()], float),
        )

    @property
    def edges_id(self) -> str:
        """Sketches are comparable exactly if this agrees: it names edges and categories."""
        shape = {
            name: msgspec.structs.replace(c, counts=(), mean=0, sd=0)
            for name, c in sorted(self.channels.items())
        }
        named = {"channels": shape, "rows": 0, "format": 1}  # what a Baseline first held
        return sha256(msgspec.msgpack.encode(named))[:16]


class Sketch(msgspec.Struct, array_like=True, gc=False):
    """Counts of one channel over some rows; additive.

    Attributes:
        counts: rows in each bin of the channel.
        rows: finite values seen.
        missing: NaN or infinite values, in no bin.
        total, squares: sum and sum of squares of the finite values.
        low, high: smallest and largest finite value; 0 while there are none.
    """

    counts: list[int]
    rows: int = 0
    missing: int = 0
    total: float = 0.0
    squares: float = 0.0
    low: float = 0.0
    high: float = 0.0

    @property
    def mean(self) -> float:
        """Exact mean of the finite values; NaN while there are none."""
        return self.total / self.rows if self.rows else float("nan")

    @property
    def variance(self) -> float:
        """Population variance of the finite values; NaN while there are none."""
        if not self.rows:
            return float("nan")
        return max(self.squares / self.rows - self.mean**2, 0.0)


def numeric_channel(values: Floats, bins: int = 20) -> Channel:
    """A channel whose edges are quantiles of the reference `values` (n,), with its counts.

    Quantile edges give each bin about the same share, which is where PSI and Jensen-Shannon are
    steadiest; equal quantiles (a constant or discrete channel) collapse into one edge.

    Raises:
        InvalidInputError: no finite value.
    """
    finite = values[np.isfinite(values)]
    if not finite.size:
        raise InvalidInputError("a reference channel holds no finite value")
    cuts = np.quantile(finite, np.linspace(0, 1, bins + 1))
    edges = tuple(float(e) for e in np.unique(cuts))
    empty = Channel(kind="numeric", edges=edges, counts=(), mean=0, sd=0)
    return Channel(
        kind="numeric",
        edges=edges,
        counts=tuple(sketch(empty, values).counts),
        mean=float(finite.mean()),
        sd=float(finite.std()),
    )


def category_channel(indices: Floats, categories: tuple[str, ...]) -> Channel:
    """A channel of class indices (n,), counted by category; the last bin is 'anything else'."""
    empty = Channel(kind="category", categories=categories, counts=(), mean=0, sd=0)
    return Channel(
        kind="category",
        categories=categories,
        counts=tuple(sketch(empty, indices).counts),
        mean=float(indices.mean()),
        sd=float(indices.std()),
    )


def bins(channel: Channel) -> int:
    """How many counts a sketch of this channel has."""
    return len(channel.edges) + 1 if channel.kind == "numeric" else len(channel.categories) + 1


def sketch(channel: Channel, values: Floats) -> Sketch:
    """Bin `values` (n,) on the channel's edges in one vectorised step.

    >>> c = numeric_channel(np.array([0.0, 1.0, 2.0, 3.0, 4.0]), bins=4)
    >>> sketch(c, np.array([-1.0, 2.5, np.nan, 9.0])).counts
    [1, 0, 0, 1, 0, 1]
    """
    finite = values[np.isfinite(values)]
    size = bins(channel)
    if channel.kind == "numeric":
        where = np.searchsorted(np.asarray(channel.edges), finite, side="right")
    else:
        known = (finite >= 0) & (finite < size - 1)
        where = np.where(known, finite, size - 1).astype(np.intp)
    counts: list[int] = np.bincount(where, minlength=size).tolist()
    if not finite.size:
        return Sketch(counts, missing=int(values.size))
    return Sketch(
        counts,
        rows=int(finite.size),
        missing=int(values.size - finite.size),
        total=float(finite.sum()),
        squares=float(np.square(finite).sum()),
        low=float(finite.min()),
        high=float(finite.max()),
    )


def sketch_all(channels: Mapping[str, Channel], columns: Mapping[str, Floats]) -> dict[str, Sketch]:
    """The sketches of `columns` (name -> (n,)), those without a channel left out.

    The same as `sketch` of each, for all numeric columns of one form at once: sorting a column once
    costs less than looking up the bin of each of its values.
    """
    found: dict[str, Sketch] = {}
    alike: dict[tuple[int, int], list[str]] = {}
    for name, values in columns.items():
        channel = channels.get(name)
        if channel is None:
            continue
        if channel.kind == "numeric" and channel.edges and len(values):
            alike.setdefault((len(values), len(channel.edges)), []).append(name)
        else:
            found[name] = sketch(channel, values)
    for names in alike.values():
        found |= _sorted_sketches(channels, columns, names)
    return found


def _sorted_sketches(
    channels: Mapping[str, Channel], columns: Mapping[str, Floats], names: list[str]
) -> dict[str, Sketch]:
    values = np.stack([columns[name] for name in names])
    size = values.shape[1]
    totals = values.sum(axis=1)
    squares = np.einsum("ij,ij->i", values, values)
    values.sort(axis=1)
    below = [row.searchsorted(channels[n].edges) for n, row in zip(names, values, strict=True)]
    counts = np.diff(below, axis=1, prepend=0, append=size).tolist()
    found = {}
    for at, (name, total, square, low, high) in enumerate(
        zip(
            names,
            totals.tolist(),
            squares.tolist(),
            values[:, 0].tolist(),
            values[:, -1].tolist(),
            strict=True,
        )
    ):
        if math.isfinite(total):
            found[name] = Sketch(counts[at], size, 0, total, square, low, high)
        else:  # a NaN, an infinity or an overflow somewhere in it
            found[name] = sketch(channels[name], columns[name])
    return found


def merge(one: Sketch, other: Sketch) -> Sketch:
    """The sketch of both sets of rows.

    Raises:
        InvalidInputError: the two were made on different edges.
    """
    if len(one.counts) != len(other.counts):
        raise InvalidInputError(
            f"sketches of {len(one.counts)} and {len(other.counts)} bins can't be added up"
        )
    if not one.rows or not other.rows:
        low, high = (one.low, one.high) if one.rows else (other.low, other.high)
    else:
        low, high = min(one.low, other.low), max(one.high, other.high)
    return Sketch(
        [a + b for a, b in zip(one.counts, other.counts, strict=True)],
        one.rows + other.rows,
        one.missing + other.missing,
        one.total + other.total,
        one.squares + other.squares,
        low,
        high,
    )


def make_baseline(
    columns: Mapping[str, Floats],
    labels: tuple[str, ...],
    right: Floats | None = None,
    subspace: Subspace | None = None,
) -> Baseline:
    """The baseline of reference `columns` (name -> (n,)); `output.class` counts `labels`.

    Many channels are binned by deciles, so that a window of them still takes about 1 KB.

    Args:
        columns: the reference rows, by channel.
        labels: names of the classes.
        right: 1 for each row that was answered right, else 0; None if that is not known.
        subspace: from which the column `input.novelty` was computed, if it was.
    """
    rows = max((len(values) for values in columns.values()), default=0)
    size = 20 if len(columns) <= MANY else 10
    channels = {
        name: numeric_channel(values, size)
        for name, values in columns.items()
        if name != "output.class"
    }
    if "output.class" in columns:
        channels["output.class"] = category_channel(columns["output.class"], labels)
    correct: tuple[int, ...] = ()
    if right is not None and "output.confidence" in channels:
        confidence = columns["output.confidence"]
        counts = sketch(channels["output.confidence"], confidence[right > 0]).counts
        correct = tuple(counts)
    return Baseline(channels, rows, correct=correct, subspace=subspace)
