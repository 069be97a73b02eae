"""The device's part of a rollout's trace: one span for each phase of an order."""

from collections.abc import Callable

from edge_sdk.messages import Assignment, Phase
from edge_sdk.tracing import Tracer, below, of_order


class Traces:
    """Remembers the newest order, and since when it stands where it does."""

    def __init__(self, tracer: Tracer | None, wall: Callable[[], float]) -> None:
        """Without a tracer nothing is told."""
        self._tracer, self._wall = tracer, wall
        self._order: Assignment | None = None
        self._since = 0.0

    def offered(self, order: Assignment) -> None:
        """An order whose signature holds has come; the same again changes nothing."""
        if self._order is None or order.generation > self._order.generation:
            self._order, self._since = order, self._wall()

    def stands(self, generation: int, phase: Phase, reason: str) -> None:
        """The order of that generation has come so far."""
        order = self._order
        if self._tracer is None or order is None or order.generation != generation:
            return
        now = self._wall()
        place = below(of_order(order.rollout, order.device, generation))
        known = {"device": order.device, "version": order.version, "reason": reason}
        self._tracer.tell(f"device: {phase}", place, self._since, now, **known)
        self._since = now
