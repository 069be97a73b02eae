"""The life of an alert: opened by a finding, seen, muted, or taken as the new normal. Pure.

open -> acknowledged -> closed      the cause is gone
open | acknowledged -> muted        silent until a time; opens again if the cause is still there
any of these -> re-baselined        what is there now is how it shall be
"""

import hashlib
from collections.abc import Sequence

import msgspec

from edge_sdk.errors import InvalidInputError, RefusedError
from fleet_server.decay import Finding
from fleet_server.views import OVER, AlertRow

GONE_AFTER = 10  # looks in a row without the finding
NAMED = 6  # channels that an alert names
LONGEST_MUTE = 90 * 86400.0
SEVERITIES = ("info", "warning", "critical")  # the worst last


def opened(model: str, found: Finding, now: float) -> AlertRow:
    """A new alert about a finding."""
    name = hashlib.sha256(f"{model} {found.kind} {found.scope}/{now}".encode()).hexdigest()[:6]
    return told(
        AlertRow(
            id=f"a{name}",
            state="open",
            severity=found.severity,
            kind=found.kind,
            scope="",
            title="",
            detail="",
            opened_at=now,
            devices=0,
        ),
        model,
        found,
        now,
    )


def about(found: Finding, known: Sequence[AlertRow]) -> AlertRow | None:
    """The alert that the finding goes on with: a cause may spread from a device to its site."""
    here = set(found.devices)
    shared = {
        alert.id: len(here.intersection(alert.device_ids))
        for alert in known
        if alert.kind == found.kind
    }
    alike = [alert for alert in known if shared.get(alert.id)]
    return max(alike, key=lambda alert: shared[alert.id], default=None)


def told(alert: AlertRow, model: str, found: Finding, now: float) -> AlertRow:
    """The alert as the finding is now; one that was muted until now opens again."""
    state = alert.state
    if state == "muted" and alert.muted_until is not None and alert.muted_until <= now:
        state = "open"
    return msgspec.structs.replace(
        alert,
        state=state,
        severity=found.severity,
        scope=f"{model} {found.scope}",
        title=found.title,
        detail=found.detail,
        devices=len(found.devices),
        of=found.of,
        cause=found.cause,
        action=found.action,
        loss=found.loss,
        since=found.since,
        versions=found.versions,
        channels=tuple(m.channel for m in found.moved[:NAMED]),
        device_ids=found.devices,
    )


def worse(now: AlertRow, before: AlertRow) -> bool:
    """Whether an alert is to be told again: it costs more, or its silence is over."""
    more = SEVERITIES.index(now.severity) > SEVERITIES.index(before.severity)
    return more or before.state == "muted"


def acknowledged(alert: AlertRow) -> AlertRow:
    """A person has seen it. Raises RefusedError if it is over."""
    _refuse_if_over(alert, "acknowledge")
    return msgspec.structs.replace(alert, state="acknowledged", muted_until=None)


def muted(alert: AlertRow, until: float, now: float) -> AlertRow:
    """Silent until a time.

    Raises:
        RefusedError: it is over.
        InvalidInputError: the time is past, or too far away to be remembered.
    """
    _refuse_if_over(alert, "mute")
    if not now < until <= now + LONGEST_MUTE:
        raise InvalidInputError("mute an alert for some time to come, 90 days at most")
    return msgspec.structs.replace(alert, state="muted", muted_until=until)


def rebaselined(alert: AlertRow) -> AlertRow:
    """What is there now is how it shall be. Raises RefusedError if it is over."""
    _refuse_if_over(alert, "re-baseline")
    return msgspec.structs.replace(alert, state="re-baselined", muted_until=None)


def closed(alert: AlertRow) -> AlertRow:
    """The cause is gone."""
    return msgspec.structs.replace(alert, state="closed", muted_until=None)


def _refuse_if_over(alert: AlertRow, what: str) -> None:
    if alert.state in OVER:
        raise RefusedError(f"alert {alert.id} is {alert.state}: there is nothing to {what}")
