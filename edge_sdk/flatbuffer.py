"""Where the weights lie in a .tflite file: just enough of FlatBuffers to find them.

Field numbers are those of LiteRT's schema, which only ever appends to a table.
"""

import struct
from itertools import pairwise

import msgspec

_SUBGRAPHS, _BUFFERS = 2, 4  # of Model
_TENSORS = 0  # of SubGraph
_TYPE, _BUFFER = 1, 2  # of Tensor
_DATA = 0  # of Buffer
_SIZES = {0: 4, 1: 2, 2: 4, 3: 1, 4: 8, 7: 2, 9: 1, 10: 8, 12: 8, 15: 4, 16: 2}  # by TensorType
SHORTEST = 64  # bytes; what is shorter is not worth a difference


class Region(msgspec.Struct, frozen=True):
    """The bytes of one tensor's constant values; `size` of an element."""

    start: int
    length: int
    size: int

    @property
    def end(self) -> int:
        return self.start + self.length


def weights(model: bytes) -> list[Region]:
    """The regions in the order they lie in; none for bytes that are no model.

    >>> weights(b"not a model")
    []
    """
    try:
        found = _regions(model)
    except (struct.error, IndexError):
        return []
    found.sort(key=lambda region: region.start)
    apart = all(a.end <= b.start for a, b in pairwise(found))
    return found if apart and (not found or found[-1].end <= len(model)) else []


def _regions(model: bytes) -> list[Region]:
    if model[4:8] != b"TFL3":
        return []
    root = _follow(model, 0)
    sizes = {}
    for graph in _tables(model, _field(model, root, _SUBGRAPHS)):
        for tensor in _tables(model, _field(model, graph, _TENSORS)):
            kind, buffer = _field(model, tensor, _TYPE), _field(model, tensor, _BUFFER)
            code = model[kind] if kind else 0
            if buffer:
                sizes[_number(model, buffer)] = _SIZES.get(code, 1)
    found = []
    for index, table in enumerate(_tables(model, _field(model, root, _BUFFERS))):
        at = _field(model, table, _DATA)
        if not at or index not in sizes:
            continue
        start = _follow(model, at)
        length, size = _number(model, start), sizes[index]
        if length >= SHORTEST and length % size == 0:
            found.append(Region(start + 4, length, size))
    return found


def _number(data: bytes, at: int) -> int:
    return int(struct.unpack_from("<I", data, at)[0])


def _follow(data: bytes, at: int) -> int:
    return at + _number(data, at)


def _field(data: bytes, table: int, number: int) -> int:
    """Where a field of a table is; 0 if it is absent."""
    vtable = table - int(struct.unpack_from("<i", data, table)[0])
    if 4 + 2 * number >= int(struct.unpack_from("<H", data, vtable)[0]):
        return 0
    offset = int(struct.unpack_from("<H", data, vtable + 4 + 2 * number)[0])
    return table + offset if offset else 0


def _tables(data: bytes, at: int) -> list[int]:
    """The tables of a vector field."""
    if not at:
        return []
    vector = _follow(data, at)
    count = _number(data, vector)
    if count > len(data) // 4:
        raise IndexError("a vector is longer than the file")
    return [_follow(data, vector + 4 + 4 * index) for index in range(count)]
