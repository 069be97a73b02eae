"""The server's part of a rollout's trace: decisions, orders, and what devices said.

It reads what is committed, as webhooks do, so that nothing waits for a tracer.
"""

import msgspec

from edge_sdk.tracing import Tracer, below, of_order, of_rollout
from fleet_server.records import DecisionRecord
from fleet_server.rollout.state import Decision
from fleet_server.store import Store

BATCH = 500


class Traces:
    """Tells spans of what is new since the last look; a server begins with what comes then."""

    def __init__(self, store: Store, tracer: Tracer) -> None:
        self._store, self._tracer = store, tracer
        self._orders, self._moves, self._decided = store.newest_of_rollouts()

    def look(self) -> None:
        """Tell what was decided, ordered and reported meanwhile."""
        for decision in self._store.decisions_after(self._decided, BATCH):
            self._decided = decision.id
            self._decision(decision)
        for number, order in self._store.orders_after(self._orders, BATCH):
            self._orders = number
            place = of_order(order.rollout, order.device, order.generation)
            self._tracer.tell(
                "order", place, order.issued_at, order.issued_at,
                device=order.device, generation=order.generation, version=order.version,
            )  # fmt: skip
        for number, move in self._store.moves_after(self._moves, BATCH):
            self._moves = number
            given = of_order(move.rollout, move.device, move.generation)
            place = below(given if move.generation else of_rollout(move.rollout))
            self._tracer.tell(
                f"server heard: {move.standing}", place, move.at, move.at,
                device=move.device, reason=move.reason,
            )  # fmt: skip

    def close(self) -> None:
        self._tracer.close()

    def _decision(self, decision: DecisionRecord) -> None:
        rollout, at = decision.rollout, decision.at
        record = self._store.rollout(rollout)
        if record is None:
            return
        root, made = of_rollout(rollout), msgspec.json.decode(decision.document, type=Decision)
        known = {"rollout": rollout, "model": record.model, "version": record.version}
        if not self._store.decisions(rollout, 1, decision.id):  # the first: from the click to it
            self._tracer.tell("rollout", root, record.created_at, at, **known)
        place = below(root)
        self._tracer.tell(f"decision: {made.action}", place, at, at, reason=made.reason, **known)
