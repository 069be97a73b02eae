"""A window's sketches on the wire: counts exact, moments rounded, names left to the baseline.

Who reads them has the model's baseline, so a channel is its place in the baseline's sorted names,
and its mean, deviation and extremes are given in units of the reference's deviation: the mean to
1/128 of it, the deviation to 0.8 %, the extremes to 6 %. `benchmarks/window_bytes.py` measures what
that saves. Packed sketches of one baseline can be added up without it.
"""

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from edge_sdk.channels import LATENCY
from edge_sdk.errors import FormatError, InvalidInputError
from edge_sdk.messages import Window
from edge_sdk.packed_bytes import Arrays, Blob, Ints, Shape, at_once, decode, encode, opened
from edge_sdk.sketch import Baseline, Channel, Floats, Sketch, bins

MAX_ROWS = 2**40


def packed(window: Window, baseline: Baseline) -> Window:
    """The same window with its sketches packed; those without a reference stay plain."""
    reference = _reference(baseline)
    known = {name: s for name, s in window.channels.items() if name in reference}
    plain = {name: s for name, s in window.channels.items() if name not in reference}
    if not known:
        return window
    blob = encode(_gather(known, reference))
    return msgspec.structs.replace(window, channels=plain, packed=blob, edges_id="")


def unpacked(window: Window, baseline: Baseline) -> Window:
    """The same window with its sketches as `channels`.

    Raises:
        FormatError: what is packed does not fit this baseline, or is damaged.
    """
    [found] = unpacked_all([window], baseline)
    if isinstance(found, FormatError):
        raise found
    return found


def unpacked_all(windows: Sequence[Window], baseline: Baseline) -> list[Window | FormatError]:
    """Each as `unpacked`, or why it can't be; a hundred at once cost little more than one."""
    found: list[Window | FormatError] = list(windows)
    alike: dict[Shape, list[tuple[int, Blob]]] = {}
    for at, window in enumerate(windows):
        if window.packed:
            try:
                blob = opened(window.packed)
                alike.setdefault(blob.shape, []).append((at, blob))
            except FormatError as error:
                found[at] = error
    edges_id = baseline.edges_id if alike else ""  # the digest names it already
    for shape, blobs in alike.items():
        size = at_once(shape)
        for start in range(0, len(blobs), size):
            part = blobs[start : start + size]
            made = _channels_all([blob for _, blob in part], _reference(baseline))
            for (at, _), channels in zip(part, made, strict=True):
                found[at] = (
                    channels
                    if isinstance(channels, FormatError)
                    else _with(windows[at], channels, edges_id)
                )
    return found


def _with(window: Window, channels: dict[str, Sketch], edges_id: str) -> Window:
    return msgspec.structs.replace(
        window,
        channels={**window.channels, **channels},
        packed=b"",
        edges_id=window.edges_id or edges_id,
    )


def _channels_all(
    blobs: Sequence[Blob], reference: Mapping[str, Channel]
) -> list[dict[str, Sketch] | FormatError]:
    """Of each blob; one that is damaged is found by halves, so that it costs the others little."""
    try:
        return [*_scatter(decode(blobs), reference)]
    except FormatError as error:
        if len(blobs) == 1:
            return [error]
    half = len(blobs) // 2
    return [*_channels_all(blobs[:half], reference), *_channels_all(blobs[half:], reference)]


def added_up(blobs: Sequence[bytes]) -> bytes:
    """The packed sketches of all rows of several packed windows of one baseline.

    Raises:
        InvalidInputError: they do not hold the same channels.
    """
    one, *others = [decode([opened(blob)]).only() for blob in blobs]
    for other in others:
        if not (np.array_equal(one.place, other.place) and np.array_equal(one.bins, other.bins)):
            raise InvalidInputError("packed windows of different channels can't be added up")
        one = _sum(one, other)
    return encode(one)


def _reference(baseline: Baseline) -> dict[str, Channel]:
    return {"latency_ms": LATENCY, **baseline.channels}


def _scale(channel: Channel) -> float:
    return channel.sd or 1e-3 * (abs(channel.mean) or 1.0)


def _gather(sketches: Mapping[str, Sketch], reference: Mapping[str, Channel]) -> Arrays:
    names = sorted(reference)
    here = [name for name in names if name in sketches]
    found = [sketches[name] for name in here]
    middle = np.array([reference[name].mean for name in here])
    scale = np.array([_scale(reference[name]) for name in here])
    rows = np.array([max(s.rows, 1) for s in found], np.float64)
    mean = np.array([s.total for s in found]) / rows
    squares = np.array([s.squares for s in found]) / rows
    return Arrays(
        place=np.flatnonzero([name in sketches for name in names]),
        bins=np.array([len(s.counts) for s in found], np.int64),
        numeric=np.array([reference[name].kind == "numeric" for name in here]),
        missing=np.array([s.missing for s in found], np.int64),
        counts=[np.array(s.counts, np.int64) for s in found],
        mean=(mean - middle) / scale,
        sd=np.sqrt(np.maximum(squares - mean**2, 0)) / scale,
        low=(np.array([s.low for s in found]) - middle) / scale,
        high=(np.array([s.high for s in found]) - middle) / scale,
    )


def _scatter(arrays: Arrays, reference: Mapping[str, Channel]) -> list[dict[str, Sketch]]:
    """The sketches of n blobs.

    Raises:
        FormatError: they are not of these channels, or one holds numbers beyond measure.
    """
    names = sorted(reference)
    here = [names[at] for at in arrays.place.tolist() if 0 <= at < len(names)]
    channels = [reference[name] for name in here]
    if [bins(channel) for channel in channels] != arrays.bins.tolist():
        raise FormatError("packed sketches do not fit the baseline they are said to use")
    middle = np.array([channel.mean for channel in channels])
    scale = np.array([_scale(channel) for channel in channels])
    rows = np.stack([counts.sum(axis=1) for counts in arrays.counts], axis=1)
    least = min(arrays.missing.min(), *(counts.min() for counts in arrays.counts))
    if least < 0 or max(rows.max(), arrays.missing.max()) > MAX_ROWS:
        raise FormatError("packed sketches hold a count that is negative or beyond belief")
    with np.errstate(over="ignore", invalid="ignore"):
        mean, sd = arrays.mean * scale + middle, arrays.sd * scale
        moments = np.stack(
            [rows * mean, rows * (sd**2 + mean**2), *(x * scale + middle
             for x in (arrays.low, arrays.high))]
        )  # fmt: skip
    moments[:, rows == 0] = 0.0
    for i, channel in enumerate(channels):
        if channel.kind == "category":
            moments[:, :, i] = _categories(arrays.counts[i])
    if not np.isfinite(moments).all():
        raise FormatError("packed sketches hold numbers beyond measure")
    each = [counts.tolist() for counts in arrays.counts]
    numbers = (rows, arrays.missing, *moments)
    return [
        dict(zip(here, map(Sketch, *parts), strict=True))
        for parts in zip(zip(*each, strict=True), *(x.tolist() for x in numbers), strict=True)
    ]


def _categories(counts: Ints) -> Floats:
    """A category's moments (4, n) are those of its indices; 'anything else' counts as the last."""
    at, filled = np.arange(counts.shape[1]), counts != 0
    low, high = filled.argmax(axis=1), len(at) - 1 - filled[:, ::-1].argmax(axis=1)
    some = filled.any(axis=1)
    return np.stack([counts @ at, counts @ at**2, low * some, high * some]).astype(np.float64)


def _sum(one: Arrays, other: Arrays) -> Arrays:
    n, m = one.rows.astype(float), other.rows.astype(float)
    both = np.maximum(n + m, 1)
    mean = (n * one.mean + m * other.mean) / both
    squares = (n * (one.sd**2 + one.mean**2) + m * (other.sd**2 + other.mean**2)) / both
    low = np.where(n == 0, other.low, np.where(m == 0, one.low, np.minimum(one.low, other.low)))
    high = np.where(
        n == 0, other.high, np.where(m == 0, one.high, np.maximum(one.high, other.high))
    )
    return Arrays(
        place=one.place,
        bins=one.bins,
        numeric=one.numeric,
        missing=one.missing + other.missing,
        counts=[a + b for a, b in zip(one.counts, other.counts, strict=True)],
        mean=mean,
        sd=np.sqrt(np.maximum(squares - mean**2, 0)),
        low=low,
        high=high,
    )
