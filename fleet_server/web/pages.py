"""The overview, and the stream that tells every page to look again."""

import asyncio
from collections.abc import AsyncIterator, Callable

from fastapi import APIRouter, Depends, Request, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent

from fleet_server.asking import Required
from fleet_server.views import Overview
from fleet_server.web.frame import Frame

PAUSE_SECONDS = 0.5  # between two calls to look again: a busy fleet changes all the time


def overview_router(
    frame: Frame,
    look: Callable[[], Overview],
    rings: Callable[[], AsyncIterator[int]],
    required: Required,
) -> APIRouter:
    """The pages `/` and `/events`.

    Args:
        frame: makes pages of templates.
        look: the fleet as it is now; called in a worker thread.
        rings: a number at each change until the server stops; iterated on the event loop.
        required: lets in whoever is logged in.
    """
    router = APIRouter(include_in_schema=False, dependencies=[Depends(required)])

    @router.get("/")
    def home(request: Request) -> Response:
        return frame.page(request, "overview.html", overview=look())

    @router.get("/events", response_class=EventSourceResponse)
    async def events() -> AsyncIterator[ServerSentEvent]:
        # The page may be older than this connection, so its first look is due at once.
        yield ServerSentEvent(event="changed", raw_data="0")
        async for number in rings():
            yield ServerSentEvent(event="changed", raw_data=str(number))
            await asyncio.sleep(PAUSE_SECONDS)

    return router
