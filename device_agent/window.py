"""One telemetry window: what a model was given and answered, kept until it is summed up.

Rows are only kept while they pass. `close` hands out what came together, and another thread makes
channels and sketches of it, all rows at once. A window belongs to one model.
"""

import msgspec
import numpy as np

from device_agent.runtime import Model
from device_agent.shadow import Compared
from edge_sdk.channels import LATENCY, Array, answer_channels, watched_inputs
from edge_sdk.interpreter import flat_embeddings
from edge_sdk.messages import Window
from edge_sdk.sketch import Floats, sketch_all
from edge_sdk.subspace import NOVELTY, novelty

RAW_BYTES = 4 * 1024 * 1024  # raw rows held at a time; large images are summed up in portions
CACHE_BYTES = 128 * 1024  # and so much at once, as what is computed of them fits a core's cache
PORTION = 4096  # answers held at a time
# Inputs of a window that are looked at, evenly spread; all answers are. More would cost a fast
# model its speed and tell nothing: the shares of 2,048 rows are known to one point.
INPUTS = 2048
Columns = dict[str, Floats]


class Gathered:
    """Rows and answers of one window; the arrays it is given are its own from then on."""

    def __init__(self, model: Model, stride: int) -> None:
        self._model, self._stride = model, stride
        self._columns: list[Columns] = []
        self._raw: list[Array] = []
        self._inside: list[Array] = []
        self._stored: list[Array] = []
        self._latency: list[Floats] = []
        self._raw_bytes = self._waiting = self._looked_at = self.rows = 0

    def add(
        self, rows: Array, stored: Array, latency_ms: Floats, inside: Array | None = None
    ) -> None:
        """As `WindowBuffer.answered`."""
        self._stored.append(stored)
        self._latency.append(latency_ms)
        self._waiting += len(rows)
        chosen = rows
        if self._stride > 1:
            some = slice((-self.rows) % self._stride, None, self._stride)
            chosen = rows[some].copy()
            inside = None if inside is None else inside[some].copy()
        self.rows += len(rows)
        if inside is not None:
            self._inside.append(inside)
        if len(chosen):
            self._raw.append(chosen)
            self._raw_bytes += chosen.nbytes + (0 if inside is None else inside.nbytes)
            self._looked_at += len(chosen)
        if self._looked_at >= INPUTS:  # only in a first, or a much busier, window
            self._stride, self._looked_at = 4 * self._stride, 0
        if self._raw_bytes >= RAW_BYTES:
            self._sum_up_inputs()
        if self._waiting >= PORTION:
            self._sum_up_outputs()

    def channels(self) -> Columns:
        """Every channel's values, (n,) each; n differs between inputs and outputs."""
        self._sum_up_inputs()
        self._sum_up_outputs()
        found: dict[str, list[Floats]] = {}
        for portion in self._columns:
            for name, values in portion.items():
                found.setdefault(name, []).append(values)
        return {n: v[0] if len(v) == 1 else np.concatenate(v) for n, v in found.items()}

    def _sum_up_inputs(self) -> None:
        schema, subspace = self._model.manifest.input, self._model.baseline.subspace
        part, size = [], 0
        for number, rows in enumerate(self._raw, 1):
            part.append(rows)
            size += rows.nbytes
            if size >= CACHE_BYTES or number == len(self._raw):
                self._columns.append(watched_inputs(schema, np.concatenate(part), subspace))
                part, size = [], 0
        if self._inside:
            self._columns.append(self._embedded(np.concatenate(self._inside)))
            self._inside.clear()
        self._raw.clear()
        self._raw_bytes = 0

    def _embedded(self, stored: Array) -> Columns:
        subspace, spec = self._model.baseline.subspace, self._model.manifest.embedding
        if subspace is None or subspace.columns or spec is None:
            return {}
        return {NOVELTY: novelty(subspace, flat_embeddings(stored, spec))}

    def _sum_up_outputs(self) -> None:
        if self._stored:
            scores = self._model.interpreter.scores(np.concatenate(self._stored))
            answers = answer_channels(scores, self._model.manifest.scores)
            latency = {"latency_ms": np.concatenate(self._latency)}
            self._columns.append({**answers, **latency})
            self._stored.clear()
            self._latency.clear()
        self._waiting = 0


class Filled(msgspec.Struct, frozen=True, kw_only=True):
    """A window that has ended: its numbers now, its sketches when `window` is called."""

    model: Model
    seconds: float
    errors: int
    dropped: int
    skew: dict[str, int]
    rss_bytes: int
    gathered: Gathered
    compared: Compared | None

    @property
    def rows(self) -> int:
        return self.gathered.rows

    def window(self) -> Window:
        """The message; takes some milliseconds."""
        running, baseline = self.model.running, self.model.baseline
        channels = {"latency_ms": LATENCY, **baseline.channels}
        return Window(
            model=running.model,
            version=running.version,
            digest=running.digest,
            edges_id=baseline.edges_id,
            seconds=self.seconds,
            rows=self.rows,
            errors=self.errors,
            dropped=self.dropped,
            skew=self.skew,
            channels=sketch_all(channels, self.gathered.channels()),
            rss_bytes=self.rss_bytes,
            comparison=self.compared.comparison() if self.compared else None,
        )


class WindowBuffer:
    """Takes the rows of one model; `close` gives the window and begins the next."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._begin(stride=1)

    @property
    def idle(self) -> bool:
        """Whether nothing came yet."""
        return not (self._gathered.rows or self._errors or self._skew)

    def answered(
        self, rows: Array, stored: Array, latency_ms: Floats, inside: Array | None = None
    ) -> None:
        """Inferences: raw rows (n, *shape), stored answers (n, classes), milliseconds (n,).

        `inside` are stored embeddings (n, *), if the model has one.
        """
        self._gathered.add(rows, stored, latency_ms, inside)

    def failed(self, count: int) -> None:
        """Inferences that raised."""
        self._errors += count

    def skewed(self, reason: str) -> None:
        """One row that does not fit the input schema."""
        self._skew[reason] = self._skew.get(reason, 0) + 1

    def close(
        self, seconds: float, dropped: int, rss_bytes: int, compared: Compared | None = None
    ) -> Filled:
        """The window so far."""
        filled = Filled(
            model=self._model,
            seconds=seconds,
            errors=self._errors,
            dropped=dropped,
            skew=self._skew,
            rss_bytes=rss_bytes,
            gathered=self._gathered,
            compared=compared,
        )
        self._begin(stride=max(1, -(-filled.rows // INPUTS)))
        return filled

    def _begin(self, stride: int) -> None:
        self._gathered = Gathered(self._model, stride)
        self._errors = 0
        self._skew: dict[str, int] = {}
