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

from edge_sdk.messages import Assignment, Phase

BY_HAND = "by hand on the device"
TRIES = 10  # of a download that makes no progress
STARTS = 3  # of the process with a model that is not confirmed: the boot loop ends here


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """What the machine judges by: this device's profile, and when a trial is passed."""

    profile: str
    windows: int
    max_error_share: float


class Outcome(msgspec.Struct, frozen=True):
    """How the last order ended."""

    phase: Phase = "empty"
    reason: str = ""
    resumed_at: int = 0


# --- states -----------------------------------------------------------------------------------


class Empty(msgspec.Struct, frozen=True, tag="empty"):
    """Nothing is installed."""

    outcome: Outcome = Outcome()


class Idle(msgspec.Struct, frozen=True, tag="idle"):
    """The confirmed model runs and nothing else is wanted."""

    confirmed: Assignment
    outcome: Outcome


class Fetching(msgspec.Struct, frozen=True, tag="fetching"):
    """The order's bundle is on its way; `attempt` counts tries without progress past `got`.

    `deferred` says why its download waits, if it does.
    """

    confirmed: Assignment | None
    order: Assignment
    attempt: int = 1
    got: int = 0
    deferred: str = ""


class Verified(msgspec.Struct, frozen=True, tag="verified"):
    """The bundle is here whole and signed by whom we trust; its self-test is running."""

    confirmed: Assignment | None
    order: Assignment
    resumed_at: int = 0
    starts: int = 1


class Trial(msgspec.Struct, frozen=True, tag="trial"):
    """The candidate answers; `seen` is the number of the last window judged."""

    confirmed: Assignment | None
    order: Assignment
    resumed_at: int = 0
    starts: int = 1
    healthy: int = 0
    seen: int = 0
    contact: bool = False


class Beside(msgspec.Struct, frozen=True, tag="beside"):
    """The order's model is loaded beside the confirmed one, on standby or as its shadow."""

    confirmed: Assignment
    order: Assignment
    resumed_at: int = 0
    starts: int = 1


State = Empty | Idle | Fetching | Verified | Trial | Beside


class Memory(msgspec.Struct, frozen=True):
    """All that survives a restart: the newest order ever taken, the state, and a way back.

    `previous` was confirmed before what is confirmed now; its bundle is kept for a rollback.
    `vouched` is the generation of an order that a person carried here: it needs no server.
    """

    generation: int = 0
    wanted: str = ""
    state: State = Empty()
    format: int = 1
    previous: Assignment | None = None
    vouched: int = 0


# --- events -----------------------------------------------------------------------------------


class Offered(msgspec.Struct, frozen=True):
    """An order whose signature holds."""

    order: Assignment


class Fetched(msgspec.Struct, frozen=True):
    """The bundle is on disk; its digest, signature and manifest fit the order."""

    generation: int
    resumed_at: int = 0


class FetchFailed(msgspec.Struct, frozen=True):
    """A try ended early with `got` bytes on disk; `final` if another one can't help."""

    generation: int
    attempt: int
    reason: str
    got: int = 0
    final: bool = False


class Deferred(msgspec.Struct, frozen=True):
    """The download waits for this reason; "" when it waits no more."""

    generation: int
    reason: str


class Carried(msgspec.Struct, frozen=True):
    """The order came by hand with its bundle; told after it was offered."""

    order: Assignment


class RollBack(msgspec.Struct, frozen=True):
    """Somebody at the device wants what ran before."""


class Rejected(msgspec.Struct, frozen=True):
    """What came is not what was ordered, or not signed."""

    generation: int
    reason: str


class SelfTested(msgspec.Struct, frozen=True):
    """A bundle on disk was loaded and tried on its golden samples; `reason` if it failed."""

    generation: int
    reason: str | None = None


class WindowClosed(msgspec.Struct, frozen=True):
    """A window of answers by the model `digest`; `number` rises within a process."""

    digest: str
    number: int
    rows: int
    errors: int


class ServerContact(msgspec.Struct, frozen=True):
    """The server has confirmed a message just now."""


class Restarted(msgspec.Struct, frozen=True):
    """The process has started; nothing runs yet."""


Event = (
    Offered
    | Fetched
    | FetchFailed
    | Deferred
    | Carried
    | RollBack
    | Rejected
    | SelfTested
    | WindowClosed
    | ServerContact
    | Restarted
)


# --- actions ----------------------------------------------------------------------------------


class Fetch(msgspec.Struct, frozen=True):
    """Download and verify; wait longer before a later attempt."""

    order: Assignment
    attempt: int


class Cancel(msgspec.Struct, frozen=True):
    """Give up what is under way for this order: it is superseded."""

    generation: int


class SelfTest(msgspec.Struct, frozen=True):
    """Load the bundle from disk and try it on its golden samples.

    `known` if it was confirmed before; any other model is tried in a process of its own first.
    """

    order: Assignment
    known: bool = False


class Activate(msgspec.Struct, frozen=True):
    """Let this model answer from the next row on; it was self-tested since the last start."""

    order: Assignment


class Stop(msgspec.Struct, frozen=True):
    """Let nothing answer: there is no confirmed model to go back to."""


class Shadow(msgspec.Struct, frozen=True):
    """Let this model run beside what answers and be compared; None: none does any more."""

    order: Assignment | None


class Tell(msgspec.Struct, frozen=True):
    """Report to the server; the agent adds what really runs."""

    generation: int
    outcome: Outcome


class Notice(msgspec.Struct, frozen=True):
    """Something for the device's history that changed nothing."""

    name: str
    detail: str


Action = Fetch | Cancel | SelfTest | Activate | Stop | Shadow | Tell | Notice
Step = tuple[Memory, tuple[Action, ...]]


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


def standing(memory: Memory) -> Tell:
    """Where the device stands, for a report."""
    match memory.state:
        case Empty(found) | Idle(_, found):
            return Tell(memory.generation, found)
        case Fetching(_, order, deferred=reason):
            return Tell(order.generation, Outcome("deferred" if reason else "fetching", reason))
        case Verified(_, order, resumed_at):
            return Tell(order.generation, Outcome("verified", "", resumed_at))
        case Trial(_, order, resumed_at):
            return Tell(order.generation, Outcome("trial", "", resumed_at))
        case Beside(_, order, resumed_at):
            phase: Phase = "shadow" if order.role == "shadow" else "standby"
            return Tell(order.generation, Outcome(phase, "", resumed_at))


def confirmed(state: State) -> Assignment | None:
    """The model to fall back on."""
    return None if isinstance(state, Empty) else state.confirmed


def candidate(state: State) -> Assignment | None:
    """The model that shall take over or stand beside, if its update is under way or it does."""
    return None if isinstance(state, Empty | Idle) else state.order


def digests(memory: Memory) -> set[str]:
    """The bundles to keep: the confirmed one, the one before it, and the candidate."""
    orders = (confirmed(memory.state), memory.previous, candidate(memory.state))
    return {order.digest for order in orders if order is not None}


def _fetch_news(
    memory: Memory, state: Fetching, event: Fetched | FetchFailed | Rejected | Deferred
) -> Step:
    match event:
        case Fetched() if memory.previous and _same_model(state.order, memory.previous):
            return _way_back(memory, state)
        case Fetched(_, resumed_at):
            verified = Verified(state.confirmed, state.order, resumed_at)
            return _become(memory, verified, then=(SelfTest(state.order),))
        case FetchFailed(_, attempt) if attempt == state.attempt:
            return _fetch_failed(memory, state, event)
        case Rejected(_, reason):
            return _become(memory, _settled(state.confirmed, Outcome("refused", reason)))
        case Deferred(_, reason) if reason != state.deferred:
            return _become(memory, msgspec.structs.replace(state, deferred=reason))
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
        return _become(taken, _settled(safe, Outcome("refused", why)), first=_abandon(state))
    if order.role != "serve":
        return _offered_beside(taken, order)
    if safe is not None and _same_model(order, safe):
        return _become(taken, Idle(order, Outcome("confirmed")), first=_abandon(state))
    if isinstance(state, Trial) and _same_model(order, state.order):
        return _become(taken, msgspec.structs.replace(state, order=order))
    if isinstance(state, Beside) and _same_model(order, state.order):
        begun = Trial(safe, order, state.resumed_at)
        return _become(taken, begun, first=(*_abandon(state), Activate(order)))
    fetching = Fetching(safe, order)
    return _become(taken, fetching, first=_abandon(state), then=(Fetch(order, 1),))


def _offered_beside(memory: Memory, order: Assignment) -> Step:
    """An order for standby or shadow: what is loaded already changes its role at once."""
    state, safe = memory.state, confirmed(memory.state)
    why = ""
    if safe is None:
        why = f"nothing answers here yet, so {order.version} can't be its {order.role}"
    elif _same_model(order, safe):
        why = f"{order.version} is what answers here, so it can't be its own {order.role}"
    if why or safe is None:
        return _become(memory, _settled(safe, Outcome("refused", why)), first=_abandon(state))
    if isinstance(state, Trial | Beside) and _same_model(order, state.order):
        beside = Beside(safe, order, state.resumed_at)
        return _become(memory, beside, first=(*_abandon(state), *_run_beside(order)))
    fetching = Fetching(safe, order)
    return _become(memory, fetching, first=_abandon(state), then=(Fetch(order, 1),))


def _way_back(memory: Memory, state: Fetching) -> Step:
    """The model before was kept and is vouched for still: no trial, a self-test only."""
    back = Idle(state.order, Outcome("confirmed"))
    after = msgspec.structs.replace(memory, state=back, previous=state.confirmed)
    return after, (SelfTest(state.order, known=True),)


def _run_beside(order: Assignment) -> tuple[Action, ...]:
    return (Shadow(order),) if order.role == "shadow" else ()


def _same_model(one: Assignment, other: Assignment) -> bool:
    """By name too: an order that gives a known digest another name must face its manifest."""
    names = ("digest", "model", "version", "profile")
    return all(getattr(one, name) == getattr(other, name) for name in names)


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
                return _become(memory, _settled(safe, end), then=back)
            again = Verified(safe, order, resumed_at, starts + 1)
            return _become(memory, again, then=(*back, SelfTest(order)))
        case Empty() | Idle():  # with a model to load, the report waits until it runs
            return memory, back or (standing(memory),)


def _fetch_failed(memory: Memory, state: Fetching, event: FetchFailed) -> Step:
    attempt = 1 if event.got > state.got else state.attempt + 1
    if event.final or attempt > TRIES:
        tries = "" if event.final else f"{TRIES} tries without progress, the last: "
        return _become(memory, _settled(state.confirmed, Outcome("failed", tries + event.reason)))
    waiting = msgspec.structs.replace(state, attempt=attempt, got=max(event.got, state.got))
    return msgspec.structs.replace(memory, state=waiting), (Fetch(state.order, attempt),)


def _self_tested(memory: Memory, generation: int, reason: str | None) -> Step:
    state, safe = memory.state, confirmed(memory.state)
    if isinstance(state, Verified) and generation == state.order.generation:
        if reason is None and state.order.role != "serve":
            return _stands_beside(memory, state)
        if reason is None:
            vouched = generation == memory.vouched
            begun = Trial(safe, state.order, state.resumed_at, state.starts, contact=vouched)
            return _become(memory, begun, first=(Activate(state.order),))
        return _become(memory, _settled(safe, Outcome("refused", reason, state.resumed_at)))
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
        first = (lost, *_abandon(state))
        return _become(alone, again, first=first, then=(*test, Fetch(safe, 1)))
    without = msgspec.structs.replace(state, confirmed=None)
    return msgspec.structs.replace(memory, state=without), (lost,)


def _stands_beside(memory: Memory, state: Verified) -> Step:
    safe, order = state.confirmed, state.order
    if safe is None:
        why = f"what {order.version} was to stand beside was lost meanwhile"
        return _become(memory, Empty(Outcome("refused", why, state.resumed_at)))
    beside = Beside(safe, order, state.resumed_at, state.starts)
    return _become(memory, beside, first=_run_beside(order))


def _judged(rules: Rules, memory: Memory, state: Trial, window: WindowClosed) -> Step:
    answers = window.rows + window.errors
    if answers and window.errors / answers > rules.max_error_share:
        why = (
            f"{window.errors} of {answers} inferences failed in a window, "
            f"allowed is a share of {rules.max_error_share:g}"
        )
        end = _settled(state.confirmed, Outcome("reverted", why, state.resumed_at))
        return _become(memory, end, first=_abandon(state))
    healthy = state.healthy + (1 if window.rows else 0)
    judged = msgspec.structs.replace(state, seen=window.number, healthy=healthy)
    return _confirmed_if_due(rules, memory, judged)


def _confirmed_if_due(rules: Rules, memory: Memory, state: Trial) -> Step:
    if state.healthy >= rules.windows and state.contact:
        was = state.confirmed
        if was is not None and was.digest != state.order.digest:
            memory = msgspec.structs.replace(memory, previous=was)
        return _become(memory, Idle(state.order, Outcome("confirmed", "", state.resumed_at)))
    return msgspec.structs.replace(memory, state=state), ()


def _become(
    memory: Memory,
    state: State,
    *,
    first: tuple[Action, ...] = (),
    then: tuple[Action, ...] = (),
) -> Step:
    """The new state, told to the server between what must be done first and what follows."""
    after = msgspec.structs.replace(memory, state=state)
    return after, (*first, standing(after), *then)


def _carried(rules: Rules, memory: Memory, order: Assignment) -> Step:
    """Who brought it stands in for the server's contact; a download that failed begins anew."""
    if (order.generation, order.digest) != (memory.generation, memory.wanted):
        return memory, ()  # it was refused when it was offered
    state = memory.state
    vouched = msgspec.structs.replace(memory, vouched=order.generation)
    if isinstance(state, Trial) and not state.contact:
        return _confirmed_if_due(rules, vouched, msgspec.structs.replace(state, contact=True))
    if isinstance(state, Empty | Idle) and state.outcome.phase == "failed":
        return _become(vouched, Fetching(confirmed(state), order), then=(Fetch(order, 1),))
    return vouched, ()


def stranded(memory: Memory, why: str) -> Memory:
    """For a start that can't write its state: the confirmed model, and no candidate.

    A boot loop could not be counted, so nothing that might begin one is tried.
    """
    end = Outcome("failed", why)
    return msgspec.structs.replace(memory, state=_settled(confirmed(memory.state), end))


def _rolled_back(memory: Memory) -> Step:
    """Give up the candidate, else go back to the model before; it is tested before it answers."""
    state, safe = memory.state, confirmed(memory.state)
    end = Outcome("reverted", BY_HAND)
    if candidate(state) is not None:
        return _become(memory, _settled(safe, end), first=_abandon(state))
    if memory.previous is None:
        return memory, (Notice("rollback-refused", "no earlier version is kept on this device"),)
    back = Idle(memory.previous, end)
    after = msgspec.structs.replace(memory, state=back, previous=None)
    return after, (SelfTest(memory.previous, known=True),)


def _abandon(state: State) -> tuple[Action, ...]:
    """What to do when a candidate is given up for any reason."""
    match state:
        case Fetching(_, order) | Verified(_, order):
            return (Cancel(order.generation),)
        case Trial(safe):
            return (Activate(safe),) if safe else (Stop(),)
        case Beside(_, order):
            return (Shadow(None),) if order.role == "shadow" else ()
        case Empty() | Idle():
            return ()


def _settled(safe: Assignment | None, end: Outcome) -> Empty | Idle:
    return Idle(safe, end) if safe else Empty(end)
