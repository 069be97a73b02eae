"""What was found out about a candidate on other runtimes than LiteRT, as types. Pure."""

import msgspec


class Elsewhere(msgspec.Struct, frozen=True, kw_only=True):
    """What a candidate did on another runtime.

    Attributes:
        agreement: share of rows to which it gives LiteRT's answer.
        arena_bytes: that TFLite Micro took, as it records itself (on a 64-bit host).
        problem: why there is no answer, in words; empty if there is.
        unchecked: that runtime is not here: nothing was tried, and this says how to have it.
    """

    agreement: float = 0.0
    arena_bytes: int | None = None
    problem: str = ""
    unchecked: str = ""


class Fallback(msgspec.Struct, frozen=True):
    """One operator that would run on the host's CPU, and why."""

    op: str
    name: str
    reason: str
