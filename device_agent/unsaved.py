"""Events that could not be remembered, since the disk was full or read-only; tried again later."""

from collections import deque
from collections.abc import Callable

from device_agent.update_events import Event

RETRY = 2.0  # seconds
MOST = 100  # events; the oldest go first, as the machine bears lost ones


class Unsaved:
    """A short queue with a clock."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._events: deque[Event] = deque(maxlen=MOST)
        self._next = 0.0

    def add(self, event: Event) -> None:
        """Try this one again after a while."""
        self._events.append(event)
        self._next = self._now() + RETRY

    def due(self) -> list[Event]:
        """All, in order, once it is time."""
        if not self._events or self._now() < self._next:
            return []
        found = list(self._events)
        self._events.clear()
        return found
