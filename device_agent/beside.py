"""A model that shall stand beside what answers: on standby for an instant switch, or as its shadow.

No I/O: a part of the machine in `update`.
"""

from device_agent.transitions import abandon, become, same_model, settled
from device_agent.update_events import Action, Fetch, Shadow, Step
from device_agent.update_states import (
    Beside,
    Empty,
    Fetching,
    Memory,
    Outcome,
    Trial,
    Verified,
    confirmed,
)
from edge_sdk.messages import Assignment


def offered(memory: Memory, order: Assignment) -> Step:
    """An order for standby or shadow: what is loaded already changes its role at once."""
    state, safe = memory.state, confirmed(memory.state)
    why = ""
    if safe is None:
        why = f"nothing answers here yet, so {order.version} can't be its {order.role}"
    elif same_model(order, safe):
        why = f"{order.version} is what answers here, so it can't be its own {order.role}"
    if why or safe is None:
        return become(memory, settled(safe, Outcome("refused", why)), first=abandon(state))
    if isinstance(state, Trial | Beside) and same_model(order, state.order):
        beside = Beside(safe, order, state.resumed_at)
        return become(memory, beside, first=(*abandon(state), *_run(order)))
    fetching = Fetching(safe, order)
    return become(memory, fetching, first=abandon(state), then=(Fetch(order, 1),))


def stands(memory: Memory, state: Verified) -> Step:
    """Its self-test is passed: it is loaded, and does not answer."""
    safe, order = state.confirmed, state.order
    if safe is None:
        why = f"what {order.version} was to stand beside was lost meanwhile"
        return become(memory, Empty(Outcome("refused", why, state.resumed_at)))
    beside = Beside(safe, order, state.resumed_at, state.starts)
    return become(memory, beside, first=_run(order))


def _run(order: Assignment) -> tuple[Action, ...]:
    return (Shadow(order),) if order.role == "shadow" else ()
