"""Rows that devices send to be labelled: whether one can be what it claims. Pure."""

from collections.abc import Sequence

import msgspec
import numpy as np

from edge_sdk.errors import InvalidInputError
from edge_sdk.messages import Sample
from fleet_server.drift_views import ChannelRow
from fleet_server.records import BundleRecord, SampleRecord

MAX_DATA = 512 * 1024
KEPT_SECONDS = 30 * 86400.0
REGION_DISTANCE = 0.1  # Jensen-Shannon, from which an input moved
FARTHEST = 1e300  # an outer bin has no end
DTYPES = {"uint8": 1, "int8": 1, "uint16": 2, "int16": 2, "int32": 4, "float32": 4, "float64": 8}


def why_not_sample(sample: Sample, bundle: BundleRecord | None, asked: int) -> str | None:
    """Why a sample can't be kept, given the number of the device's last command; None if it can."""
    if not 1 <= sample.command <= asked:
        return "nobody asked for this sample"
    if bundle is None or (sample.model, sample.version) != (bundle.model, bundle.version):
        return f"no bundle {sample.digest[:12]!r} of this model is published here"
    if len(sample.probabilities) != len(bundle.manifest.labels):
        return f"it has {len(sample.probabilities)} probabilities"
    if not all(0 <= p <= 1 for p in (*sample.probabilities, sample.share)):
        return "a probability is not within 0..1"
    if not 0 < len(sample.id) <= 128 or len(sample.subject) > 128:
        return "its name is empty or too long"
    return _why_not_data(sample)


def region_of(channels: Sequence[ChannelRow]) -> dict[str, tuple[float, float]]:
    """Where rows lie now that did not before: of the input that moved most, its fuller bins.

    Raises:
        InvalidInputError: no input moved.
    """
    inputs = [c for c in channels if c.name.startswith("input.") and c.edges]
    most = max(inputs, key=lambda c: c.jensen_shannon, default=None)
    if most is None or most.jensen_shannon < REGION_DISTANCE:
        raise InvalidInputError("no input moved in this time: ask for rows without --moved")
    gained = np.array(most.now) - np.array(most.before)
    best = int(gained.argmax())
    first = last = best
    while first > 0 and gained[first - 1] > 0:
        first -= 1
    while last < len(gained) - 1 and gained[last + 1] > 0:
        last += 1
    ends = (-FARTHEST, *most.edges, FARTHEST)
    return {most.name: (ends[first], ends[last + 1])}


def _why_not_data(sample: Sample) -> str | None:
    if len(sample.data) > MAX_DATA:
        return f"its row has {len(sample.data):,} bytes, {MAX_DATA:,} are the most"
    if not sample.data:
        return None
    size = DTYPES.get(sample.dtype)
    if size is None or len(sample.shape) > 4:
        return f"its row is {sample.dtype[:20]!r} in {len(sample.shape)} dimensions"
    rows = size
    for length in sample.shape:
        if length < 0:
            return "its row has a negative length"
        rows *= length
    return None if rows == len(sample.data) else "its row has another length than its shape"


def record_of(sample: Sample, device: str, labels: Sequence[str], now: float) -> SampleRecord:
    """The sample as it is stored."""
    best = max(range(len(labels)), key=lambda i: sample.probabilities[i])
    return SampleRecord(
        device=device,
        row=sample.id,
        subject=sample.subject,
        model=sample.model,
        version=sample.version,
        digest=sample.digest,
        policy=sample.policy,
        score=sample.score,
        predicted=labels[best],
        confidence=sample.probabilities[best],
        body=msgspec.msgpack.encode(sample),
        received_at=now,
    )
