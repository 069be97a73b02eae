"""How long answers take on a device, over HTTP."""

from fastapi import APIRouter, Response

from fleet_server.answers import NotFoundError, answer
from fleet_server.field_latency import FieldLatency, field_latency
from fleet_server.openapi import gives
from fleet_server.parts import Parts

WINDOWS = 100  # the newest, of which a device's latency is told


def latency_routes(router: APIRouter, parts: Parts) -> None:
    """The route."""

    @router.get("/devices/{device}/latency", responses=gives(tuple[FieldLatency, ...]))
    def latency(device: str) -> Response:
        """How long each model's answers took on a device, in its newest windows."""
        if parts.store.device(device) is None:
            raise NotFoundError(f"there is no device {device[:40]!r}")
        return answer(field_latency(device, parts.store.contents_of(device, WINDOWS)))
