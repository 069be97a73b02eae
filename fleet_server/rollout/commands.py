"""What people may do to a rollout, and when; each is a decision with a name on it. Pure."""

from msgspec.structs import replace

from edge_sdk.errors import InvalidInputError, RefusedError
from fleet_server.rollout.engine import advance_to_next, begin
from fleet_server.rollout.state import LIVE, OPEN, Action, Decision, Order, Rollout, Status


def obey(rollout: Rollout, order: Order) -> tuple[Rollout, Decision]:
    """Carry a person's order out.

    Raises:
        RefusedError: the rollout is in no state for it, or the second person is the first one.
        InvalidInputError: nothing to retry.
    """
    match order.command:
        case "pause":
            _must(rollout, order, ("running", "held", "scheduled"))
            after = replace(rollout, status="paused", resumes=rollout.status, paused_at=order.at)
            return _decided(after, "pause", order)
        case "resume":
            return _resume(rollout, order)
        case "approve":
            return _approve(rollout, order)
        case "abort":
            _must(rollout, order, OPEN)
            return _end(rollout, "aborted", "abort", order)
        case "roll back":
            _must(rollout, order, (*OPEN, "promoted", "aborted"))
            return _end(rollout, "rolled back", "roll back", order)
        case "supersede":
            _must(rollout, order, OPEN)
            return _end(rollout, "superseded", "supersede", order)
        case "retry":
            return _retry(rollout, order)


def _resume(rollout: Rollout, order: Order) -> tuple[Rollout, Decision]:
    """After a pause go on; a promotion that was called in question stands."""
    _must(rollout, order, ("paused", "reopened"))
    if rollout.status == "reopened":
        stands = replace(rollout, status="promoted", reason=_words(order), watched=True)
        return _decided(stands, "resume", order)
    lasted = rollout.paused_seconds + order.at - rollout.paused_at
    after = replace(rollout, status=rollout.resumes, paused_seconds=lasted)
    return _decided(after, "resume", order)


def _approve(rollout: Rollout, order: Order) -> tuple[Rollout, Decision]:
    _must(rollout, order, ("to approve",))
    if order.by == rollout.by:
        raise RefusedError(
            f"{order.by or 'whoever asks'} started rollout {rollout.id}: "
            "its approval must come from somebody else"
        )
    first = rollout.current if rollout.treated_since is None and rollout.phase == 0 else None
    if first is not None and first.approval and first.name not in rollout.approved:
        agreed = {**rollout.approved, first.name: order.by}
        return _decided(
            begin(replace(rollout, approved=agreed, reason=""), order.at), "approve", order
        )
    following = rollout.strategy.phases[rollout.phase + 1]
    agreed = {**rollout.approved, following.name: order.by}
    after = advance_to_next(replace(rollout, approved=agreed), order.at)
    return _decided(after, "approve", order)


def _retry(rollout: Rollout, order: Order) -> tuple[Rollout, Decision]:
    _must(rollout, order, (*LIVE, "promoted", "reopened"))
    if not order.devices:
        raise InvalidInputError(f"no device of rollout {rollout.id} has failed: nothing to retry")
    again = {**rollout.retried, **order.devices}
    return _decided(replace(rollout, retried=again), "retry", order)


def _must(rollout: Rollout, order: Order, wanted: tuple[Status, ...]) -> None:
    if rollout.status not in wanted:
        raise RefusedError(
            f"rollout {rollout.id} is {rollout.status}: it can't {order.command} now"
        )


def _end(
    rollout: Rollout, status: Status, action: Action, order: Order
) -> tuple[Rollout, Decision]:
    ended = replace(rollout, status=status, reason=_words(order), ended_at=order.at)
    return _decided(ended, action, order)


def _decided(rollout: Rollout, action: Action, order: Order) -> tuple[Rollout, Decision]:
    return rollout, Decision(
        at=order.at,
        action=action,
        phase=rollout.current.name,
        reason=_words(order),
        evidence=rollout.judged if action in ("abort", "roll back") else (),
        order=order,
    )


def _words(order: Order) -> str:
    who = f"by {order.by}" if order.by else "by the operator"
    what = f"{len(order.devices)} devices once more, " if order.command == "retry" else ""
    return f"{what}{who}{f': {order.reason}' if order.reason else ''}"
