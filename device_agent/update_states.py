"""What an agent remembers of its update: the state, and the orders it is about. No I/O."""

import msgspec

from edge_sdk.messages import Assignment, Phase


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
