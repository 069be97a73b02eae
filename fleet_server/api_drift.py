"""Drift reports and labels over HTTP."""

import msgspec
from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse

from edge_sdk.errors import FormatError, InvalidInputError
from fleet_server.answers import answer, read_body
from fleet_server.api_types import LabelsTaken, Page
from fleet_server.drift_report import device_row, report_of, states_of, sums_page
from fleet_server.drift_views import DeviceDriftRow, DriftReport, SumsRow
from fleet_server.labels import MAX_LABELS, Label, why_not
from fleet_server.openapi import gives, takes
from fleet_server.paging import page_of
from fleet_server.parts import Parts
from fleet_server.web.drift_file import report_file

MAX_LABEL_BYTES = 8 * 1024 * 1024


def drift_routes(router: APIRouter, parts: Parts) -> None:
    """`/drift/MODEL`, also as a page, and `/labels`."""

    @router.get("/drift/{model}", responses=gives(DriftReport))
    def report(model: str, hours: float = 24.0) -> Response:
        """A model over the last hours: trend, splits, channels against before, devices, alerts."""
        return answer(report_of(parts, model, hours))

    @router.get("/drift/{model}/sums", responses=gives(Page[SumsRow]))
    def sums(model: str, hours: float = 24.0, after: str = "", limit: int = 100) -> Response:
        """A model's windows of the last hours, summed by hour or day: for other tools."""
        return answer(sums_page(parts, model, hours, after, limit))

    @router.get("/drift/{model}/devices", responses=gives(Page[DeviceDriftRow]))
    def devices(model: str, after: str = "", limit: int = 100) -> Response:
        """Every device of a model against its own past."""
        page = page_of(states_of(parts, model), lambda state: state.device, after, limit)
        return answer(Page(tuple(map(device_row, page.items)), page.next))

    @router.get("/drift/{model}/page", response_class=HTMLResponse)
    def page(model: str, hours: float = 24.0) -> Response:
        """The same report as an HTML page that needs nothing else, to be sent or kept."""
        return HTMLResponse(report_file(report_of(parts, model, hours)))

    @router.post("/labels", responses=gives(LabelsTaken), openapi_extra=takes(list[Label]))
    async def label(request: Request) -> Response:
        """Tell what was right for some rows; a later label of a row replaces the earlier one."""
        data = await read_body(request, MAX_LABEL_BYTES)
        return answer(await run_in_threadpool(_keep, parts, data))


def _keep(parts: Parts, data: bytes) -> LabelsTaken:
    try:
        labels = msgspec.json.decode(data, type=list[Label])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FormatError(f"the labels can't be read: {error}") from error
    if len(labels) > MAX_LABELS:
        raise InvalidInputError(f"{len(labels):,} labels at once, {MAX_LABELS:,} are the most")
    now = parts.now()
    known = {device.id for device in parts.store.devices()}
    for number, label in enumerate(labels, start=1):
        reason = why_not(label, now)
        if reason is None and label.device not in known:
            reason = f"no device {label.device} is enrolled"
        if reason is not None:
            raise InvalidInputError(f"label {number}: {reason}; none was kept")
    fresh = parts.store.add_labels(labels, now)
    return LabelsTaken(new=fresh, replaced=len(labels) - fresh)
