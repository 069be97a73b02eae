"""Other ways for devices, `/device/v1`: messages without MQTT, and bundles as deltas."""

import re
from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from starlette.responses import FileResponse

from edge_sdk.messages import MAX_MESSAGE
from edge_sdk.topics import Upward
from fleet_server.answers import HEADERS, NotFoundError, read_body
from fleet_server.parts import Parts

_DIGEST = re.compile(r"[0-9a-f]{64}")


def delivery_router(parts: Parts, caller: Callable[..., str]) -> APIRouter:
    """The routes; `caller` says which device asks, or refuses it."""
    router = APIRouter()
    Caller = Annotated[str, Depends(caller)]  # noqa: N806 - a type

    @router.post("/messages/{kind}")
    async def message(kind: Upward, request: Request, device: Caller) -> Response:
        """A sealed message of a device that can't reach MQTT; answers its acknowledgement."""
        ack = await parts.posted(device, kind, await read_body(request, MAX_MESSAGE))
        return Response(ack, 200 if ack else 204, HEADERS, "application/octet-stream")

    @router.get("/deltas/{old}/{new}", dependencies=[Depends(caller)])
    def delta(old: str, new: str) -> Response:
        """What makes bundle `new` of bundle `old`; 404 if that is no shorter than the whole."""
        made = None
        if _DIGEST.fullmatch(old) and _DIGEST.fullmatch(new) and parts.registry.offered(new):
            made = parts.registry.delta(old, new)
        if made is None:
            raise NotFoundError("there is no delta between these two: fetch the bundle")
        return FileResponse(made, 200, HEADERS, "application/octet-stream")

    return router
