"""What operators do with alerts, over HTTP."""

from collections.abc import Callable

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool

from fleet_server import alert_life as life
from fleet_server.answers import NotFoundError, answer, read_body, read_json
from fleet_server.api_types import Mute
from fleet_server.fleet import alert_record, alert_row, alert_rows
from fleet_server.openapi import gives, takes
from fleet_server.parts import Parts
from fleet_server.views import AlertRow

MAX_BODY = 1024


def alert_routes(router: APIRouter, parts: Parts) -> None:
    """`/alerts` and what can be done with one."""

    async def change(alert_id: str, how: Callable[[AlertRow], AlertRow]) -> Response:
        row = await run_in_threadpool(change_alert, parts, alert_id, how)
        parts.changed()
        return answer(row)

    @router.get("/alerts", responses=gives(tuple[AlertRow, ...]))
    def alerts() -> Response:
        """What needs a person, the costliest first, then what was over last."""
        return answer(alert_rows(parts.store.alerts()))

    @router.post("/alerts/{alert_id}/acknowledge", responses=gives(AlertRow))
    async def acknowledge(alert_id: str) -> Response:
        """A person has seen this alert."""
        return await change(alert_id, life.acknowledged)

    @router.post("/alerts/{alert_id}/mute", responses=gives(AlertRow), openapi_extra=takes(Mute))
    async def mute(alert_id: str, request: Request) -> Response:
        """Say nothing of this alert for some hours."""
        wish = read_json(Mute, await read_body(request, MAX_BODY), "the wish")
        now = parts.now()
        return await change(alert_id, lambda row: life.muted(row, now + wish.hours * 3600, now))

    @router.post("/alerts/{alert_id}/rebaseline", responses=gives(AlertRow))
    async def rebaseline(alert_id: str) -> Response:
        """What its devices look like now is how they shall look; their past starts anew."""
        now = parts.now()
        return await change(alert_id, lambda row: parts.controls.rebaseline(row, now))


def change_alert(parts: Parts, alert_id: str, how: Callable[[AlertRow], AlertRow]) -> AlertRow:
    """Do something with an alert. Raises NotFoundError, or what `how` raises."""
    with parts.store.transaction():
        found = parts.store.alert(alert_id)
        if found is None:
            raise NotFoundError(f"there is no alert {alert_id[:40]!r}")
        row = how(alert_row(found))
        parts.store.save_alert(alert_record(row, parts.now()))
    return row
