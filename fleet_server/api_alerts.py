"""What operators do with alerts, over HTTP."""

from collections.abc import Callable

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool

from edge_sdk.errors import InvalidInputError
from fleet_server import alert_life as life
from fleet_server.answers import NotFoundError, answer, read_body, read_json, refuse_if_changed
from fleet_server.api_types import Mute, Page
from fleet_server.fleet import alert_record, alert_row, urgent_first
from fleet_server.openapi import gives, takes
from fleet_server.paging import first_of, page_of, within
from fleet_server.parts import Parts
from fleet_server.records import AlertRecord
from fleet_server.store.listing import AlertFilter
from fleet_server.views import AlertRow

MAX_BODY = 1024


def alert_routes(router: APIRouter, parts: Parts) -> None:
    """`/alerts` and what can be done with one."""

    async def change(
        request: Request, alert_id: str, how: Callable[[AlertRow], AlertRow]
    ) -> Response:
        def unless_changed(row: AlertRow) -> AlertRow:
            refuse_if_changed(request, row)
            return how(row)

        row = await run_in_threadpool(change_alert, parts, alert_id, unless_changed)
        parts.changed()
        return answer(row)

    @router.get("/alerts", responses=gives(Page[AlertRow]))
    def alerts(
        after: str = "", limit: int = 100, state: str = "", kind: str = "", model: str = ""
    ) -> Response:
        """What needs a person, the costliest first, then what is over, the newest first."""
        wanted = AlertFilter(state=state, kind=kind, model=model)
        return answer(alert_page(parts, wanted, after, limit))

    @router.get("/alerts/{alert_id}", responses=gives(AlertRow))
    def one(alert_id: str) -> Response:
        """One alert."""
        return answer(alert_row(find_alert(parts, alert_id)))

    @router.post("/alerts/{alert_id}/acknowledge", responses=gives(AlertRow))
    async def acknowledge(alert_id: str, request: Request) -> Response:
        """A person has seen this alert."""
        return await change(request, alert_id, life.acknowledged)

    @router.post("/alerts/{alert_id}/mute", responses=gives(AlertRow), openapi_extra=takes(Mute))
    async def mute(alert_id: str, request: Request) -> Response:
        """Say nothing of this alert for some hours."""
        wish = read_json(Mute, await read_body(request, MAX_BODY), "the wish")
        now = parts.now()
        return await change(
            request, alert_id, lambda row: life.muted(row, now + wish.hours * 3600, now)
        )

    @router.post("/alerts/{alert_id}/rebaseline", responses=gives(AlertRow))
    async def rebaseline(alert_id: str, request: Request) -> Response:
        """What its devices look like now is how they shall look; their past starts anew."""
        now = parts.now()
        return await change(request, alert_id, lambda row: parts.controls.rebaseline(row, now))


def alert_page(parts: Parts, wanted: AlertFilter, after: str, limit: int) -> Page[AlertRow]:
    """What needs a person, the costliest first, then what ended last.

    Raises:
        InvalidInputError: there is no alert `after`.
    """
    last = parts.store.alert(after) if after else None
    if last is not None and last.closed_at is not None:
        return past_page(parts, wanted, after, limit)
    live = live_page(parts, wanted, after, limit)
    if live.next is not None:
        return live
    over = parts.store.past_alerts(wanted, None, within(limit) - len(live.items) + 1)
    return first_of([*live.items, *map(alert_row, over)], _name, limit)


def live_page(parts: Parts, wanted: AlertFilter, after: str, limit: int) -> Page[AlertRow]:
    """What needs a person; raises as `alert_page`."""
    return page_of(urgent_first(parts.store.open_alerts(wanted)), _name, after, limit)


def past_page(parts: Parts, wanted: AlertFilter, after: str, limit: int) -> Page[AlertRow]:
    """What is over, what ended last first; raises as `alert_page`."""
    last = parts.store.alert(after) if after else None
    if after and (last is None or last.closed_at is None):
        raise InvalidInputError(f"no entry {after[:64]!r} is over: begin without 'after'")
    records = parts.store.past_alerts(wanted, last, within(limit) + 1)
    return first_of([alert_row(record) for record in records], _name, limit)


def _name(row: AlertRow) -> str:
    return row.id


def find_alert(parts: Parts, alert_id: str) -> AlertRecord:
    """Raises NotFoundError."""
    found = parts.store.alert(alert_id)
    if found is None:
        raise NotFoundError(f"there is no alert {alert_id[:40]!r}")
    return found


def change_alert(parts: Parts, alert_id: str, how: Callable[[AlertRow], AlertRow]) -> AlertRow:
    """Do something with an alert. Raises NotFoundError, or what `how` raises."""
    with parts.store.transaction():
        row = how(alert_row(find_alert(parts, alert_id)))
        parts.store.save_alert(alert_record(row, parts.now()))
    return row
