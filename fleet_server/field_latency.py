"""How long a device's answers really take, from the latency sketches of its windows. Pure."""

from collections.abc import Sequence

import msgspec
import numpy as np

from edge_sdk.channels import LATENCY
from edge_sdk.messages import Window
from edge_sdk.sketch import Sketch, merge

CHANNEL = "latency_ms"


class FieldLatency(msgspec.Struct, frozen=True, kw_only=True):
    """One model on one device, preprocessing included; quantiles to a quarter of an octave.

    Attributes:
        windows, rows: how many these are from, the newest.
        ms_p50, ms_p90: within a bin evenly on a logarithmic scale.
        ms_mean: exact.
    """

    device: str
    model: str
    version: str
    digest: str
    windows: int
    rows: int
    ms_p50: float
    ms_p90: float
    ms_mean: float


def field_latency(device: str, windows: Sequence[Window]) -> tuple[FieldLatency, ...]:
    """Each model's latency on a device, in the order of `windows` (the newest first)."""
    by_model: dict[str, list[Window]] = {}
    for window in windows:
        found = window.channels.get(CHANNEL)
        if found is not None and found.rows:
            by_model.setdefault(window.digest, []).append(window)
    return tuple(_one(device, mine) for mine in by_model.values())


def _one(device: str, windows: Sequence[Window]) -> FieldLatency:
    whole = windows[0].channels[CHANNEL]
    for window in windows[1:]:
        whole = merge(whole, window.channels[CHANNEL])
    newest = windows[0]
    return FieldLatency(
        device=device,
        model=newest.model,
        version=newest.version,
        digest=newest.digest,
        windows=len(windows),
        rows=whole.rows,
        ms_p50=quantile(whole, 0.5),
        ms_p90=quantile(whole, 0.9),
        ms_mean=whole.mean,
    )


def quantile(found: Sketch, share: float) -> float:
    """Milliseconds that a share of the rows of a latency sketch stay below.

    >>> quantile(Sketch([0, 100] + [0] * 80, rows=100, low=0.008, high=0.009), 0.5)
    0.0085
    """
    below = np.cumsum(found.counts)
    wanted = share * found.rows
    at = int(np.searchsorted(below, wanted))
    edges = (LATENCY.edges[0] / 2, *LATENCY.edges, LATENCY.edges[-1] * 2)
    low, high = edges[at], edges[at + 1]
    if low < found.low < high:  # extremes are rounded on the way, by more than a bin where all are
        low = found.low  # far below the reference's mean
    if low <= found.high < high:
        high = found.high
    part = (wanted - (below[at] - found.counts[at])) / found.counts[at]
    return float(round(low * (high / low) ** part, 4))
