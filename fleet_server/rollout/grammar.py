"""The one grammar of every strategy: phases that widen, gates that judge, limits on the way.

A phase reaches the first `share` (or `count`) of the devices in an order that was fixed before the
start, gives them the version in a `role`, and goes on once enough of them have it and no gate
objects. All at once, canary, staged, blue-green, shadow and A/B differ in their phases only.
"""

import itertools
import re
from typing import Literal

import msgspec

from edge_sdk.errors import InvalidInputError
from edge_sdk.messages import DeliveryPolicy, Role
from fleet_server.evidence.gates import MEASURES, RATIOS, Gate

MAX_PHASES, MAX_GATES = 20, 20
_WINDOW = re.compile(r"([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d")


class Phase(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One step of a rollout.

    Attributes:
        share: of the devices, 0..1; cumulative. 0 only gathers their past.
        count: devices in place of a share; cumulative; 0 to go by the share.
        role: what the devices are told to do with the version.
        soak_seconds: how long it lasts at least after enough devices have the version.
        min_windows: windows a device needs after the phase began (for share 0: before it ends).
        min_reach: share of the devices that must have confirmed and, if judged, sent their
            windows; those that failed, are lost or can't be reached do not count.
        max_wait_seconds: after this `on_timeout` happens, with the reason.
        judged: whether the gates are asked.
        approval: whether a person other than who started the rollout must say yes before it begins.
    """

    name: str
    share: float = 0.0
    count: int = 0
    role: Role = "serve"
    soak_seconds: float = 0.0
    min_windows: int = 5
    min_reach: float = 0.9
    max_wait_seconds: float = 86_400
    on_timeout: Literal["hold", "proceed", "roll back"] = "hold"
    judged: bool = True
    approval: bool = False

    @property
    def reaches_nobody(self) -> bool:
        return not (self.share or self.count)


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How fast devices are told, and how they may fetch; 0 or "" is no limit.

    Attributes:
        per_minute: orders given in any minute.
        in_flight, in_flight_per_site: devices that are updating at one time.
        bytes_per_second: of bundles that are ordered, over the whole fleet, on average.
        device_bytes_per_second, window, metered: told to each device with its order.
        valid_hours: after which an order that was not begun is void.
        quarantine_after: failures of one device within 24 hours after which it is left alone until
            they are older, and waited for by nobody.
    """

    per_minute: int = 0
    in_flight: int = 0
    in_flight_per_site: int = 0
    bytes_per_second: int = 0
    device_bytes_per_second: int = 0
    window: str = ""
    metered: bool = True
    valid_hours: float = 0.0
    quarantine_after: int = 3

    def policy(self, now: float) -> DeliveryPolicy:
        """What an order given now says of them."""
        return DeliveryPolicy(
            not_after=now + 3600 * self.valid_hours if self.valid_hours else 0.0,
            rate_limit_bytes=self.device_bytes_per_second,
            window=self.window,
            metered=self.metered,
        )


class Strategy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Phases, gates and limits, and how many failed devices are too many.

    Attributes:
        max_failed_share: of the devices of a phase that answered.
        lost_after_seconds: a device silent for so long after it was heard with its order is
            lost, and counts as failed; no sooner than after 5 of its windows.
        unreached_after_seconds: a device not heard since its order, and silent for so long, is
            not waited for; no sooner than after 3 windows.
        watch_seconds: how long after its promotion a version may still be called back in question.
    """

    name: str
    phases: tuple[Phase, ...]
    gates: tuple[Gate, ...] = ()
    limits: Limits = Limits()
    max_failed_share: float = 0.1
    lost_after_seconds: float = 900
    unreached_after_seconds: float = 60
    watch_seconds: float = 86_400


def check(strategy: Strategy) -> None:
    """Raises InvalidInputError for a strategy that can't be followed, with every reason."""
    problems = [*_shape(strategy), *_numbers(strategy)]
    problems += [f"gate {gate.metric}: {why}" for gate in strategy.gates if (why := _why_not(gate))]
    window = strategy.limits.window
    if window and (not _WINDOW.fullmatch(window) or len(set(window.split("-"))) < 2):
        problems.append(f"window {window[:40]!r} must look like 02:00-04:00")
    if problems:
        raise InvalidInputError(f"strategy {strategy.name[:40]!r}: {'; '.join(problems)}")


def _why_not(gate: Gate) -> str:
    """Why a gate can't be asked; "" if it can."""
    kind = MEASURES[gate.metric][1]
    if kind in RATIOS and not gate.margin > 0:
        return "the margin is a ratio, above 0"
    if kind == "gap" and gate.margin < 0:
        return "the margin is how much the gap may grow, 0 or above"
    if kind == "hazard" and (gate.must == "prove" or gate.compares != "control"):
        return "it is rare, so it needs a control and can only hold: nothing proves its absence"
    if gate.too_good and (gate.too_good < 0 or kind in (*RATIOS, "gap")):
        return "too_good is above 0, of a metric that is no ratio and no gap"
    return ""


def _shape(strategy: Strategy) -> list[str]:
    phases = strategy.phases
    if not 1 <= len(phases) <= MAX_PHASES or len(strategy.gates) > MAX_GATES:
        return [f"it needs 1 to {MAX_PHASES} phases and at most {MAX_GATES} gates"]
    problems = []
    last = phases[-1]
    if last.share != 1 or last.count or last.role != "serve":
        problems.append("the last phase must reach everyone (share 1) to serve")
    serving = [phase for phase in phases if phase.role == "serve" and not phase.count]
    if any(a.share > b.share for a, b in itertools.pairwise(serving)):
        problems.append("a phase that serves can't reach fewer devices than one before it")
    if len({phase.name for phase in phases}) < len(phases):
        problems.append("two phases have the same name")
    if phases[0].judged and not phases[0].reaches_nobody and strategy.gates:
        problems.append("with gates the first phase must reach nobody, to gather the devices' past")
    return problems


def _numbers(strategy: Strategy) -> list[str]:
    problems = []
    for phase in strategy.phases:
        if not (0 <= phase.share <= 1 and 0 <= phase.min_reach <= 1 and phase.count >= 0):
            problems.append(f"phase {phase.name[:40]!r}: shares are 0 to 1, counts 0 or above")
        if phase.min_windows < 1 or min(phase.soak_seconds, phase.max_wait_seconds) < 0:
            problems.append(f"phase {phase.name[:40]!r}: windows are 1 or above, times 0 or above")
    limits = msgspec.structs.asdict(strategy.limits)
    low = [name for name, value in limits.items() if not isinstance(value, str) and value < 0]
    if low:
        problems.append(f"{', '.join(low)} must be 0 (no limit) or above")
    times = (
        strategy.lost_after_seconds,
        strategy.unreached_after_seconds,
        strategy.watch_seconds,
    )
    if min(times) < 0 or not 0 <= strategy.max_failed_share <= 1:
        problems.append("times are 0 or above and max_failed_share is 0 to 1")
    return problems
