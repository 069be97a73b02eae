"""How long answers take on a device, over HTTP: as it reported, or timed there when asked."""

import re

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool

from fleet_server.answers import NotFoundError, answer, read_body, read_json
from fleet_server.api_types import Measure, Measured
from fleet_server.commands import send
from fleet_server.field_latency import FieldLatency, field_latency
from fleet_server.openapi import gives, takes
from fleet_server.parts import Parts

EVENTS = 200  # the newest, among which its answer is looked for
MAX_BODY = 1024
_ANSWER = re.compile(r"command (\d{1,18}): (.*)", re.DOTALL)
WINDOWS = 100  # the newest, of which a device's latency is told


def latency_routes(router: APIRouter, parts: Parts) -> None:
    """The route."""

    @router.get("/devices/{device}/latency", responses=gives(tuple[FieldLatency, ...]))
    def latency(device: str) -> Response:
        """How long each model's answers took on a device, in its newest windows."""
        if parts.store.device(device) is None:
            raise NotFoundError(f"there is no device {device[:40]!r}")
        return answer(field_latency(device, parts.store.contents_of(device, WINDOWS)))

    @router.post(
        "/devices/{device}/measure", responses=gives(Measured), openapi_extra=takes(Measure)
    )
    async def measure(device: str, request: Request) -> Response:
        """Have a device time answers of its model now, apart from its work."""
        wish = read_json(Measure, await read_body(request, MAX_BODY), "the wish")
        return answer(await run_in_threadpool(_measure, parts, device, wish.runs))

    @router.get("/devices/{device}/measured/{command}", responses=gives(Measured))
    def measured(device: str, command: int) -> Response:
        """What the device answered to the command of that number, or to one that replaced it."""
        said: dict[int, str] = {}
        for event in parts.store.events_of(device, EVENTS):
            if event.name == "measured" and (found := _ANSWER.fullmatch(event.detail)):
                said[int(found[1])] = found[2]
        first = min((number for number in said if number >= command), default=0)
        return answer(Measured(device, command, said.get(first, "")))


def _measure(parts: Parts, device: str, runs: int) -> Measured:
    found = parts.store.device(device)
    if found is None or found.revoked_at is not None:
        raise NotFoundError(f"there is no device {device[:40]!r} that could be asked")
    return Measured(device, send(parts, [device], parts.now(), measure=runs)[device])
