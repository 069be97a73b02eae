"""Webhooks, `/api/v1/webhooks`; only administrators see and change them."""

import secrets
from urllib.parse import urlsplit

import msgspec
from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool

from edge_sdk.errors import InvalidInputError
from fleet_server.answers import NotFoundError, answer, read_body, read_json
from fleet_server.api_types import DeliveryRow, HookRow, HookSecret, NewHook, Page
from fleet_server.asking import tell_made
from fleet_server.openapi import gives, takes
from fleet_server.paging import page_of
from fleet_server.parts import Parts
from fleet_server.records import Hook
from fleet_server.webhooks import MAIL, NO_RELAY, check_url

MAX_BODY, MAX_HOOKS, MAX_EVENTS = 64 * 1024, 50, 20


def webhook_routes(router: APIRouter, parts: Parts) -> None:
    """Add the routes to the operators' router, which knows who asks."""
    store = parts.store

    @router.get("/webhooks", responses=gives(Page[HookRow]))
    def hooks(after: str = "", limit: int = 100) -> Response:
        """Every webhook, and how its deliveries go."""
        rows = [_row(hook) for hook in store.hooks()]
        return answer(page_of(rows, lambda row: row.id, after, limit))

    @router.get("/webhooks/{hook}/deliveries", responses=gives(Page[DeliveryRow]))
    def deliveries(hook: str, after: str = "", limit: int = 100) -> Response:
        """The last tries to deliver, newest first, with what the receiver answered."""
        if hook not in {known.id for known in store.hooks()}:
            raise NotFoundError(f"there is no webhook {hook[:40]!r}")
        return answer(page_of(store.deliveries(hook), lambda row: str(row.id), after, limit))

    @router.post(
        "/webhooks", status_code=201, responses=gives(HookSecret, 201), openapi_extra=takes(NewHook)
    )
    async def add(request: Request) -> Response:
        """Make a webhook; the secret that signs its deliveries is shown this once."""
        wish = read_json(NewHook, await read_body(request, MAX_BODY), "the webhook")
        check_url(wish.url)
        by_mail = wish.url.startswith(MAIL)
        if by_mail and not parts.mails:
            raise InvalidInputError(NO_RELAY)
        events = wish.events or (("alert",) if by_mail else ())
        if len(await run_in_threadpool(store.hooks)) >= MAX_HOOKS:
            raise InvalidInputError(f"there are {MAX_HOOKS} webhooks already: remove one")
        if len(wish.events) > MAX_EVENTS or any(not e or " " in e for e in wish.events):
            raise InvalidInputError(f"events are up to {MAX_EVENTS} words without spaces")
        hook = Hook(
            id=f"w{secrets.token_hex(3)}",
            url=wish.url,
            secret=secrets.token_urlsafe(32),
            events=" ".join(events),
            private=wish.private,
            created_at=parts.now(),
        )
        await run_in_threadpool(store.add_hook, hook)
        tell_made(request, f"{hook.id} for {urlsplit(hook.url).hostname or MAIL}")
        return answer(HookSecret(hook.id, hook.secret), 201)

    @router.post("/webhooks/{hook}/remove", responses=gives(HookRow))
    def remove(hook: str) -> Response:
        """End a webhook; answers what it was."""
        with store.transaction():
            found = next((known for known in store.hooks() if known.id == hook), None)
            if found is None:
                raise NotFoundError(f"there is no webhook {hook[:40]!r}")
            store.drop_hook(hook)
        return answer(_row(found))


def _row(hook: Hook) -> HookRow:
    known = msgspec.structs.asdict(hook)
    return HookRow(**{name: known[name] for name in HookRow.__struct_fields__})
