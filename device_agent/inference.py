"""The loop that answers: rows from the source, through the running model, into its window."""

import os
import threading
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

import msgspec

from device_agent.runtime import Model
from device_agent.sources import Source
from device_agent.window import WindowBuffer
from edge_sdk.channels import Array, schema_skew
from edge_sdk.messages import Window

BURST = 0.05  # seconds between two looks for due rows: one wake-up serves several rows
BEHIND = 2.0  # seconds of rows that may queue up before the oldest are dropped
UNUSABLE = ("shape", "type", "missing")  # rows that no model can be given


class Closed(msgspec.Struct, frozen=True):
    """A window that has ended; `number` rises by one within a process."""

    number: int
    window: Window


class Inference:
    """Answers rows at a fixed rate on its own thread; `switch` changes models between two rows."""

    def __init__(
        self,
        source: Source,
        rows_per_second: float,
        window_seconds: float,
        now: Callable[[], float],
        closed: Callable[[Closed], None],
    ) -> None:
        self._source, self._rate, self._seconds = source, rows_per_second, window_seconds
        self._now, self._closed = now, closed
        self._pause = min(max(BURST, 1 / rows_per_second), window_seconds)
        self._capacity = int(rows_per_second * (window_seconds + BEHIND)) + 1
        self._lock = threading.Lock()
        self._slot: _Slot | None = None
        self._number = self._dropped = 0
        self._opened = self._due = now()

    @property
    def running(self) -> Model | None:
        """What answers."""
        slot = self._slot
        return slot.model if slot else None

    def switch(self, model: Model | None) -> None:
        """Let `model` answer from the next row on; the old one's window ends here."""
        with self._lock:
            if model is self.running:
                return
            self._end_window()
            self._slot = _Slot(model, self._capacity) if model else None
            self._opened = self._due = self._now()

    def run(self, stop: threading.Event) -> None:
        """Answer until told to stop; the last window is closed then."""
        while not stop.wait(self._pause):
            self.turn()
        with self._lock:
            self._end_window()

    def turn(self) -> None:
        """Answer every row that is due, and end the window when it is over."""
        for row in self._source.take(self._take_due()):
            with self._lock:
                if self._slot:
                    self._answer(self._slot, row)
        with self._lock:
            if self._now() - self._opened >= self._seconds:
                self._end_window()

    def _take_due(self) -> int:
        """How many rows to answer now; those too old to catch up with are dropped, and counted."""
        with self._lock:
            if self._slot is None:
                return 0
            count = int((self._now() - self._due) * self._rate)
            surplus = max(0, count - max(1, int(BEHIND * self._rate)))
            self._dropped += surplus
            self._due += count / self._rate
            return count - surplus

    def _answer(self, slot: "_Slot", row: Array) -> None:
        reason = schema_skew(slot.model.manifest.input, row)
        if reason is not None:
            slot.window.skewed(reason)
            if reason in UNUSABLE:
                return
        begun = perf_counter()
        try:
            scores = slot.model.interpreter.run(row)
        except (ValueError, RuntimeError):  # what LiteRT raises; the trial judges their share
            slot.window.failed()
            return
        slot.window.answered(row, scores, (perf_counter() - begun) * 1000)
        if slot.window.full:
            self._end_window()

    def _end_window(self) -> None:
        """Only with the lock held."""
        if self._slot is None:
            return
        now, seconds = self._now(), self._now() - self._opened
        if self._slot.window.idle and seconds < self._seconds:
            return  # ended early by a switch, before its first row
        self._number += 1
        window = self._slot.window.close(seconds, self._dropped, resident_bytes())
        self._opened, self._dropped = now, 0
        self._closed(Closed(self._number, window))


class _Slot:
    """The running model and its window."""

    def __init__(self, model: Model, capacity: int) -> None:
        self.model = model
        self.window = WindowBuffer(model.running, model.manifest, model.baseline, capacity)


def resident_bytes() -> int:
    """Resident memory of this process; 0 where /proc does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
