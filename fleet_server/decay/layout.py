"""Windows as matrices: the channels that are followed together, and what is counted of them.

Beside the sketches of a window, some numbers are followed as channels of their own: `schema` and
`errors` (rows that did not fit, or raised, as missing ones), `dropped`, `answers_lost`,
`memory_mb`, and of the board `temperature_c` and `throttled` (windows in which the firmware held it
back or its voltage was low, as missing ones).
"""

from typing import Literal, get_args

import msgspec
import numpy as np

from edge_sdk.messages import Hardware, Window
from edge_sdk.sketch import Baseline, Floats, bins
from edge_sdk.subspace import NOVELTY

Group = Literal["inputs", "answers"]
GROUPS: tuple[Group, ...] = get_args(Group)
SCHEMA, ERRORS, DROPPED, MEMORY, LATENCY = "schema", "errors", "dropped", "memory_mb", "latency_ms"
LOST, TEMPERATURE, THROTTLED = "answers_lost", "temperature_c", "throttled"
BEFORE = "-before"  # ends a flag that was raised at some time since the board's boot
MIN_SD = 1e-9
SHIFT_FLOOR = 0.3  # of the training's standard deviation
MEMORY_FLOOR = 0.3  # of its own mean
LATENCY_FLOOR = 0.5  # of its own mean, and beyond half of the board's budget
TEMPERATURE_FLOOR = 10.0  # degrees Celsius


class Layout(msgspec.Struct, frozen=True, eq=False):
    """Channels in a fixed order.

    Attributes:
        units: what a change of the mean is measured in: the training's standard deviation. 0 for
            categories, whose mean says nothing; 1 for a temperature; -1 for what only the device
            itself can know (latency, memory): its own mean.
        edges: inner edges of the bins, by name; empty for categories and pure numbers.
        width: bins of the widest channel; narrower ones are padded with empty bins.
        latency_budget_ms: of the board; 0 if it has none.
    """

    names: tuple[str, ...]
    units: Floats
    edges: dict[str, tuple[float, ...]]
    width: int
    latency_budget_ms: float = 0.0


class Counts(msgspec.Struct, frozen=True, eq=False):
    """What was seen of each channel of a layout, in some rows.

    Attributes:
        bins: rows in each bin (channels, width).
        rows, missing, total: (channels,).
    """

    bins: Floats
    rows: Floats
    missing: Floats
    total: Floats

    @property
    def means(self) -> Floats:
        return np.divide(self.total, self.rows, out=np.zeros_like(self.total), where=self.rows > 0)

    @property
    def most_rows(self) -> float:
        return float((self.rows + self.missing).max(initial=0.0))

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(
            self.bins + other.bins,
            self.rows + other.rows,
            self.missing + other.missing,
            self.total + other.total,
        )

    def __sub__(self, other: "Counts") -> "Counts":
        return Counts(
            self.bins - other.bins,
            self.rows - other.rows,
            self.missing - other.missing,
            self.total - other.total,
        )


def group_of(channel: str) -> Group | None:
    """Novelty is measured in a version's own space: its past ends with it, as that of answers."""
    if channel == NOVELTY or channel.startswith("output."):
        return "answers"
    return "inputs" if channel.startswith("input.") else None


def layout_of(baseline: Baseline, group: Group, budget_ms: float = 0.0) -> Layout:
    """The channels of a group that the baseline knows, whether or not a window has them."""
    known = {
        name: channel
        for name, channel in sorted(baseline.channels.items())
        if group_of(name) == group
    }
    units = [c.sd if c.kind == "numeric" and c.sd > MIN_SD else 0.0 for c in known.values()]
    if group == "inputs":
        extra = {SCHEMA: 0.0}
    else:
        counted = dict.fromkeys((ERRORS, DROPPED, LOST, THROTTLED), 0.0)
        extra = {**counted, TEMPERATURE: 1.0, MEMORY: -1.0, LATENCY: -1.0}
    return Layout(
        names=(*known, *extra),
        units=np.array([*units, *extra.values()]),
        edges={name: channel.edges for name, channel in known.items()},
        width=max((bins(channel) for channel in known.values()), default=1),
        latency_budget_ms=budget_ms,
    )


def counts_of(window: Window, layout: Layout) -> Counts:
    """The window on the layout; a channel that it lacks has no rows."""
    counts = np.zeros((len(layout.names), layout.width))
    numbers = np.zeros((len(layout.names), 3))
    for i, name in enumerate(layout.names):
        found = window.channels.get(name)
        if found is not None:
            if name in layout.edges:
                counts[i, : len(found.counts)] = found.counts
            numbers[i] = found.rows, found.missing, found.total
        else:
            numbers[i] = _number(window, name)
    return Counts(counts, *numbers.T)


def baseline_counts(baseline: Baseline, layout: Layout) -> Counts:
    """The training data on the layout; a channel that it does not know has no rows."""
    counts = np.zeros((len(layout.names), layout.width))
    numbers = np.zeros((len(layout.names), 3))
    for i, name in enumerate(layout.names):
        channel = baseline.channels.get(name)
        if channel is not None:
            rows = sum(channel.counts)
            counts[i, : len(channel.counts)] = channel.counts
            numbers[i] = rows, 0, rows * channel.mean
    return Counts(counts, *numbers.T)


def units_of(layout: Layout, reference: Counts) -> Floats:
    """The units of a device with this reference."""
    own = np.maximum(reference.means, MIN_SD)
    return np.asarray(np.where(layout.units < 0, own, layout.units))


def floors_of(layout: Layout, reference: Counts) -> Floats:
    """The smallest change of each mean that matters, in its unit."""
    floors = np.full(len(layout.names), SHIFT_FLOOR)
    for i, name in enumerate(layout.names):
        if name == MEMORY:
            floors[i] = MEMORY_FLOOR
        elif name == TEMPERATURE:
            floors[i] = TEMPERATURE_FLOOR
        elif name == LATENCY:
            usual = max(float(reference.means[i]), MIN_SD)
            floors[i] = max(LATENCY_FLOOR, layout.latency_budget_ms / 2 / usual - 1)
    return floors


def _number(window: Window, name: str) -> tuple[float, float, float]:
    """Rows, missing ones and the total of a channel that has no sketch."""
    rows, board = float(window.rows), window.hardware or Hardware()
    match name:
        case "schema":
            return rows, float(sum(window.skew.values())), 0.0
        case "errors":
            return rows, float(window.errors), 0.0
        case "dropped":
            return rows, float(window.dropped), 0.0
        case "answers_lost":
            return rows, float(board.answers_lost), 0.0
        case "throttled" if window.hardware is not None:
            now = any(not flag.endswith(BEFORE) for flag in board.flags)
            return float(not now), float(now), 0.0
        case "temperature_c" if board.temperature is not None:
            return 1.0, 0.0, board.temperature
        case "memory_mb" if window.rss_bytes or board.rss_bytes:
            return 1.0, 0.0, (window.rss_bytes or board.rss_bytes) / 1e6
        case _:
            return 0.0, 0.0, 0.0
