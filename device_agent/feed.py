"""Sources that come when they come: a thread that reads them, and a short queue.

Backpressure is explicit: when nobody takes the rows in time, the oldest are dropped and counted.
"""

import threading
from collections import deque
from collections.abc import Callable
from typing import Protocol

import numpy as np

from device_agent.sources import Taken
from edge_sdk.channels import Array
from edge_sdk.errors import EdgeError

ROOM = 256  # rows that may wait
FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0  # seconds until a source that failed is tried again


class Put(Protocol):
    """Takes one raw row (*shape) and what it is called."""

    def __call__(self, row: Array, name: str = "") -> None: ...


Produce = Callable[[Put, threading.Event], None]


class Feed:
    """Runs `produce` on a thread of its own until closed, again and again if it fails.

    `produce` gives its rows to `put` and returns soon after the event is set, or when it has no
    more; what it raises (EdgeError, OSError, ValueError) is the source's `trouble` until it works.
    """

    def __init__(self, name: str, produce: Produce, room: int = ROOM) -> None:
        self._name, self._produce, self._room = name, produce, room
        self._rows: deque[tuple[Array, str]] = deque()
        self._dropped = 0
        self._there = threading.Condition()
        self._stop = threading.Event()
        self.trouble = ""
        self._thread = threading.Thread(target=self._run, name=f"source-{name}", daemon=True)
        self._thread.start()

    def take(self, limit: int) -> Taken:
        """At most `limit` rows, as one array if they are alike."""
        with self._there:
            dropped, self._dropped = self._dropped, 0
            found = [self._rows.popleft() for _ in range(min(limit, len(self._rows)))]
        rows = [row for row, _ in found]
        alike = rows and all((r.shape, r.dtype) == (rows[0].shape, rows[0].dtype) for r in rows)
        return Taken(np.stack(rows) if alike else rows, [name for _, name in found], dropped)

    def wait(self, seconds: float) -> None:
        """Until a row is there, at most so long."""
        with self._there:
            self._there.wait_for(lambda: self._rows or self._stop.is_set(), seconds)

    def restart(self) -> None:
        """Rows that came while nobody listened are gone, uncounted."""
        with self._there:
            self._rows.clear()
            self._dropped = 0

    def close(self) -> None:
        """Stop reading; a source that hangs is left behind."""
        self._stop.set()
        with self._there:
            self._there.notify_all()
        self._thread.join(2.0)

    def put(self, row: Array, name: str = "") -> None:
        """One more row."""
        with self._there:
            if len(self._rows) >= self._room:
                self._rows.popleft()
                self._dropped += 1
            self._rows.append((row, name))
            self._there.notify()
        self.trouble = ""

    def _run(self) -> None:
        wait = FIRST_WAIT
        while not self._stop.is_set():
            try:
                self._produce(self.put, self._stop)
            except (EdgeError, OSError, ValueError) as error:
                self.trouble = f"{self._name}: {error}"
            else:
                if not self._stop.is_set():
                    self.trouble = f"{self._name} has ended"
            wait = min(2 * wait, LONGEST_WAIT) if self.trouble else FIRST_WAIT
            self._stop.wait(wait)
