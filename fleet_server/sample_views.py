"""What the label queue shows of a sample: plain values, and the row as a picture or as numbers."""

import struct
import zlib

import numpy as np
from numpy.typing import NDArray

from edge_sdk.channels import InputSchema
from edge_sdk.formats import from_msgpack
from edge_sdk.messages import Sample
from fleet_server.records import SampleRecord
from fleet_server.store import Store
from fleet_server.views import SampleRow

MOST_NUMBERS = 32


def sample_rows(
    store: Store, model: str, limit: int, behind: SampleRecord | None = None
) -> tuple[SampleRow, ...]:
    """The queue of a model, from the first on or `behind` one."""
    schemas = {b.digest: b.manifest.input for b in store.bundles(model)}
    return tuple(
        _row(record, schemas.get(record.digest))
        for record in store.samples(model, labelled=False, limit=limit, behind=behind)
    )


def row_of(record: SampleRecord) -> NDArray[np.generic] | None:
    """The raw row; None if only the model's answer left the device."""
    sample = from_msgpack(Sample, record.body, "a stored sample")
    if not sample.data:
        return None
    return np.frombuffer(sample.data, sample.dtype).reshape(sample.shape)


def picture(record: SampleRecord, schema: InputSchema) -> bytes | None:
    """The row as a PNG; None if it is no picture."""
    row = row_of(record)
    if row is None or schema.kind != "image" or row.ndim not in (2, 3):
        return None
    span = (schema.high - schema.low) or 1.0
    grey = np.clip((row.astype(np.float64) - schema.low) / span * 255, 0, 255).astype(np.uint8)
    if grey.ndim == 3 and grey.shape[2] == 1:
        grey = grey[:, :, 0]
    if grey.ndim == 3 and grey.shape[2] != 3:
        return None
    return png(grey)


def png(pixels: NDArray[np.uint8]) -> bytes:
    """A PNG (ISO/IEC 15948) of grey (h, w) or colour (h, w, 3) pixels."""
    height, width = pixels.shape[:2]
    colour = 2 if pixels.ndim == 3 else 0
    head = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    lines = b"".join(b"\0" + np.ascontiguousarray(line).tobytes() for line in pixels)
    chunks = (b"IHDR", head), (b"IDAT", zlib.compress(lines)), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def _row(record: SampleRecord, schema: InputSchema | None) -> SampleRow:
    row = row_of(record)
    image = schema is not None and schema.kind == "image"
    numbers: tuple[tuple[str, float], ...] = ()
    if row is not None and schema is not None and not image:
        flat = row.reshape(-1)[:MOST_NUMBERS]
        names = schema.columns or tuple(f"x{i}" for i in range(len(flat)))
        numbers = tuple((n, float(v)) for n, v in zip(names, flat.tolist(), strict=False))
    return SampleRow(
        device=record.device,
        row=record.row,
        model=record.model,
        version=record.version,
        policy=record.policy,
        score=record.score,
        predicted=record.predicted,
        confidence=record.confidence,
        received_at=record.received_at,
        picture=image and row is not None,
        numbers=numbers,
    )
