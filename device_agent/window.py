"""One telemetry window: what a model was given and answered, kept until it is summed up.

Rows are only copied into preallocated buffers while they pass; channels and sketches are computed
for all of them at once when the window ends. A window belongs to one model.
"""

import numpy as np
from numpy.typing import NDArray

from edge_sdk.bundle import Manifest
from edge_sdk.channels import LATENCY, Array, answer_channels, input_channels
from edge_sdk.interpreter import Scores
from edge_sdk.messages import Running, Window
from edge_sdk.sketch import Baseline, Floats, Sketch, sketch

RAW_BYTES = 4 * 1024 * 1024  # raw rows held at a time; large images are summed up in portions


class WindowBuffer:
    """Takes the rows of one model; `close` gives the window and begins the next."""

    def __init__(
        self, running: Running, manifest: Manifest, baseline: Baseline, capacity: int
    ) -> None:
        self._running, self._manifest, self._baseline = running, manifest, baseline
        self._channels = {"latency_ms": LATENCY, **baseline.channels}
        self._scores = np.empty((capacity, manifest.answer_width), np.float32)
        self._latency = np.empty(capacity, np.float64)
        self._raw: NDArray[np.generic] | None = None
        self._inputs: list[dict[str, Floats]] = []
        self._begin()

    @property
    def full(self) -> bool:
        """Whether no further row fits: the window must be closed, however young."""
        return self.rows == len(self._latency)

    @property
    def idle(self) -> bool:
        """Whether nothing came yet."""
        return not (self.rows or self.errors or self._skew)

    def answered(self, raw: Array, scores: Scores, latency_ms: float) -> None:
        """One inference."""
        if self._raw is None or self._waiting == len(self._raw) or raw.dtype != self._raw.dtype:
            self._sum_up_inputs()
            self._raw = self._room(raw)
        self._raw[self._waiting] = raw
        self._waiting += 1
        self._scores[self.rows] = scores
        self._latency[self.rows] = latency_ms
        self.rows += 1

    def failed(self) -> None:
        """One inference that raised."""
        self.errors += 1

    def skewed(self, reason: str) -> None:
        """One row that does not fit the input schema."""
        self._skew[reason] = self._skew.get(reason, 0) + 1

    def close(self, seconds: float, dropped: int, rss_bytes: int) -> Window:
        """The window so far."""
        window = Window(
            model=self._running.model,
            version=self._running.version,
            digest=self._running.digest,
            edges_id=self._baseline.edges_id,
            seconds=seconds,
            rows=self.rows,
            errors=self.errors,
            dropped=dropped,
            skew=self._skew,
            channels=self._sketches(),
            rss_bytes=rss_bytes,
        )
        self._begin()
        return window

    def _begin(self) -> None:
        self.rows = self.errors = self._waiting = 0
        self._skew: dict[str, int] = {}
        self._inputs.clear()

    def _room(self, raw: Array) -> NDArray[np.generic]:
        rows = max(1, min(len(self._latency), RAW_BYTES // max(1, raw.nbytes)))
        if self._raw is not None and self._raw.dtype == raw.dtype:
            return self._raw
        return np.empty((rows, *raw.shape), raw.dtype)

    def _sum_up_inputs(self) -> None:
        if self._raw is not None and self._waiting:
            self._inputs.append(input_channels(self._manifest.input, self._raw[: self._waiting]))
        self._waiting = 0

    def _sketches(self) -> dict[str, Sketch]:
        if not self.rows:
            return {}
        self._sum_up_inputs()
        columns = {
            **{name: np.concatenate([c[name] for c in self._inputs]) for name in self._inputs[0]},
            **answer_channels(self._scores[: self.rows], self._manifest.scores),
            "latency_ms": self._latency[: self.rows],
        }
        return {
            name: sketch(self._channels[name], values)
            for name, values in columns.items()
            if name in self._channels
        }
