"""The difference between two bundles of one architecture, so that only what changed travels.

Weights are subtracted element by element, which leaves small numbers where a byte delta finds
nothing in common; everything else is copied or compressed beside its old version. Bytes in, bytes
out. A delta is not trusted: what `apply` gives must have the digest that was ordered.
"""

import lzma
import zlib
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge_sdk.bundle import MAX_BUNDLE, MODEL, archive, contents
from edge_sdk.errors import CorruptBundleError, FormatError
from edge_sdk.flatbuffer import Region, weights
from edge_sdk.formats import from_msgpack, to_msgpack

Coding = Literal["plain", "lzma", "lzma-lc4", "beside"]
_LC: dict[Coding, int] = {"lzma": 0, "lzma-lc4": 4}
_WINDOW = 32 * 1024  # of zlib's dictionary
Bytes = NDArray[np.uint8]


class _Packed(msgspec.Struct, frozen=True):
    """Compressed bytes and how long they become."""

    coding: Coding
    length: int
    data: bytes


class _Planes(msgspec.Struct, frozen=True):
    """All differences of elements of one size: their first bytes, then their second, ..."""

    size: int
    planes: tuple[_Packed, ...]


class _Part(msgspec.Struct, frozen=True):
    """One file of the new bundle: `rest` alone, or around the differences of a model's weights.

    `starts` is where the weights lie in the new model.
    """

    name: str
    rest: _Packed | None = None  # None: as in the old bundle
    planes: tuple[_Planes, ...] = ()
    starts: tuple[int, ...] = ()


class _Delta(msgspec.Struct, frozen=True):
    old: str
    new: str
    parts: tuple[_Part, ...]
    format: int = 1


def make(old: bytes, new: bytes, digests: tuple[str, str]) -> bytes:
    """What turns bundle `old` into bundle `new`; `digests` are theirs, in this order.

    Raises:
        CorruptBundleError: one of them is not a bundle.
    """
    before, after = contents(old), contents(new)
    parts = tuple(_part(name, before.get(name, b""), data) for name, data in after.items())
    return to_msgpack(_Delta(*digests, parts))


def apply(old: bytes, delta: bytes, digests: tuple[str, str]) -> bytes:
    """The new bundle; whether it is the right one is for the caller to check.

    Raises:
        FormatError, CorruptBundleError: not a delta between these two, or a damaged one.
    """
    found = from_msgpack(_Delta, delta, "a delta")
    if (found.old, found.new) != digests:
        raise FormatError("a delta is between other bundles than asked for")
    if sum(_length(part) for part in found.parts) > MAX_BUNDLE:
        raise FormatError("a delta grows beyond the largest bundle")
    before = contents(old)
    try:
        return archive({part.name: _restored(part, before) for part in found.parts})
    except (lzma.LZMAError, zlib.error, ValueError, TypeError, LookupError) as error:
        raise CorruptBundleError(f"a delta does not fit its bundle: {error}") from error


def _part(name: str, old: bytes, new: bytes) -> _Part:
    if old == new:
        return _Part(name)
    if name != MODEL:
        return _Part(name, _pack(new, old))
    pairs = _pairs(old, new)
    rest = _pack(_without(new, [b for _, b in pairs]), _without(old, [a for a, _ in pairs]))
    planes = []
    for size in sorted({region.size for _, region in pairs}):
        chosen = [(a, b) for a, b in pairs if b.size == size]
        difference = _subtract(_joined(new, [b for _, b in chosen]),
                               _joined(old, [a for a, _ in chosen]), size)  # fmt: skip
        packed = tuple(_pack(plane.tobytes(), b"") for plane in difference)
        planes.append(_Planes(size, packed))
    return _Part(name, rest, tuple(planes), tuple(region.start for _, region in pairs))


def _restored(part: _Part, before: dict[str, bytes]) -> bytes:
    old = before.get(part.name, b"")
    if part.rest is None:
        return before[part.name]
    if not part.planes:
        return _unpack(part.rest, old)
    # Which regions were taken out is known on both sides: all that the old model has, by size.
    regions = weights(old)
    rest = _unpack(part.rest, _without(old, regions))
    values = {}
    for found in part.planes:
        size = found.size
        stacked = np.stack([_array(_unpack(plane, b"")) for plane in found.planes])
        if len(stacked) != size:
            raise FormatError("a delta lacks a plane")
        values[size] = _add(stacked, _joined(old, [r for r in regions if r.size == size]), size)
    moved = [
        Region(start, region.length, region.size)
        for start, region in zip(part.starts, regions, strict=True)
    ]
    return _woven(rest, moved, values)


def _pairs(old: bytes, new: bytes) -> list[tuple[Region, Region]]:
    """The weights of both, if the two models are laid out alike; none otherwise."""
    before, after = weights(old), weights(new)
    shapes = ([(r.length, r.size) for r in regions] for regions in (before, after))
    return list(zip(before, after, strict=True)) if next(shapes) == next(shapes) else []


def _without(model: bytes, regions: list[Region]) -> bytes:
    at, kept = 0, []
    for region in regions:
        kept.append(model[at : region.start])
        at = region.end
    return b"".join([*kept, model[at:]])


def _woven(rest: bytes, regions: list[Region], values: dict[int, bytes]) -> bytes:
    at, used, out, whole = 0, dict.fromkeys(values, 0), [], 0
    for region in regions:
        gap = region.start - whole
        begin = used[region.size]
        out += [rest[at : at + gap], values[region.size][begin : begin + region.length]]
        at, whole = at + gap, region.end
        used[region.size] = begin + region.length
    return b"".join([*out, rest[at:]])


def _joined(model: bytes, regions: list[Region]) -> Bytes:
    return _array(b"".join(model[region.start : region.end] for region in regions))


def _subtract(new: Bytes, old: Bytes, size: int) -> Bytes:
    """Planes (size, n) of the differences, near zero for both signs of them."""
    kind = np.dtype(f"<i{size}")
    with np.errstate(over="ignore"):
        difference = new.view(kind) - old.view(kind)
    folded = (difference << 1) ^ (difference >> (8 * size - 1))
    planes: Bytes = folded.view(np.uint8).reshape(-1, size).T
    return planes


def _add(planes: Bytes, old: Bytes, size: int) -> bytes:
    unsigned, signed = np.dtype(f"<u{size}"), np.dtype(f"<i{size}")
    folded = np.ascontiguousarray(planes.T).reshape(-1).view(unsigned)
    one = unsigned.type(1)
    with np.errstate(over="ignore"):
        difference = (folded >> one) ^ (unsigned.type(0) - (folded & one))
        return bytes((old.view(signed) + difference.view(signed)).tobytes())


def _array(data: bytes) -> Bytes:
    return np.frombuffer(data, np.uint8)


def _length(part: _Part) -> int:
    planes = (plane.length for found in part.planes for plane in found.planes)
    return sum(planes) + (part.rest.length if part.rest else 0)


def _pack(data: bytes, old: bytes) -> _Packed:
    """The shortest coding."""
    beside = zlib.compressobj(9, zdict=old[-_WINDOW:]) if old else zlib.compressobj(9)
    tries: dict[Coding, bytes] = {"plain": data, "beside": beside.compress(data) + beside.flush()}
    for coding, lc in _LC.items():
        tries[coding] = lzma.compress(data, lzma.FORMAT_RAW, filters=_filters(lc))
    coding = min(tries, key=lambda one: len(tries[one]))
    return _Packed(coding, len(data), tries[coding])


def _unpack(packed: _Packed, old: bytes) -> bytes:
    """At most the announced length, whatever the data would become."""
    match packed.coding:
        case "plain":
            data = packed.data
        case "beside":
            beside = zlib.decompressobj(zdict=old[-_WINDOW:]) if old else zlib.decompressobj()
            data = beside.decompress(packed.data, packed.length + 1)
        case _:
            filters = _filters(_LC[packed.coding])
            decoder = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=filters)
            data = decoder.decompress(packed.data, packed.length + 1)
    if len(data) != packed.length:
        raise FormatError(f"a part of a delta is not {packed.length:,} bytes long")
    return data


def _filters(lc: int) -> list[dict[str, int]]:
    return [{"id": lzma.FILTER_LZMA2, "preset": 9, "dict_size": 1 << 20, "lc": lc, "pb": 0}]
