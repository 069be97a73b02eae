"""Requests that may be sent again, answers that need not be: Idempotency-Key, ETag, If-None-Match.

A client that does not know whether its POST arrived sends it again with the same Idempotency-Key:
it is carried out once, and answered alike. A key belongs to its token and to what was first asked
with it. Answers that hold a secret are never kept: there the second request is refused in words.
"""

import hashlib
import hmac
from collections.abc import Callable

from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint

from fleet_server.answers import HEADERS, problem, tag_of
from fleet_server.records import Repeated
from fleet_server.store import Store

KEPT_SECONDS = 24 * 3600.0
MAX_KEY = 255
MAX_REMEMBERED = 64 * 1024
ONCE = (
    "this was done already, and its answer held a secret, which is shown once: end what was made "
    "then, and ask again with another Idempotency-Key"
)
SECRETS = {f"/api/v1/{one}" for one in ("tokens", "enrolment-keys", "webhooks", "login-links")}


def allow_repeating(app: FastAPI, store: Store, now: Callable[[], float]) -> None:
    """For everything under `/api/v1`."""
    under_way: set[str] = set()

    async def seen(request: Request, follow: RequestResponseEndpoint) -> Response:
        if not request.url.path.startswith("/api/v1/"):
            return await follow(request)
        key = request.headers.get("idempotency-key", "")
        if request.method == "GET":
            return await _tagged(request, follow)
        if request.method != "POST" or not key or not _who(request):
            return await follow(request)
        if len(key) > MAX_KEY or not key.isprintable():
            return problem(400, f"an Idempotency-Key is 1 to {MAX_KEY} printable characters")
        name = _name(request, key)
        if name in under_way:
            return problem(409, "a request with this Idempotency-Key is still under way")
        under_way.add(name)
        try:
            return await _once(request, follow, store, now())
        finally:
            under_way.discard(name)

    app.add_middleware(BaseHTTPMiddleware, dispatch=seen)


async def _tagged(request: Request, follow: RequestResponseEndpoint) -> Response:
    answer = await follow(request)
    if answer.status_code != 200 or answer.media_type == "text/event-stream":
        return answer
    if "json" not in answer.headers.get("content-type", ""):
        return answer
    body = await _body(answer)
    tag = tag_of(body)
    headers = {**HEADERS, "etag": tag}
    known = [one.strip() for one in request.headers.get("if-none-match", "").split(",")]
    if tag in known:
        return Response(status_code=304, headers=headers)
    return Response(body, 200, headers, answer.headers["content-type"])


async def _once(
    request: Request, follow: RequestResponseEndpoint, store: Store, now: float
) -> Response:
    sent = await request.body()
    key = _name(request, request.headers["idempotency-key"])
    # By the token, which is stored nowhere: what was sent may be a password.
    asked = hmac.digest(_who(request), f"{request.url.path}\n".encode() + sent, "sha256").hex()
    before = await run_in_threadpool(store.repeated, key)
    if before is not None:
        if before.question != asked:
            return problem(422, "this Idempotency-Key was used for another request")
        if not before.body:
            return problem(409, ONCE)
        return Response(before.body, before.status, HEADERS, "application/json")
    answer = await follow(request)
    if not 200 <= answer.status_code < 300:
        return answer  # nothing was done: it may be tried again
    body = await _body(answer)
    if len(body) <= MAX_REMEMBERED:
        shown = b"" if request.url.path in SECRETS else body
        kept = Repeated(key=key, question=asked, status=answer.status_code, body=shown, at=now)
        await run_in_threadpool(store.remember, kept, now - KEPT_SECONDS)
    return Response(body, answer.status_code, dict(answer.headers))


def _name(request: Request, key: str) -> str:
    """The key as one of its token's."""
    return hashlib.sha256(_who(request) + f"\n{key}".encode()).hexdigest()


def _who(request: Request) -> bytes:
    """The token; empty for a name with a password, of which nothing may be stored."""
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip().encode() if kind.lower() == "bearer" else b""


async def _body(answer: Response) -> bytes:
    return b"".join([chunk async for chunk in answer.body_iterator])  # type: ignore[attr-defined]
