"""The alerts: what needs a person, and what did; each with what can be done about it."""

from typing import Literal
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import RedirectResponse

from fleet_server import alert_life as life
from fleet_server.api_alerts import change_alert, live_page, past_page
from fleet_server.asking import Required, caller_of
from fleet_server.decay import DAY
from fleet_server.parts import Parts
from fleet_server.store.listing import AlertFilter
from fleet_server.web.frame import HEADERS, Frame

ROWS = 25
Change = Literal["acknowledge", "mute", "rebaseline"]


def alert_pages(frame: Frame, parts: Parts, required: Required) -> APIRouter:
    """The page `/alerts`, and what its buttons do."""
    router = APIRouter(include_in_schema=False, dependencies=[Depends(required)])

    @router.get("/alerts")
    def alerts(request: Request, show: str = "", kind: str = "", after: str = "") -> Response:
        over, wanted, store = show == "over", AlertFilter(kind=kind), parts.store
        page = (past_page if over else live_page)(parts, wanted, after, ROWS)
        total = store.past_alert_count(wanted) if over else len(store.open_alerts(wanted))
        asked = {name: value for name, value in (("show", show), ("kind", kind)) if value}
        return frame.page(
            request,
            "alerts_page.html",
            now=parts.now(),
            rows=page.items,
            total=total,
            over=over,
            kind=kind,
            kinds=store.alert_kinds(),
            first=urlencode(asked) if after else None,
            more=urlencode({**asked, "after": page.next}) if page.next else "",
            may_change=caller_of(request).may("alerts"),
        )

    @router.post("/alerts/{alert_id}/{do}")
    def change(alert_id: str, do: Change) -> Response:
        act(parts, alert_id, do)
        return RedirectResponse("/alerts", 303, HEADERS)

    return router


def act(parts: Parts, alert_id: str, do: Change) -> None:
    """Do what a button says; raises as `change_alert` does."""
    now = parts.now()
    match do:
        case "acknowledge":
            change_alert(parts, alert_id, life.acknowledged)
        case "mute":
            change_alert(parts, alert_id, lambda row: life.muted(row, now + DAY, now))
        case "rebaseline":
            change_alert(parts, alert_id, lambda row: parts.controls.rebaseline(row, now))
    parts.changed()
