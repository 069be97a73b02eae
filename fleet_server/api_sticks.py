"""What goes on a USB stick and comes back from one, `/api/v1/sticks`, with a token."""

import msgspec
from fastapi import APIRouter, Depends, Request, Response
from fastapi.concurrency import run_in_threadpool
from starlette.responses import FileResponse

from edge_sdk.formats import from_json
from edge_sdk.stick import MAX_REPORTS, Reports
from fleet_server.answers import HEADERS, NotFoundError, answer, read_body
from fleet_server.asking import by_token
from fleet_server.parts import Parts


class Brought(msgspec.Struct, frozen=True):
    """How many messages of a report file are now in the database, and how many can't be."""

    taken: int
    refused: int


def stick_router(parts: Parts) -> APIRouter:
    """The routes; all they give out is signed or public, none of it secret."""
    asking = Depends(by_token(parts.guard))
    router = APIRouter(prefix="/api/v1/sticks", tags=["operators"], dependencies=[asking])

    @router.get("/orders/{device}")
    def order(device: str) -> Response:
        """A device's signed order."""
        found = parts.store.assignment(device)
        if found is None:
            raise NotFoundError(f"there is no order for {device[:64]!r}")
        return Response(found.envelope, 200, HEADERS, "application/json")

    @router.get("/bundles/{digest}")
    def bundle(digest: str) -> Response:
        """A published bundle."""
        if parts.store.bundle(digest) is None:
            raise NotFoundError(f"no bundle {digest[:64]!r} is published here")
        return FileResponse(parts.registry.path(digest), 200, HEADERS, "application/octet-stream")

    @router.get("/metadata")
    def metadata() -> Response:
        """The trust repository's metadata files by name, as text."""
        folder = parts.registry.repository.folder.metadata
        return answer({path.name: path.read_text() for path in sorted(folder.glob("*.json"))})

    @router.post("/reports")
    async def reports(request: Request) -> Response:
        """Messages that a stick brought back; each is authenticated by its device's key."""
        data = await read_body(request, MAX_REPORTS)
        found = await run_in_threadpool(from_json, Reports, data, "the report file")
        acks = [await parts.posted(one.device, one.kind, one.payload) for one in found.messages]
        taken = sum(bool(ack) for ack in acks)
        return answer(Brought(taken, len(acks) - taken))

    return router
