"""PURE: the audit log as a chain. Each entry's digest covers the one before it.

So nobody can change, drop or insert an entry in the middle without changing every digest after it.
Who wants to notice that the end was cut off, keeps the newest digest somewhere else.
"""

import hashlib
from collections.abc import Iterable, Sequence

import msgspec

from edge_sdk.errors import RefusedError

FIRST = "0" * 64


class AuditEntry(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody did something, or was not allowed to.

    Attributes:
        id: counts from 1 without gaps.
        at: Unix seconds, the server's clock.
        actor: a user, a token of one, `console`, or the part of the server that decided.
        action: what, in the words of the API or of the decision.
        target: what it was about, for instance a rollout's id.
        detail: why; for an automatic decision its evidence, as JSON.
        previous: digest of the entry before; of zeros for the first.
        digest: SHA-256 (hex) over everything above.
    """

    id: int
    at: float
    actor: str
    action: str
    target: str
    detail: str
    previous: str
    digest: str = ""


def sealed(entry: AuditEntry) -> AuditEntry:
    """The entry with its digest."""
    return msgspec.structs.replace(entry, digest=_digest(entry))


def verify(entries: Iterable[AuditEntry], head: str = "") -> tuple[int, str]:
    """Follow the chain from its first entry; how many entries, and the last digest.

    Args:
        entries: oldest first, from number 1.
        head: a digest that was noted earlier and must be in the chain.

    Raises:
        RefusedError: an entry was changed, or is missing; or `head` is not there.
    """
    count, last, seen = 0, FIRST, not head
    for entry in entries:
        count += 1
        if entry.id != count:
            raise RefusedError(
                f"entry {count} of the audit log is missing: number {entry.id} is there"
            )
        if entry.previous != last or entry.digest != _digest(entry):
            raise RefusedError(f"entry {count} of the audit log is not what was written")
        last = entry.digest
        seen = seen or last == head
    if not seen:
        raise RefusedError(
            f"digest {head[:16]} is not in the log: its end was cut off or rewritten"
        )
    return count, last


def _digest(entry: AuditEntry) -> str:
    content: Sequence[object] = (
        "edge/1 audit", entry.id, entry.at, entry.actor, entry.action, entry.target, entry.detail,
        entry.previous,
    )  # fmt: skip
    return hashlib.sha256(msgspec.msgpack.encode(content)).hexdigest()
