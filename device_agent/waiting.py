"""The download that is due: begun when manners allow, deferred with a reason until then."""

import shutil
import time
from collections.abc import Callable

from device_agent.manners import Hold, Manners, Moment, tightened, why_not_change, why_wait
from device_agent.store import Store
from edge_sdk.errors import InvalidInputError
from edge_sdk.messages import Assignment

RECHECK = 1.0  # seconds


class Waiting:
    """Holds at most one order; `due` says what may happen to it now."""

    def __init__(
        self,
        manners: Manners,
        store: Store,
        wall: Callable[[], float],
        now: Callable[[], float],
    ) -> None:
        self._manners, self._store, self._wall, self._now = manners, store, wall, now
        self._order: Assignment | None = None
        self._attempt, self._next = 0, 0.0
        self._kind: str | None = None

    def add(self, order: Assignment, attempt: int) -> None:
        """This order's download is due; it takes the place of another."""
        if self._order is None or self._order.generation != order.generation:
            self._kind = None
        self._order, self._attempt, self._next = order, attempt, 0.0

    def cancel(self, generation: int) -> None:
        """Its download is not wanted any more."""
        if self._order is not None and self._order.generation == generation:
            self._order = None

    def due(self, *, runs: bool) -> tuple[Assignment, int, str | None] | None:
        """The order, its attempt, and why it waits (None: begin now); None if nothing is new."""
        order = self._order
        if order is None or self._now() < self._next:
            return None
        self._next = self._now() + RECHECK
        hold = self._hold(order, runs=runs)
        if hold is None:
            self._order = self._kind = None
            return order, self._attempt, None
        if hold.kind == self._kind:
            return None
        self._kind = hold.kind
        return order, self._attempt, hold.words

    def _hold(self, order: Assignment, *, runs: bool) -> Hold | None:
        part, free = self._store.part(order.digest), shutil.disk_usage(self._store.folder).free
        have = part.stat().st_size if part.exists() else 0
        if self._store.carried(order.digest).exists():
            return None  # somebody stands there with the stick
        clock = time.localtime(self._wall())
        moment = Moment(60 * clock.tm_hour + clock.tm_min, free, runs)
        try:
            manners = tightened(self._manners, order.policy)
        except InvalidInputError as error:
            return Hold("window", f"the order's {error}")
        if self._store.bundle(order.digest).exists():
            return why_not_change(manners, moment)
        return why_wait(manners, max(0, order.length - have), moment)
