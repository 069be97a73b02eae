"""From one state to the next: what is told, and what must be done on the way. No I/O."""

import msgspec

from device_agent.update_events import Action, Activate, Cancel, Shadow, Step, Stop, Tell
from device_agent.update_states import (
    Beside,
    Empty,
    Fetching,
    Idle,
    Memory,
    Outcome,
    State,
    Trial,
    Verified,
    confirmed,
)
from edge_sdk.messages import Assignment, Phase


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


def stranded(memory: Memory, why: str) -> Memory:
    """For a start that can't write its state: the confirmed model, and no candidate.

    A boot loop could not be counted, so nothing that might begin one is tried.
    """
    end = Outcome("failed", why)
    return msgspec.structs.replace(memory, state=settled(confirmed(memory.state), end))


def become(
    memory: Memory,
    state: State,
    *,
    first: tuple[Action, ...] = (),
    then: tuple[Action, ...] = (),
) -> Step:
    """The new state, told to the server between what must be done first and what follows."""
    after = msgspec.structs.replace(memory, state=state)
    return after, (*first, standing(after), *then)


def settled(safe: Assignment | None, end: Outcome) -> Empty | Idle:
    """An order has ended so: what is confirmed goes on, if anything is."""
    return Idle(safe, end) if safe else Empty(end)


def abandon(state: State) -> tuple[Action, ...]:
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


def same_model(one: Assignment, other: Assignment) -> bool:
    """By name too: an order that gives a known digest another name must face its manifest."""
    names = ("digest", "model", "version", "profile")
    return all(getattr(one, name) == getattr(other, name) for name in names)
