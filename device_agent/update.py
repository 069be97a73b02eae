"""The device's update, decided: memory and an event give the next memory and what to do.

No clock, file or socket here; the agent carries the actions out.

    empty/idle -> fetching -> verified -> trial -> idle(confirmed)
                     |           |  |       `----> idle(reverted)
                     |           |  `-> beside ..> trial
                     `-----------`---------------> idle(failed, refused)

An order for standby or shadow ends `beside` the confirmed model; an order to serve the same bundle
goes on from there at once. The confirmed model is never touched on the way, and a newer order
supersedes at any point. Events name the order (its generation) they are about, so late and doubled
ones change nothing.
"""

import msgspec

from device_agent import beside
from device_agent.transitions import abandon, become, same_model, settled, standing
from device_agent.update_events import (
    Action,
    Activate,
    Carried,
    Deferred,
    Event,
    Fetch,
    Fetched,
    FetchFailed,
    Notice,
    Offered,
    Rejected,
    Restarted,
    RollBack,
    SelfTest,
    SelfTested,
    ServerContact,
    Step,
    WindowClosed,
)
from device_agent.update_states import (
    Beside,
    Empty,
    Fetching,
    Idle,
    Memory,
    Outcome,
    Rules,
    Trial,
    Verified,
    candidate,
    confirmed,
)
from edge_sdk.messages import Assignment

BY_HAND = "by hand on the device"
TRIES = 10  # of a download that makes no progress
STARTS = 3  # of the process with a model that is not confirmed: the boot loop ends here


def step(rules: Rules, memory: Memory, event: Event) -> Step:
    """The next memory and what to do, in this order, once that memory is safely on disk."""
    state = memory.state
    match event:
        case Offered(order):
            return _offered(rules, memory, order)
        case Restarted():
            return _restarted(memory)
        case Fetched() | FetchFailed() | Rejected() | Deferred() if (
            isinstance(state, Fetching) and state.order.generation == event.generation
        ):
            return _fetch_news(memory, state, event)
        case Carried() | RollBack():
            return _by_hand(rules, memory, event)
        case SelfTested(generation, reason):
            return _self_tested(memory, generation, reason)
        case WindowClosed(digest, number) if (
            isinstance(state, Trial) and digest == state.order.digest and number > state.seen
        ):
            return _judged(rules, memory, state, event)
        case WindowClosed() if isinstance(state, Beside) and state.starts:
            lived = msgspec.structs.replace(state, starts=0)  # the process bears it: no boot loop
            return msgspec.structs.replace(memory, state=lived), ()
        case ServerContact() if isinstance(state, Trial) and not state.contact:
            return _confirmed_if_due(rules, memory, msgspec.structs.replace(state, contact=True))
    return memory, ()


def _fetch_news(
    memory: Memory, state: Fetching, event: Fetched | FetchFailed | Rejected | Deferred
) -> Step:
    match event:
        case Fetched() if memory.previous and same_model(state.order, memory.previous):
            return _way_back(memory, state)
        case Fetched(_, resumed_at):
            verified = Verified(state.confirmed, state.order, resumed_at)
            return become(memory, verified, then=(SelfTest(state.order),))
        case FetchFailed(_, attempt) if attempt == state.attempt:
            return _fetch_failed(memory, state, event)
        case Rejected(_, reason):
            return become(memory, settled(state.confirmed, Outcome("refused", reason)))
        case Deferred(_, reason) if reason != state.deferred:
            return become(memory, msgspec.structs.replace(state, deferred=reason))
        case _:
            return memory, ()


def _by_hand(rules: Rules, memory: Memory, event: Carried | RollBack) -> Step:
    match event:
        case Carried(order):
            return _carried(rules, memory, order)
        case RollBack():
            return _rolled_back(memory)


def _offered(rules: Rules, memory: Memory, order: Assignment) -> Step:
    state, safe = memory.state, confirmed(memory.state)
    if order.generation <= memory.generation:
        if order.generation == memory.generation and order.digest == memory.wanted:
            return memory, ()  # the retained order comes with every connection
        why = f"order {order.generation} is not above {memory.generation}, which was taken before"
        return memory, (Notice("order-refused", why),)
    taken = msgspec.structs.replace(memory, generation=order.generation, wanted=order.digest)
    if order.profile != rules.profile:
        why = f"the order is for profile {order.profile}, this device is a {rules.profile}"
        return become(taken, settled(safe, Outcome("refused", why)), first=abandon(state))
    if order.role != "serve":
        return beside.offered(taken, order)
    if safe is not None and same_model(order, safe):
        return become(taken, Idle(order, Outcome("confirmed")), first=abandon(state))
    if isinstance(state, Trial) and same_model(order, state.order):
        return become(taken, msgspec.structs.replace(state, order=order))
    if isinstance(state, Beside) and same_model(order, state.order):
        begun = Trial(safe, order, state.resumed_at)
        return become(taken, begun, first=(*abandon(state), Activate(order)))
    fetching = Fetching(safe, order)
    return become(taken, fetching, first=abandon(state), then=(Fetch(order, 1),))


def _way_back(memory: Memory, state: Fetching) -> Step:
    """The model before was kept and is vouched for still: no trial, a self-test only."""
    back = Idle(state.order, Outcome("confirmed"))
    after = msgspec.structs.replace(memory, state=back, previous=state.confirmed)
    return after, (SelfTest(state.order, known=True),)


def _restarted(memory: Memory) -> Step:
    """Nothing runs after a start until it was self-tested again."""
    safe = confirmed(memory.state)
    back: tuple[Action, ...] = (SelfTest(safe, known=True),) if safe else ()
    match memory.state:
        case Fetching(_, order, attempt):
            return memory, (*(back or (standing(memory),)), Fetch(order, attempt))
        case (
            Verified(_, order, resumed_at, starts)
            | Trial(_, order, resumed_at, starts)
            | Beside(_, order, resumed_at, starts)
        ):
            tried = not isinstance(memory.state, Verified)
            if starts >= STARTS:
                doing = f"on {standing(memory).outcome.phase}" if tried else "in its self-test"
                why = f"the agent was started {starts} times with it {doing} and it never got past"
                end = Outcome("reverted" if tried else "refused", why, resumed_at)
                return become(memory, settled(safe, end), then=back)
            again = Verified(safe, order, resumed_at, starts + 1)
            return become(memory, again, then=(*back, SelfTest(order)))
        case Empty() | Idle():  # with a model to load, the report waits until it runs
            return memory, back or (standing(memory),)


def _fetch_failed(memory: Memory, state: Fetching, event: FetchFailed) -> Step:
    attempt = 1 if event.got > state.got else state.attempt + 1
    if event.final or attempt > TRIES:
        tries = "" if event.final else f"{TRIES} tries without progress, the last: "
        return become(memory, settled(state.confirmed, Outcome("failed", tries + event.reason)))
    waiting = msgspec.structs.replace(state, attempt=attempt, got=max(event.got, state.got))
    return msgspec.structs.replace(memory, state=waiting), (Fetch(state.order, attempt),)


def _self_tested(memory: Memory, generation: int, reason: str | None) -> Step:
    state, safe = memory.state, confirmed(memory.state)
    if isinstance(state, Verified) and generation == state.order.generation:
        if reason is None and state.order.role != "serve":
            return beside.stands(memory, state)
        if reason is None:
            vouched = generation == memory.vouched
            begun = Trial(safe, state.order, state.resumed_at, state.starts, contact=vouched)
            return become(memory, begun, first=(Activate(state.order),))
        return become(memory, settled(safe, Outcome("refused", reason, state.resumed_at)))
    if safe is None or generation != safe.generation:
        return memory, ()
    if reason is None:
        return memory, () if isinstance(state, Trial) else (Activate(safe), standing(memory))
    lost = Notice("confirmed-model-lost", f"{safe.model} {safe.version}: {reason}")
    if isinstance(state, Idle | Beside):  # fetch it again: it is what this device shall run
        back = memory.previous
        alone = msgspec.structs.replace(memory, previous=None)
        test: tuple[Action, ...] = (SelfTest(back, known=True),) if back else ()
        again = Fetching(back, safe)
        first = (lost, *abandon(state))
        return become(alone, again, first=first, then=(*test, Fetch(safe, 1)))
    without = msgspec.structs.replace(state, confirmed=None)
    return msgspec.structs.replace(memory, state=without), (lost,)


def _judged(rules: Rules, memory: Memory, state: Trial, window: WindowClosed) -> Step:
    answers = window.rows + window.errors
    if answers and window.errors / answers > rules.max_error_share:
        why = (
            f"{window.errors} of {answers} inferences failed in a window, "
            f"allowed is a share of {rules.max_error_share:g}"
        )
        end = settled(state.confirmed, Outcome("reverted", why, state.resumed_at))
        return become(memory, end, first=abandon(state))
    healthy = state.healthy + (1 if window.rows else 0)
    judged = msgspec.structs.replace(state, seen=window.number, healthy=healthy)
    return _confirmed_if_due(rules, memory, judged)


def _confirmed_if_due(rules: Rules, memory: Memory, state: Trial) -> Step:
    if state.healthy >= rules.windows and state.contact:
        was = state.confirmed
        if was is not None and was.digest != state.order.digest:
            memory = msgspec.structs.replace(memory, previous=was)
        return become(memory, Idle(state.order, Outcome("confirmed", "", state.resumed_at)))
    return msgspec.structs.replace(memory, state=state), ()


def _carried(rules: Rules, memory: Memory, order: Assignment) -> Step:
    """Who brought it stands in for the server's contact; a download that failed begins anew."""
    if (order.generation, order.digest) != (memory.generation, memory.wanted):
        return memory, ()  # it was refused when it was offered
    state = memory.state
    vouched = msgspec.structs.replace(memory, vouched=order.generation)
    if isinstance(state, Trial) and not state.contact:
        return _confirmed_if_due(rules, vouched, msgspec.structs.replace(state, contact=True))
    if isinstance(state, Empty | Idle) and state.outcome.phase == "failed":
        return become(vouched, Fetching(confirmed(state), order), then=(Fetch(order, 1),))
    return vouched, ()


def _rolled_back(memory: Memory) -> Step:
    """Give up the candidate, else go back to the model before; it is tested before it answers."""
    state, safe = memory.state, confirmed(memory.state)
    end = Outcome("reverted", BY_HAND)
    if candidate(state) is not None:
        return become(memory, settled(safe, end), first=abandon(state))
    if memory.previous is None:
        return memory, (Notice("rollback-refused", "no earlier version is kept on this device"),)
    back = Idle(memory.previous, end)
    after = msgspec.structs.replace(memory, state=back, previous=None)
    return after, (SelfTest(memory.previous, known=True),)
