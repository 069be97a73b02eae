"""The bytes of packed sketches: arrays of counts and moments to a blob, and many blobs back.

Two parts. A head, deflated: how many channels, their places, bins and kinds, rows and missing
values, and how the rest is coded. Then numbers in Rice's code (R. F. Rice, JPL 79-22, 1979), all
quotients in unary first, then all remainders: how far each channel's counts are from even ones
(edges are the reference's quantiles; one count follows from the rows and is left out), the counts
in open bins, and four moments of the numeric channels.

Blobs of one shape are read in one vectorised step: numpy's price for a small array is that for a
hundred of them.
"""

import zlib
from collections.abc import Sequence
from itertools import accumulate, chain

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge_sdk.errors import FormatError
from edge_sdk.sketch import Floats

Ints = NDArray[np.int64]
Shape = tuple[tuple[int, ...], tuple[int, ...], tuple[bool, ...]]
VERSION = 1
MAX_HEAD = 64 * 1024  # bytes
MAX_RICE = 40  # bits
MAX_BINS = 8192
MAX_NUMBERS = 50_000  # read at once, so that memory is bounded
FINE, COARSE = 64.0, 8.0  # steps of a moment near zero, and of an extreme
NOTHING = -20_000  # stands for a deviation of zero, whose logarithm there is not
MOMENTS = 4


class Arrays(msgspec.Struct, frozen=True, kw_only=True):
    """k channels as arrays (k,), moments in units of the reference, counts by channel.

    What `decode` gives holds n blobs: `missing` and the moments are (n, k), each of `counts`
    (n, bins of that channel).
    """

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

    def only(self) -> "Arrays":
        """Of one blob, without the dimension of blobs."""
        return Arrays(
            place=self.place,
            bins=self.bins,
            numeric=self.numeric,
            missing=self.missing[0],
            counts=[counts[0] for counts in self.counts],
            mean=self.mean[0],
            sd=self.sd[0],
            low=self.low[0],
            high=self.high[0],
        )


class _Head(msgspec.Struct, array_like=True, frozen=True):
    version: int
    place: tuple[int, ...]  # differences
    bins: tuple[int, ...]  # differences
    kinds: tuple[bool, ...]  # numeric or not
    rows: list[int]  # differences
    missing: list[int]
    rice: list[int]  # bits of a remainder, by channel
    open_rice: int  # the same of the counts in open bins
    moments: list[tuple[int, int]]  # the same, and the median that was taken away, by moment
    length: int  # bytes of the rest


_HEAD = msgspec.msgpack.Decoder(_Head)


class Blob(msgspec.Struct, frozen=True):
    """A blob whose head is read; those of the same `shape` may be decoded together."""

    head: _Head
    body: bytes

    @property
    def shape(self) -> Shape:
        return self.head.place, self.head.bins, self.head.kinds


def encode(arrays: Arrays) -> bytes:
    """The blob of one window's arrays."""
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
        tuple(np.diff(arrays.place, prepend=0).tolist()),
        tuple(np.diff(arrays.bins, prepend=0).tolist()),
        tuple(arrays.numeric.tolist()),
        np.diff(rows, prepend=0).tolist(),
        arrays.missing.tolist(),
        rice.tolist(),
        rest_rice[0],
        list(zip(rest_rice[1:], medians, strict=True)),
        len(body),
    )
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(msgspec.msgpack.encode(head)) + packer.flush() + body


def opened(blob: bytes) -> Blob:
    """Read a blob's head; raises FormatError."""
    try:
        unpacker = zlib.decompressobj(-15)
        head = _HEAD.decode(unpacker.decompress(blob, MAX_HEAD))
    except (zlib.error, msgspec.MsgspecError) as error:
        raise FormatError(f"packed sketches can't be read: {error}") from error
    body = unpacker.unused_data
    if not unpacker.eof or len(body) != head.length or head.version != VERSION:
        raise FormatError("packed sketches are cut off, or of a version not known here")
    return Blob(head, body)


def at_once(shape: Shape) -> int:
    """How many blobs of this shape may be decoded at once."""
    places, bins, _ = shape
    numbers = sum(accumulate(bins)) + MOMENTS * len(places)
    return max(1, MAX_NUMBERS // max(1, numbers))


def decode(blobs: Sequence[Blob]) -> Arrays:
    """The arrays of n blobs of one shape.

    Raises:
        FormatError: at least one of them is damaged.
    """
    try:
        return _parsed([blob.head for blob in blobs], [blob.body for blob in blobs])
    except (ValueError, OverflowError) as error:
        raise FormatError(f"packed sketches can't be read: {error}") from error


def _parsed(heads: Sequence[_Head], bodies: Sequence[bytes]) -> Arrays:
    sizes, numeric = np.cumsum(heads[0].bins, dtype=np.int64), np.array(heads[0].kinds, bool)
    n, k = len(heads), len(heads[0].place)
    if {len(sizes), len(numeric)} != {k} or not k:
        raise FormatError("packed sketches contradict themselves")
    rice, missing, changes = (
        _table([getattr(h, x) for h in heads], k) for x in ("rice", "missing", "rows")
    )
    rows = changes.cumsum(axis=1)
    moments = _table([[*chain.from_iterable(h.moments)] for h in heads], 2 * MOMENTS)
    rest = np.zeros((n, 1 + MOMENTS, 2), np.int64)
    rest[:, 0, 0] = [h.open_rice for h in heads]
    rest[:, 1:] = moments.reshape(n, MOMENTS, 2)
    coded = np.concatenate([rice, rest[:, :, 0]], axis=1)
    if coded.min() < 0 or coded.max() > MAX_RICE or sizes.min() < 1 or sizes.max() >= MAX_BINS:
        raise FormatError("packed sketches contradict themselves")
    groups = _alike(sizes, numeric)
    widths = [max(0, closed.stop - closed.start - 1) for _, closed in groups]
    inner = [len(alike) * width for (alike, _), width in zip(groups, widths, strict=True)]
    outer = [int(sizes[alike].sum()) - len(alike) * (closed.stop - closed.start)
             for alike, closed in groups]  # fmt: skip
    lengths = [*inner, *outer, *[int(numeric.sum())] * MOMENTS]
    if sum(lengths) > 8 * min(map(len, bodies)):  # each number takes a bit at least
        raise FormatError("packed sketches end too early")
    bits = [np.repeat(rice[:, alike], width, axis=1)
            for (alike, _), width in zip(groups, widths, strict=True)]  # fmt: skip
    bits.append(np.repeat(rest[:, :, 0], [sum(outer), *lengths[-MOMENTS:]], axis=1))
    values = _unrice(bodies, np.concatenate(bits, axis=1))
    parts = np.split(values, np.cumsum(lengths)[:-1], axis=1)
    counts: list[Ints] = [np.empty(0, np.int64)] * k
    for (alike, closed), numbers, others in zip(groups, parts, parts[len(groups) :], strict=False):
        table = _counts(int(sizes[alike[0]]), closed, rows[:, alike], numbers, others)
        for at, i in enumerate(alike):
            counts[i] = table[:, at]
    mean, sd, low, high = (
        _spread(_unzigzag(part) + rest[:, at, 1:], numeric)
        for at, part in enumerate(parts[-MOMENTS:], start=1)
    )
    with np.errstate(over="ignore"):  # infinite extremes are refused by whoever counts them
        return Arrays(
            place=np.cumsum(heads[0].place),
            bins=sizes,
            numeric=numeric,
            missing=missing,
            counts=counts,
            mean=np.sinh(mean / FINE),
            sd=np.where(sd == NOTHING, 0.0, np.exp(sd / FINE)),
            low=np.sinh(low / COARSE),
            high=np.sinh(high / COARSE),
        )


def _table(lines: list[list[int]], width: int) -> Ints:
    if {*map(len, lines)} != {width}:
        raise FormatError("packed sketches contradict themselves")
    numbers = np.fromiter(chain.from_iterable(lines), np.int64, len(lines) * width)
    return numbers.reshape(len(lines), width)


def _counts(size: int, closed: slice, rows: Ints, numbers: Ints, others: Ints) -> Ints:
    """The counts (n, k, size) of k channels that are alike; `rows` is (n, k)."""
    first, last = closed.start, closed.stop
    table = np.zeros((*rows.shape, size), np.int64)
    unlike = np.delete(np.arange(size), closed)
    table[:, :, unlike] = others.reshape(*rows.shape, len(unlike))
    if last > first:
        even = rows // (last - first)
        inner = _unzigzag(numbers).reshape(*rows.shape, last - first - 1)
        table[:, :, first + 1 : last] = inner + even[:, :, None]
        table[:, :, first] = rows - table.sum(axis=2)
    return table


def _unrice(bodies: Sequence[bytes], bits: Ints) -> Ints:
    """From each body as many values as there are `bits` (n, values)."""
    ends = np.cumsum([8 * len(body) for body in bodies])
    starts = np.concatenate([[0], ends[:-1]])
    stream = np.unpackbits(np.frombuffer(b"".join(bodies), np.uint8))
    zeros = np.flatnonzero(stream == 0)
    at = np.searchsorted(zeros, starts)[:, None] + np.arange(bits.shape[1])
    if at.max(initial=-1) >= len(zeros):
        raise FormatError("packed sketches end too early")
    unary = np.concatenate([starts[:, None] - 1, zeros[at]], axis=1)
    quotients = np.diff(unary, axis=1) - 1
    until = unary[:, -1:] + 1 + np.cumsum(bits, axis=1)
    if (until[:, -1:].max(axis=1, initial=0) > ends).any():
        raise FormatError("packed sketches end too early")
    position, remainders = until - bits, np.zeros_like(bits)
    for bit in range(int(bits.max(initial=0))):
        more = bits > bit
        remainders[more] = remainders[more] << 1 | stream[position[more] + bit]
    return (quotients << bits) + remainders


def _moments(arrays: Arrays) -> list[Ints]:
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
    values = np.zeros((len(part), len(numeric)))
    values[:, numeric] = part.clip(NOTHING, -NOTHING)
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
    return (values >> 1) ^ -(values & 1)


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
