"""The loop that answers: rows from the source, through the running model, into its window."""

import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter
from typing import Protocol

import msgspec
import numpy as np

from device_agent import told
from device_agent.runtime import Model
from device_agent.shadow import Shadow
from device_agent.sources import Rows, Source, Taken
from device_agent.window import Filled, WindowBuffer
from edge_sdk.channels import Array, fits, of_classes, real_answers, schema_skew
from edge_sdk.errors import InvalidInputError
from edge_sdk.interpreter import Scores
from edge_sdk.sketch import Floats

UNUSABLE = ("shape", "type", "missing")  # rows that no model can be given
PAUSE = 0.05  # seconds until a source that has nothing is looked at again, and a stop is noticed
BATCH = 64  # rows answered between two looks at the clock, fewer if they take longer than PAUSE


class Closed(msgspec.Struct, frozen=True):
    """A window that has ended; `number` rises by one within a process."""

    number: int
    filled: Filled


class Totals(msgspec.Struct):
    """Counts since the start of the process; `seconds` were spent answering."""

    rows: int = 0
    errors: int = 0
    dropped: int = 0
    skewed: int = 0
    seconds: float = 0.0


class Answered(msgspec.Struct, frozen=True):
    """Rows (n, *shape) and what one model answered, as stored (n, classes); milliseconds (n,).

    `inside` are the stored embeddings (n, *) of a model that has one.
    """

    model: Model
    rows: Array
    names: Sequence[str]
    stored: Array
    latency_ms: Floats
    inside: Array | None = None

    @property
    def scores(self) -> Scores:
        """Real scores (n, classes)."""
        return self.model.interpreter.scores(self.stored)

    @property
    def of_classes(self) -> bool:
        """Whether an answer says how likely each class is."""
        return of_classes(self.model.manifest.scores)

    @property
    def answers(self) -> Floats:
        """Class probabilities (n, classes), or the numbers that the model gives (n, k)."""
        return real_answers(self.scores, self.model.manifest.scores)


class Watcher(Protocol):
    """Who looks at answers; called on the loop's thread, and `disagreed` on the shadow's."""

    @property
    def wanted(self) -> bool: ...
    def see(self, answered: Answered) -> None: ...
    def disagreed(
        self, model: Model, row: Array, answer: Floats, shadow: tuple[str, int]
    ) -> None: ...


class Inference:
    """Answers rows on its own thread; `switch` changes models between two of them.

    Args:
        closed: takes each window that has ended.
        watcher: sees every answer, between two batches.
    """

    def __init__(
        self,
        source: Source,
        window_seconds: float,
        now: Callable[[], float],
        closed: Callable[[Closed], None],
        watcher: Watcher | None = None,
    ) -> None:
        self._source, self._seconds = source, window_seconds
        self._now, self._closed, self._watcher = now, closed, watcher
        self._lock = threading.Lock()
        self._slot: _Slot | None = None
        self._shadow: Shadow | None = None
        self.totals = Totals()
        self._number = self._dropped = 0
        self._opened = now()

    @property
    def running(self) -> Model | None:
        """What answers."""
        slot = self._slot
        return slot.model if slot else None

    @property
    def shadow(self) -> Model | None:
        """What is only compared."""
        shadow = self._shadow
        return shadow.model if shadow else None

    def switch(self, model: Model | None) -> None:
        """Let `model` answer from the next row on; the old one's window ends here."""
        with self._lock:
            if model is self.running:
                return
            self._end_window()
            if self._slot is None:
                self._source.restart()
            self._slot = _Slot(model) if model else None
            if self._shadow:
                self._shadow.forget()
            self._opened = self._now()

    def accompany(self, model: Model | None) -> None:
        """Let `model` answer the same rows beside the running one; its answers go nowhere.

        It has a thread of its own and is given only the rows it has time for, so the running model
        never waits for it. Each window of the running model carries their comparison.
        """
        with self._lock:
            if model is self.shadow:
                return
            before = self._shadow
            self._shadow = Shadow(model, self._disagreed) if model else None
        if before:
            before.close()

    @property
    def models(self) -> list[Model]:
        """What answers, and then what runs beside it."""
        return [model for model in (self.running, self.shadow) if model is not None]

    def _disagreed(self, row: Array, answer: Floats, shadow: tuple[str, int]) -> None:
        model = self.running
        if model is not None and self._watcher is not None:
            self._watcher.disagreed(model, row, answer, shadow)

    def infer(self, model: Model, rows: Array) -> Answered:
        """Answer rows (n, *shape) that fit the schema now, on the caller's thread.

        What the running model is asked counts in its window like the source's rows.

        Raises:
            ValueError, RuntimeError: the interpreter failed, or that model runs no more.
        """
        shadow = self._shadow
        if shadow is not None and model is shadow.model:
            begun = perf_counter()
            with shadow.at_work:
                stored = [model.interpreter.infer(row) for row in model.interpreter.prepare(rows)]
            took = np.full(len(rows), (perf_counter() - begun) * 1000 / len(rows))
            return Answered(model, rows, (), np.concatenate(stored), took)
        with self._lock:
            if self._slot is None or self._slot.model is not model:
                raise RuntimeError("another model runs now")
            answered = self._answer(self._slot, rows, ())
        if answered is None or len(answered.rows) < len(rows):
            raise RuntimeError("not every row could be answered")
        return answered

    def run(self, stop: threading.Event) -> None:
        """Answer until told to stop; the last window is closed then."""
        while not stop.is_set():
            if not self.turn():
                self._source.wait(PAUSE)
        with self._lock:
            self._end_window()
        self.accompany(None)

    def turn(self) -> bool:
        """Answer rows that are due, and end the window when it is over; whether there were any."""
        with self._lock:
            came = self._slot is not None and self._take(self._slot)
            if self._shadow is not None:
                self._shadow.busy = False
            if self._now() - self._opened >= self._seconds:
                self._end_window()
        return came

    def _take(self, slot: "_Slot") -> bool:
        taken = self._source.take(slot.batch)
        self._dropped += taken.dropped
        self.totals.dropped += taken.dropped
        if not len(taken.rows):
            return False
        if taken.told:
            self._take_told(slot, taken)
        else:
            self._take_rows(slot, taken.rows, taken.names)
        return True

    def _take_rows(self, slot: "_Slot", rows: Rows, names: Sequence[str]) -> None:
        if not (isinstance(rows, np.ndarray) and fits(slot.model.manifest.input, rows)):
            good = self._usable(slot, rows)
            names = [names[index] for index in good if index < len(names)]
            rows = np.stack([rows[index] for index in good]) if good else np.empty(0)
        if len(rows):
            self._show(self._answer(slot, rows, names))

    def _take_told(self, slot: "_Slot", taken: Taken) -> None:
        """Rows that came with answers: by this model, they count; by another, it answers anew."""
        rows = told.shaped(taken.rows, slot.model.manifest.input)
        answers = [told.answer(one, slot.model) for one in taken.told]
        came = list(zip(rows, answers, taken.told, strict=True))
        self._take_rows(slot, [row for row, answer, _ in came if answer is None], ())
        mine = [(row, answer, one) for row, answer, one in came if answer is not None]
        good = [mine[index] for index in self._usable(slot, [row for row, _, _ in mine])]
        if good:
            stored = np.concatenate([answer for _, answer, _ in good])
            latency = np.array([one.latency_ms for _, _, one in good])
            self.totals.rows += len(good)
            self.totals.seconds += float(latency.sum()) / 1000
            whole = np.stack([row for row, _, _ in good])
            self._show(self._count(slot, Answered(slot.model, whole, (), stored, latency)))

    def _usable(self, slot: "_Slot", rows: Rows) -> list[int]:
        """Which rows the model can be given; what does not fit is counted."""
        good = []
        for index, row in enumerate(rows):
            reason = schema_skew(slot.model.manifest.input, row)
            if reason is not None:
                slot.window.skewed(reason)
                self.totals.skewed += 1
            if reason not in UNUSABLE:
                good.append(index)
        return good

    def _show(self, answered: Answered | None) -> None:
        if answered is not None and self._watcher is not None and self._watcher.wanted:
            self._watcher.see(answered)

    def _answer(self, slot: "_Slot", rows: Array, names: Sequence[str]) -> Answered | None:
        """Every row that the interpreter does not fail at; None if that is none."""
        if self._shadow is not None:
            self._shadow.busy = True
        begun = perf_counter()
        interpreter = slot.model.interpreter
        stored: list[Array] = []
        inside: list[Array] = []
        failed: list[int] = []
        try:
            prepared = interpreter.prepare(rows)
        except InvalidInputError:  # rows that a preprocessing step can't take
            slot.window.failed(len(rows))
            self.totals.errors += len(rows)
            return None
        share = (perf_counter() - begun) / len(rows)
        ticks = [perf_counter()]
        for index, row in enumerate(prepared):
            try:
                stored.append(interpreter.infer(row))
                if interpreter.embedding is not None:
                    inside.append(interpreter.embedded())
            except (ValueError, RuntimeError):  # what LiteRT raises; the trial judges their share
                failed.append(index)
            ticks.append(perf_counter())
        slot.pace((ticks[-1] - begun) / len(rows))
        self.totals.seconds += ticks[-1] - begun
        self.totals.rows += len(stored)
        self.totals.errors += len(failed)
        latency = (np.diff(ticks) + share) * 1000
        if failed:
            slot.window.failed(len(failed))
            rows, latency = np.delete(rows, failed, axis=0), np.delete(latency, failed)
            names = [name for index, name in enumerate(names) if index not in failed]
        if not stored:
            return None
        answered = Answered(
            slot.model,
            rows,
            names,
            np.concatenate(stored),
            latency,
            np.concatenate(inside) if inside else None,
        )
        return self._count(slot, answered)

    def _count(self, slot: "_Slot", answered: Answered) -> Answered:
        """Into the window, and to the shadow."""
        rows, latency = answered.rows, answered.latency_ms
        slot.window.answered(rows, answered.stored, latency, answered.inside)
        if self._shadow is not None:
            self._shadow.offer(rows, answered.answers, latency)
        return answered

    def _end_window(self) -> None:
        """Only with the lock held."""
        if self._slot is None:
            return
        now, seconds = self._now(), self._now() - self._opened
        if self._slot.window.idle and seconds < self._seconds:
            return  # ended early by a switch, before its first row
        self._number += 1
        compared = self._shadow.take() if self._shadow else None
        filled = self._slot.window.close(seconds, self._dropped, resident_bytes(), compared)
        self._opened, self._dropped = now, 0
        self._closed(Closed(self._number, filled))


class _Slot:
    """The running model and its window."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.window = WindowBuffer(model)
        self.batch = BATCH

    def pace(self, seconds: float) -> None:
        """So many seconds a row: a batch shall not keep a switch waiting for longer than PAUSE."""
        self.batch = max(1, min(BATCH, int(PAUSE / max(seconds, 1e-9))))


def resident_bytes() -> int:
    """Resident memory of this process; 0 where /proc does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
