"""The fleet's history over HTTP: page by page, or as it happens (server-sent events)."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Annotated

import msgspec
from fastapi import APIRouter, Header, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.sse import EventSourceResponse, ServerSentEvent

from fleet_server.answers import answer
from fleet_server.api_types import HistoryRow, Page
from fleet_server.changes import Changes
from fleet_server.openapi import gives
from fleet_server.paging import LONGEST_PLACE, first_of, place_of, within
from fleet_server.parts import Parts
from fleet_server.records import EventRecord
from fleet_server.store.listing import EventFilter
from fleet_server.webhooks import history_row

AT_ONCE = 100
PAUSE_SECONDS = 0.2  # between two looks: a busy fleet changes all the time


def history_routes(router: APIRouter, parts: Parts, changes: Changes) -> None:
    """`/events`, and `/events/stream`."""
    store = parts.store

    @router.get("/events", responses=gives(Page[HistoryRow]))
    def events(after: str = "", limit: int = 100, device: str = "", name: str = "") -> Response:
        """What happened, newest first; `name` is how the events' names begin."""
        before = place_of(after)
        wanted = EventFilter(device=device, name=name)
        rows = [history_row(e) for e in store.event_page(wanted, before, within(limit) + 1)]
        return answer(first_of(rows, lambda row: str(row.id), limit))

    @router.get("/events/stream", response_class=EventSourceResponse)
    async def stream(
        last_event_id: Annotated[str, Header(max_length=LONGEST_PLACE)] = "",
    ) -> AsyncIterator[ServerSentEvent]:
        """What happens from now on, or behind `Last-Event-ID`, until the server stops."""
        newest = await run_in_threadpool(store.event_page, EventFilter(), 0, 1)
        seen = newest[0].id if newest else 0
        if last_event_id.isdecimal():
            seen = min(seen, int(last_event_id))
        rings = changes.rings()
        yield ServerSentEvent(comment="listening")
        while True:
            found: Sequence[EventRecord] = await run_in_threadpool(
                store.events_after, seen, AT_ONCE
            )
            for event in found:
                seen = event.id
                data = msgspec.json.encode(history_row(event)).decode()
                yield ServerSentEvent(event=_word(event.name), raw_data=data, id=str(seen))
            if len(found) < AT_ONCE:
                await asyncio.sleep(PAUSE_SECONDS)
                if await anext(rings, None) is None:
                    return


def _word(name: str) -> str:
    """An event's name as one line: devices choose theirs."""
    return " ".join(name.split()) or "event"
