"""A rollout made again from its log: proof that decisions followed from what they name. Pure."""

from collections.abc import Iterable

from msgspec.structs import replace

from edge_sdk.errors import FormatError
from fleet_server.rollout.commands import obey
from fleet_server.rollout.engine import decide
from fleet_server.rollout.state import Decision, Rollout


def replay(first: Rollout, log: Iterable[Decision]) -> Rollout:
    """The state after the decisions in `log`, oldest first; `first` is as it was created.

    Raises:
        FormatError: a decision is not what the engine decides on its evidence.
    """
    state = first
    for number, told in enumerate(log):
        if told.look is None and told.order is None:
            continue  # its creation
        made: Decision | None
        if told.order is not None:
            state, made = obey(replace(state, judged=told.evidence or state.judged), told.order)
        else:
            state, made = decide(_reached(state, told), told.look) if told.look else (state, None)
        if made != told:
            raise FormatError(
                f"decision {number} of rollout {first.id} ({told.action}) does not follow from "
                f"its evidence: the engine says {made.action if made else 'nothing'}"
            )
    return state


def essence(rollout: Rollout) -> Rollout:
    """A rollout without what only shows how it was last looked at."""
    return replace(rollout, judged=(), reached_at=None)


def _reached(state: Rollout, told: Decision) -> Rollout:
    """Looks that decided nothing may have begun the soak; the log need not keep them."""
    soak = state.current.soak_seconds
    if soak and state.reached_at is None and told.look is not None:
        return replace(state, reached_at=told.look.at - soak)
    return state
