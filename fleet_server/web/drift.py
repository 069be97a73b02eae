"""The drift pages: models by what their alerts cost, and the report of one; also as a file."""

from urllib.parse import quote

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import RedirectResponse

from fleet_server.asking import Required, caller_of
from fleet_server.drift_report import report_of
from fleet_server.fleet import urgent_first
from fleet_server.parts import Parts
from fleet_server.web.alert_pages import Change, act
from fleet_server.web.drift_file import draws
from fleet_server.web.frame import Frame

HOURS = 72.0


def drift_router(frame: Frame, parts: Parts, required: Required) -> APIRouter:
    """The pages `/drift` and `/drift/MODEL`."""
    router = APIRouter(include_in_schema=False, dependencies=[Depends(required)])
    draws(frame.jinja)

    @router.get("/drift")
    def models(request: Request) -> Response:
        rows = urgent_first(parts.store.open_alerts())
        names = sorted({bundle.model for bundle in parts.store.bundles()})
        found = {n: [r for r in rows if r.scope.startswith(f"{n} ")] for n in names}
        urgent = {row.scope.partition(" ")[0]: i for i, row in reversed(list(enumerate(rows)))}
        order = sorted(found, key=lambda name: (urgent.get(name, len(rows)), name))
        return frame.page(
            request, "drift_models.html", models=[(name, found[name]) for name in order]
        )

    @router.get("/drift/{model}")
    def report(request: Request, model: str, hours: float = HOURS) -> Response:
        may_change = caller_of(request).may("alerts")
        found = report_of(parts, model, hours)
        return frame.page(request, "drift.html", r=found, may_change=may_change)

    @router.post("/drift/{model}/alerts/{alert_id}/{do}")
    def change(model: str, alert_id: str, do: Change) -> Response:
        act(parts, alert_id, do)
        return RedirectResponse(f"/drift/{quote(model)}", 303)

    return router
