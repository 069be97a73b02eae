"""What the update machine is told, and what it says shall be done. No I/O.

Events name the order (its generation) they are about, so late and doubled ones change nothing.
"""

import msgspec

from device_agent.update_states import Memory, Outcome
from edge_sdk.messages import Assignment


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
