"""A candidate that answers the same rows beside the running model, and is only compared with it.

The running model waits for nothing. The candidate has a thread of its own with a low priority and
a short queue, of which the oldest rows are dropped and counted; and it begins a row only while the
running model has none in hand, or once in PATIENCE, so that even the interpreter's lock and the
cores that they share cost one row in hundreds a little.
"""

import os
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from time import perf_counter, sleep

import msgspec
import numpy as np

from device_agent.runtime import Model
from edge_sdk.bundle import Manifest
from edge_sdk.channels import CONFIDENCE, LATENCY, LEAD, Array, of_classes, real_answers
from edge_sdk.interpreter import run
from edge_sdk.messages import Comparison, Running, Side
from edge_sdk.sketch import Floats, sketch

WAITING = 128  # rows in its queue
NICE = 19
PATIENCE = 0.05  # seconds that it gives way to a running model that is never idle
GLANCE = 0.001  # seconds between two looks whether it is idle now


# a row, the running model's probabilities, and the shadow's digest and class
Disagreed = Callable[[Array, Floats, tuple[str, int]], None]


class Compared(msgspec.Struct):
    """What a shadow and the running model answered to the same rows, row by row."""

    running: Running
    tolerance: float = 0.0  # how far two answers may be from each other to agree, of numbers
    primary: list[tuple[float, float, float]] = []  # class or number, confidence, milliseconds
    shadow: list[tuple[float, float, float]] = []
    errors: int = 0
    skipped: int = 0

    def comparison(self) -> Comparison:
        """For a window's message."""
        primary = np.array(self.primary, np.float64).reshape(-1, 3)
        shadow = np.array(self.shadow, np.float64).reshape(-1, 3)
        return Comparison(
            model=self.running.model,
            version=self.running.version,
            digest=self.running.digest,
            rows=len(primary),
            agreed=int((np.abs(primary[:, 0] - shadow[:, 0]) <= self.tolerance).sum()),
            errors=self.errors,
            skipped=self.skipped,
            primary=_side(primary),
            shadow=_side(shadow),
            lead=sketch(LEAD, shadow[:, 1] - primary[:, 1]),
        )


class Shadow:
    """One candidate at work until `close`."""

    def __init__(self, model: Model, disagreed: Disagreed | None = None) -> None:
        self.model, self._disagreed = model, disagreed
        self._rows: deque[tuple[Array, Floats, float]] = deque(maxlen=WAITING)
        self._there = threading.Event()
        self.busy = False  # the running model has rows in hand; set by its thread
        self._lock = threading.Lock()
        self._tolerance = _tolerance(model)
        self._found = Compared(model.running, self._tolerance)
        self._round = 0
        self.at_work = threading.Lock()  # whoever else asks the same interpreter waits for this
        self._closed = False
        name = f"shadow-{model.running.version}"
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def offer(self, rows: Array, answers: Floats, latency_ms: Floats) -> None:
        """Rows (n, *shape) that the running model answered so, in so many milliseconds (n,)."""
        over = len(self._rows) + len(rows) - WAITING
        self._rows.extend(zip(rows, answers, latency_ms, strict=True))
        self._there.set()
        if over > 0:
            with self._lock:
                self._found.skipped += over

    def take(self) -> Compared:
        """What was compared since the last time."""
        with self._lock:
            found, self._found = self._found, Compared(self.model.running, self._tolerance)
        return found

    def forget(self) -> None:
        """Another model answers from now on: nothing of the old one may count for it."""
        self._rows.clear()
        with self._lock:
            self._round += 1
            self._found = Compared(self.model.running, self._tolerance)

    def close(self) -> None:
        """Give up; the thread ends after the row that it is at."""
        self._closed = True
        self.forget()
        self._there.set()
        self._thread.join()

    def _run(self) -> None:
        with suppress(OSError, AttributeError):  # on Linux a thread is niced like a process
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
        while not self._closed:
            self._there.wait()
            self._there.clear()
            with suppress(IndexError):  # until there is none left
                while not self._closed:
                    self._give_way()
                    about = self._round
                    self._compare(about, *self._rows.popleft())

    def _give_way(self) -> None:
        enough = perf_counter() + PATIENCE
        while self.busy and perf_counter() < enough and not self._closed:
            sleep(GLANCE)

    def _compare(self, about: int, row: Array, primary: Floats, took: float) -> None:
        begun = perf_counter()
        try:
            with self.at_work:
                scores = run(self.model.interpreter, row)[np.newaxis]
        except (ValueError, RuntimeError):
            with self._lock:
                self._found.errors += about == self._round
            return
        mine = (perf_counter() - begun) * 1000
        manifest = self.model.manifest
        own = real_answers(scores, manifest.scores)[0]
        one, other = (_said(answer, manifest) for answer in (primary, own))
        with self._lock:
            still = about == self._round
            if still:
                self._found.primary.append((*one, took))
                self._found.shadow.append((*other, mine))
        if still and self._disagreed and abs(one[0] - other[0]) > self._tolerance:
            self._disagreed(row, primary, (self.model.running.digest, int(own.argmax())))


def _said(answer: Floats, manifest: Manifest) -> tuple[float, float]:
    """Class and confidence; of a model that gives numbers the first one, with no confidence."""
    if of_classes(manifest.scores):
        return float(answer.argmax()), float(answer.max())
    return float(answer[0]), float("nan")


def _tolerance(model: Model) -> float:
    """A tenth of how the reference's answers spread, for numbers; the same class, for classes."""
    known = model.baseline.channels
    spread = [c.sd for name in ("output.value", "output.error") if (c := known.get(name))]
    return 0.1 * spread[0] if spread else 0.0


def _side(answers: Floats) -> Side:
    return Side(sketch(CONFIDENCE, answers[:, 1]), sketch(LATENCY, answers[:, 2]))
