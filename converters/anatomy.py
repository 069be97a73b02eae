"""A .tflite file taken apart for people: what it is, and each operator with its size. Pure."""

import msgspec

from converters.facts import TfliteFacts, read_facts
from converters.layers import Layer, read_layers
from edge_sdk.files import sha256

_NAME = 40
_COLUMNS = ("operator", "makes", "shape", "type", "scale", "weights", "bytes")


class Anatomy(msgspec.Struct, frozen=True, kw_only=True):
    """One file; what the constants of its layers do not take is structure and quantisation."""

    format: int = 1
    sha256: str
    bytes: int
    facts: TfliteFacts
    layers: tuple[Layer, ...]


def anatomy(model: bytes) -> Anatomy:
    """Take a model apart.

    Raises:
        NotConvertibleError: it is no .tflite file.
    """
    return Anatomy(
        sha256=sha256(model), bytes=len(model), facts=read_facts(model), layers=read_layers(model)
    )


def lines(found: Anatomy) -> list[str]:
    """In words, operators as an aligned table."""
    constants = sum(layer.constant_bytes for layer in found.layers)
    head = (
        ("digest", found.sha256),
        ("size", f"{found.bytes:,} bytes, of them {constants:,} weights and other constants"),
        ("precision", found.facts.precision),
        ("operators", ", ".join(found.facts.ops)),
        ("shapes", "fixed" if found.facts.static_shapes else "some are open"),
        ("live tensors", f"{found.facts.tensor_bytes:,} bytes at most"),
    )
    rows = [_COLUMNS, *(_row(layer) for layer in found.layers)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(_COLUMNS))]
    table = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    return [*(f"{what:16}{value}" for what, value in head), "", *table]


def _row(layer: Layer) -> tuple[str, ...]:
    return (
        layer.op,
        layer.name.partition(";")[0][-_NAME:],  # fused layers bear the names of all their parts
        str(layer.shape),
        layer.dtype,
        f"{layer.scale:.4g} ({layer.zero_point:+d})" if layer.scale else "",
        f"{layer.weight_dtype} x {layer.weights:,}" if layer.weights else "",
        f"{layer.constant_bytes:,}" if layer.constant_bytes else "",
    )
