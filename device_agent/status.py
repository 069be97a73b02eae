"""How a device stands, read from its state folder; the agent may be running or not."""

from pathlib import Path

import msgspec

from device_agent.ledger import size
from device_agent.store import Store
from device_agent.transitions import standing
from device_agent.update_states import Trial, confirmed
from edge_sdk.errors import InvalidInputError
from edge_sdk.messages import Assignment, Phase, Running


class Status(msgspec.Struct, frozen=True):
    """What the folder says.

    Attributes:
        running: the model that answers while the agent runs: the one on trial, else the confirmed.
        previous: kept on the disk for 'edge agent rollback'.
        generation, phase, reason: of the last order.
        outbox_messages, outbox_bytes: what the server has not confirmed.
    """

    device: str
    enrolled: bool
    running: Running | None
    confirmed: Running | None
    previous: Running | None
    generation: int
    phase: Phase
    reason: str
    outbox_messages: int
    outbox_bytes: int


def read_status(folder: Path) -> Status:
    """Raises InvalidInputError if no agent was ever started there."""
    if not (folder / "device.json").exists():
        raise InvalidInputError(f"no agent was started yet with the state folder {folder}")
    store = Store(folder)
    key, (memory, trouble) = store.key(), store.load()
    now, safe, state = standing(memory), confirmed(memory.state), memory.state
    active = state.order if isinstance(state, Trial) else safe
    messages, total = size(folder / "outbox.sqlite")
    return Status(
        device=key.device if key else "",
        enrolled=store.enrolment() is not None,
        running=_named(active),
        confirmed=_named(safe),
        previous=_named(memory.previous),
        generation=now.generation,
        phase=now.outcome.phase,
        reason=now.outcome.reason or trouble,
        outbox_messages=messages,
        outbox_bytes=total,
    )


def _named(order: Assignment | None) -> Running | None:
    return Running(order.model, order.version, order.digest) if order else None


def in_words(status: Status) -> str:
    """The same for people."""
    running = status.running
    why = f" ({status.reason})" if status.reason else ""
    return "\n".join(
        (
            f"device   {status.device}{'' if status.enrolled else ' (not enrolled yet)'}",
            f"running  {f'{running.model} {running.version}' if running else 'nothing'}",
            *([f"before   {before.model} {before.version}"] if (before := status.previous) else []),
            f"order    {status.generation}: {status.phase}{why}",
            f"outbox   {status.outbox_messages} messages, {status.outbox_bytes:,} bytes",
        )
    )
