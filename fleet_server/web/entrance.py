"""The way in: a link that opens once, or a name with a password; and the first administrator."""

from typing import Annotated

from fastapi import APIRouter, Cookie, Depends, Form, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import RedirectResponse
from starlette.exceptions import HTTPException

from edge_sdk.errors import InvalidInputError
from fleet_server.access import CONSOLE, SESSION_SECONDS
from fleet_server.asking import COOKIE, address_of, by_session, caller_of, refuse_foreign
from fleet_server.guard import Guard
from fleet_server.store import Store
from fleet_server.web.frame import HEADERS, Frame

STATIC_HEADERS = {
    "cache-control": "public, max-age=31536000, immutable",
    "x-content-type-options": "nosniff",
}
Cookied = Annotated[str, Cookie(alias=COOKIE)]
Typed = Annotated[str, Form(max_length=1024)]


def entrance(frame: Frame, guard: Guard, store: Store) -> APIRouter:
    """The pages `/login`, `/logout`, `/welcome`, and `/static/…`."""
    router = APIRouter(include_in_schema=False)
    _login(router, frame, guard, store)
    _welcome(router, frame, guard, store)

    @router.post("/logout", dependencies=[Depends(by_session(guard))])
    def leave(edge_session: Cookied = "") -> Response:
        guard.log_out(edge_session)
        answer = RedirectResponse("/login", 303, HEADERS)
        answer.delete_cookie(COOKIE)
        return answer

    @router.get("/static/{name}")
    def static(name: str) -> Response:
        asset = frame.assets.get(name)
        if asset is None:
            raise HTTPException(404)
        return Response(asset.content, 200, STATIC_HEADERS, asset.media_type)

    return router


def _login(router: APIRouter, frame: Frame, guard: Guard, store: Store) -> None:
    @router.get("/login")
    def enter(request: Request, code: str = "") -> Response:
        if not code:
            return frame.door("login.html")
        guard.refuse_guessing(address_of(request))
        if not guard.accepts(code):
            guard.failed(address_of(request))
            return frame.door("login.html", 401, refused="link")
        return _let_in(request, guard, CONSOLE.name, "/" if store.user_count() else "/welcome")

    @router.post("/login")
    async def by_password(request: Request, name: Typed = "", password: Typed = "") -> Response:
        refuse_foreign(request)
        guard.refuse_guessing(address_of(request))
        if not await run_in_threadpool(guard.log_in, name, password):
            guard.failed(address_of(request))
            return frame.door("login.html", 401, refused="password")
        return await run_in_threadpool(_let_in, request, guard, name, "/")


def _welcome(router: APIRouter, frame: Frame, guard: Guard, store: Store) -> None:
    seen_by_console = [Depends(by_session(guard))]

    @router.get("/welcome", dependencies=seen_by_console)
    def welcome(request: Request) -> Response:
        if store.user_count() or caller_of(request) != CONSOLE:
            return RedirectResponse("/", 303, HEADERS)
        return frame.page(request, "welcome.html", live=False)

    @router.post("/welcome", dependencies=seen_by_console)
    def first_admin(request: Request, name: Typed = "", password: Typed = "") -> Response:
        if store.user_count() or caller_of(request) != CONSOLE:
            raise HTTPException(403, "the first admin was made already: ask them for a user")
        try:
            guard.new_user(name, "admin", password)
        except InvalidInputError as error:
            return frame.page(request, "welcome.html", live=False, refused=str(error))
        return _let_in(request, guard, name, "/")


def _let_in(request: Request, guard: Guard, name: str, to: str) -> Response:
    answer = RedirectResponse(to, 303, HEADERS)
    answer.set_cookie(
        COOKIE,
        guard.open_session(name),
        max_age=int(SESSION_SECONDS),
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
    )
    return answer
