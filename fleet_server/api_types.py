"""What travels over the operator API besides the views; light, since the command line loads it."""

from typing import Any

import msgspec

from fleet_server.views import RolloutRow


class NewRollout(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Bring a version to the fleet; `strategy` is {"name": ...} of a shipped one or a whole one."""

    model: str
    version: str
    strategy: dict[str, Any]


class Created(msgspec.Struct, frozen=True):
    """What was made."""

    id: str


class DecisionRow(msgspec.Struct, frozen=True):
    """One decision and its evidence, as the controller wrote it down."""

    at: float
    decision: msgspec.Raw


class RolloutStory(msgspec.Struct, frozen=True):
    """A rollout and its decisions, newest first."""

    rollout: RolloutRow
    decisions: tuple[DecisionRow, ...]


class NewEnrolmentKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """By one key, `uses` devices may join within `hours`; with `device` that one, with any key."""

    uses: int = 1
    hours: float = 24.0
    note: str = ""
    device: str = ""


class EnrolmentToken(msgspec.Struct, frozen=True):
    """The token's text; the server can't show it again."""

    token: str
    expires: float


class Problem(msgspec.Struct, frozen=True):
    """RFC 9457: `detail` is the sentence for people."""

    title: str
    status: int
    detail: str
    type: str = "about:blank"
