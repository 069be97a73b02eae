"""A window's sketches on the wire: counts exact, moments rounded, names left to the baseline.

Who reads them has the model's baseline, so a channel is its place in the baseline's sorted names,
and its mean, deviation and extremes are given in units of the reference's deviation: the mean to
1/128 of it, the deviation to 0.8 %, the extremes to 6 %. `benchmarks/window_bytes.py` measures what
that saves. Packed sketches of one baseline can be added up without it.
"""

import zlib
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge_sdk.channels import LATENCY
from edge_sdk.errors import FormatError, InvalidInputError
from edge_sdk.messages import Window
from edge_sdk.sketch import Baseline, Channel, Floats, Sketch, bins

Ints = NDArray[np.int64]
VERSION = 1
MAX_HEAD = 64 * 1024  # bytes
MAX_RICE = 40  # bits
MAX_BINS = 8192
FINE, COARSE = 64.0, 8.0  # steps of a moment near zero, and of an extreme
NOTHING = -20_000  # stands for a deviation of zero, whose logarithm there is not


def packed(window: Window, baseline: Baseline) -> Window:
    """The same window with its sketches packed; those without a reference stay plain."""
    reference = _reference(baseline)
    known = {name: s for name, s in window.channels.items() if name in reference}
    plain = {name: s for name, s in window.channels.items() if name not in reference}
    if not known:
        return window
    blob = _encode(_gather(known, reference))
    return msgspec.structs.replace(window, channels=plain, packed=blob, edges_id="")


def unpacked(window: Window, baseline: Baseline) -> Window:
    """The same window with its sketches as `channels`.

    Raises:
        FormatError: what is packed does not fit this baseline, or is damaged.
    """
    if not window.packed:
        return window
    try:
        found = _scatter(_decode(window.packed), _reference(baseline))
    except OverflowError as error:
        raise FormatError(f"packed sketches hold numbers beyond measure: {error}") from error
    channels = {**window.channels, **found}
    named = window.edges_id or baseline.edges_id  # the digest names it already
    return msgspec.structs.replace(window, channels=channels, packed=b"", edges_id=named)


def added_up(blobs: Sequence[bytes]) -> bytes:
    """The packed sketches of all rows of several packed windows of one baseline.

    Raises:
        InvalidInputError: they do not hold the same channels.
    """
    one, *others = [_decode(blob) for blob in blobs]
    for other in others:
        if not (np.array_equal(one.place, other.place) and np.array_equal(one.bins, other.bins)):
            raise InvalidInputError("packed windows of different channels can't be added up")
        one = _sum(one, other)
    return _encode(one)


class _Arrays(msgspec.Struct, frozen=True, kw_only=True):
    """k channels as arrays (k,), moments in units of the reference, counts by channel."""

    place: Ints
    bins: Ints
    numeric: NDArray[np.bool_]
    missing: Ints
    counts: list[Ints]
    mean: Floats
    sd: Floats
    low: Floats
    high: Floats

    @property
    def rows(self) -> Ints:
        return np.array([int(counts.sum()) for counts in self.counts], np.int64)


def _reference(baseline: Baseline) -> dict[str, Channel]:
    return {"latency_ms": LATENCY, **baseline.channels}


def _scale(channel: Channel) -> float:
    return channel.sd or 1e-3 * (abs(channel.mean) or 1.0)


def _gather(sketches: Mapping[str, Sketch], reference: Mapping[str, Channel]) -> _Arrays:
    names = sorted(reference)
    here = [name for name in names if name in sketches]
    found = [sketches[name] for name in here]
    middle = np.array([reference[name].mean for name in here])
    scale = np.array([_scale(reference[name]) for name in here])
    rows = np.array([max(s.rows, 1) for s in found], np.float64)
    mean = np.array([s.total for s in found]) / rows
    squares = np.array([s.squares for s in found]) / rows
    return _Arrays(
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


def _scatter(arrays: _Arrays, reference: Mapping[str, Channel]) -> dict[str, Sketch]:
    names = sorted(reference)
    found: dict[str, Sketch] = {}
    for i, place in enumerate(arrays.place.tolist()):
        channel = reference[names[place]] if place < len(names) else None
        if channel is None or bins(channel) != arrays.bins[i]:
            raise FormatError("packed sketches do not fit the baseline they are said to use")
        counts = arrays.counts[i]
        missing = int(arrays.missing[i])
        if channel.kind == "category":
            found[names[place]] = _categories(counts, missing)
            continue
        rows, scale = int(counts.sum()), _scale(channel)
        if not rows:
            found[names[place]] = Sketch(counts.tolist(), missing=missing)
            continue
        mean = float(arrays.mean[i]) * scale + channel.mean
        sd = float(arrays.sd[i]) * scale
        found[names[place]] = Sketch(
            counts.tolist(),
            rows,
            missing,
            rows * mean,
            rows * (sd**2 + mean**2),
            float(arrays.low[i]) * scale + channel.mean,
            float(arrays.high[i]) * scale + channel.mean,
        )
    return found


def _categories(counts: Ints, missing: int) -> Sketch:
    """A category's moments are those of its indices; 'anything else' counts as the last."""
    at = np.arange(len(counts))
    filled = np.flatnonzero(counts)
    rows = int(counts.sum())
    return Sketch(
        counts.tolist(),
        rows,
        missing,
        float((at * counts).sum()),
        float((at**2 * counts).sum()),
        float(filled[0]) if rows else 0.0,
        float(filled[-1]) if rows else 0.0,
    )


def _sum(one: _Arrays, other: _Arrays) -> _Arrays:
    n, m = one.rows.astype(float), other.rows.astype(float)
    both = np.maximum(n + m, 1)
    mean = (n * one.mean + m * other.mean) / both
    squares = (n * (one.sd**2 + one.mean**2) + m * (other.sd**2 + other.mean**2)) / both
    low = np.where(n == 0, other.low, np.where(m == 0, one.low, np.minimum(one.low, other.low)))
    high = np.where(
        n == 0, other.high, np.where(m == 0, one.high, np.maximum(one.high, other.high))
    )
    return _Arrays(
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


# --- bytes --------------------------------------------------------------------------------------
# Two parts. A head, deflated: how many channels, their places, bins and kinds, rows and missing
# values, and how the rest is coded. Then numbers in Rice's code (R. F. Rice, JPL 79-22, 1979), all
# quotients in unary first, then all remainders: how far each channel's counts are from even ones
# (edges are the reference's quantiles; one count follows from the rows and is left out), the counts
# in open bins, and four moments of the numeric channels.

MOMENTS = 4


class _Head(msgspec.Struct, array_like=True, frozen=True):
    version: int
    place: list[int]  # differences
    bins: list[int]  # differences
    kinds: list[bool]  # numeric or not
    rows: list[int]  # differences
    missing: list[int]
    rice: list[int]  # bits of a remainder, by channel
    open_rice: int  # the same of the counts in open bins
    moments: list[tuple[int, int]]  # the same, and the median that was taken away, by moment
    length: int  # bytes of the rest


def _encode(arrays: _Arrays) -> bytes:
    rows, columns = arrays.rows, _moments(arrays)
    rice = np.zeros(len(rows), np.int64)
    inner, bits, outer = [], [], []
    for alike, closed in _alike(arrays.bins, arrays.numeric):
        table = np.stack([arrays.counts[i] for i in alike])
        even = rows[alike] // max(1, closed.stop - closed.start)
        numbers = _zigzag(table[:, closed][:, 1:] - even[:, None])
        rice[alike] = _best(numbers)
        inner.append(numbers.ravel())
        bits.append(np.repeat(rice[alike], numbers.shape[1]))
        outer.append(np.delete(table, closed, axis=1).ravel())
    medians = [int(np.median(column)) if len(column) else 0 for column in columns]
    rest = [np.concatenate(outer)]
    rest += [_zigzag(column - median) for column, median in zip(columns, medians, strict=True)]
    rest_rice = [int(_best(numbers[None])[0]) for numbers in rest]
    bits.append(np.repeat(rest_rice, [len(numbers) for numbers in rest]))
    body = _rice(np.concatenate([*inner, *rest]), np.concatenate(bits))
    head = _Head(
        VERSION,
        np.diff(arrays.place, prepend=0).tolist(),
        np.diff(arrays.bins, prepend=0).tolist(),
        arrays.numeric.tolist(),
        np.diff(rows, prepend=0).tolist(),
        arrays.missing.tolist(),
        rice.tolist(),
        rest_rice[0],
        list(zip(rest_rice[1:], medians, strict=True)),
        len(body),
    )
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(msgspec.msgpack.encode(head)) + packer.flush() + body


def _decode(blob: bytes) -> _Arrays:
    try:
        unpacker = zlib.decompressobj(-15)
        plain = unpacker.decompress(blob, MAX_HEAD)
        head = msgspec.msgpack.decode(plain, type=_Head)
        if not unpacker.eof or len(unpacker.unused_data) != head.length or head.version != VERSION:
            raise FormatError("packed sketches are cut off, or of a version not known here")
        return _parse(head, unpacker.unused_data)
    except (zlib.error, msgspec.MsgspecError, ValueError, OverflowError) as error:
        raise FormatError(f"packed sketches can't be read: {error}") from error


def _parse(head: _Head, body: bytes) -> _Arrays:
    k, sizes = len(head.place), np.cumsum(head.bins, dtype=np.int64)
    lists = {k, len(head.bins), len(head.kinds), len(head.rows), len(head.missing), len(head.rice)}
    rest_rice = [head.open_rice, *(bits for bits, _ in head.moments)]
    sane = lists == {k} and k and all(0 <= r <= MAX_RICE for r in (*head.rice, *rest_rice))
    if not sane or len(head.moments) != MOMENTS or not 0 < sizes.min() <= sizes.max() < MAX_BINS:
        raise FormatError("packed sketches contradict themselves")
    numeric, rows = np.array(head.kinds, bool), np.cumsum(head.rows, dtype=np.int64)
    groups = _alike(sizes, numeric)
    inner = [(len(alike), max(0, closed.stop - closed.start - 1)) for alike, closed in groups]
    outer = [int(sizes[alike].sum()) - len(alike) * (closed.stop - closed.start)
             for alike, closed in groups]  # fmt: skip
    lengths = [*(a * b for a, b in inner), *outer, *[int(numeric.sum())] * MOMENTS]
    if sum(lengths) > 8 * len(body):  # each number takes a bit at least
        raise FormatError("packed sketches end too early")
    bits = [np.repeat(np.array(head.rice)[alike], width) for (alike, _), (_, width) in
            zip(groups, inner, strict=True)]  # fmt: skip
    bits.append(np.repeat(rest_rice, [sum(outer), *lengths[-MOMENTS:]]))
    parts = np.split(_unrice(body, np.concatenate(bits)), np.cumsum(lengths)[:-1])
    counts: list[Ints] = [np.empty(0, np.int64)] * k
    for (alike, closed), numbers, others in zip(groups, parts, parts[len(groups) :], strict=False):
        table = _counts(int(sizes[alike[0]]), closed, rows[alike], numbers, others)
        for i, found in zip(alike, table, strict=True):
            counts[i] = found
    mean, sd, low, high = (
        _spread(_unzigzag(part) + median, numeric)
        for part, (_, median) in zip(parts[-MOMENTS:], head.moments, strict=True)
    )
    with np.errstate(over="ignore"):  # infinite extremes are refused by whoever counts them
        return _Arrays(
            place=np.cumsum(head.place),
            bins=sizes,
            numeric=numeric,
            missing=np.array(head.missing, np.int64),
            counts=counts,
            mean=np.sinh(mean / FINE),
            sd=np.where(sd == NOTHING, 0.0, np.exp(sd / FINE)),
            low=np.sinh(low / COARSE),
            high=np.sinh(high / COARSE),
        )


def _counts(size: int, closed: slice, rows: Ints, numbers: Ints, others: Ints) -> Ints:
    """The counts (k, size) of channels that are alike."""
    first, last = closed.start, closed.stop
    table = np.zeros((len(rows), size), np.int64)
    unlike = np.delete(np.arange(size), closed)
    table[:, unlike] = others.reshape(len(rows), len(unlike))
    if last > first:
        even = rows // (last - first)
        table[:, first + 1 : last] = _unzigzag(numbers).reshape(len(rows), -1) + even[:, None]
        table[:, first] = rows - table.sum(axis=1)
    return table


def _moments(arrays: _Arrays) -> list[Ints]:
    of = arrays.numeric
    with np.errstate(divide="ignore"):
        logs = np.where(arrays.sd > 0, np.round(np.log(arrays.sd) * FINE), NOTHING)
    columns = (
        _rounded(arrays.mean, FINE),
        logs.clip(NOTHING, -NOTHING).astype(np.int64),
        _rounded(arrays.low, COARSE),
        _rounded(arrays.high, COARSE),
    )
    return [column[of] for column in columns]


def _spread(part: Ints, numeric: NDArray[np.bool_]) -> Floats:
    values = np.zeros(len(numeric))
    values[numeric] = part.clip(NOTHING, -NOTHING)
    return values


def _rounded(values: Floats, steps: float) -> Ints:
    """Fine near zero, relative far from it."""
    found = np.round(np.arcsinh(values) * steps).clip(NOTHING, -NOTHING)
    return found.astype(np.int64)


def _alike(sizes: Ints, numeric: NDArray[np.bool_]) -> list[tuple[list[int], slice]]:
    """Channels of one kind and as many bins, and those of their bins that are not open."""
    found = []
    for size, of in sorted(set(zip(sizes.tolist(), numeric.tolist(), strict=True))):
        alike = np.flatnonzero((sizes == size) & (numeric == of)).tolist()
        first = min(int(of), size - 1)
        found.append((alike, slice(first, max(size - 1, first))))
    return found


def _zigzag(values: Ints) -> Ints:
    return np.where(values < 0, -2 * values - 1, 2 * values)


def _unzigzag(values: Ints) -> Ints:
    return np.where(values & 1, -(values + 1) // 2, values // 2)


def _best(numbers: Ints) -> Ints:
    """Bits of the remainder with which each line of numbers (k, n) takes the least room."""
    bits = np.arange(MAX_RICE + 1)
    quotients = (numbers[:, :, None] >> bits).sum(axis=1)
    found: Ints = (quotients + numbers.shape[1] * bits).argmin(axis=1)
    return found


def _rice(values: Ints, bits: Ints) -> bytes:
    quotients = values >> bits
    unary = np.ones(int(quotients.sum()) + len(values), np.uint8)
    unary[np.cumsum(quotients + 1) - 1] = 0
    down = np.repeat(np.cumsum(bits), bits) - 1 - np.arange(int(bits.sum()))
    remainders = (np.repeat(values, bits) >> down) & 1
    return np.packbits(np.concatenate([unary, remainders.astype(np.uint8)])).tobytes()


def _unrice(body: bytes, bits: Ints) -> Ints:
    """As many values as there are `bits`."""
    stream = np.unpackbits(np.frombuffer(body, np.uint8))
    ends = np.flatnonzero(stream == 0)[: len(bits)]
    begin = int(ends[-1]) + 1 if len(ends) else 0
    total = int(bits.sum())
    if len(ends) < len(bits) or len(stream) - begin < total:
        raise FormatError("packed sketches end too early")
    quotients = np.diff(ends, prepend=-1) - 1
    down = np.repeat(np.cumsum(bits), bits) - 1 - np.arange(total)
    parts = stream[begin : begin + total].astype(np.int64) << down
    of = np.repeat(np.arange(len(bits)), bits)
    remainders = np.zeros(len(bits), np.int64)
    np.add.at(remainders, of, parts)
    return (quotients << bits) + remainders
