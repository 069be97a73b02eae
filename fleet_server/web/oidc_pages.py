"""The way in over an OIDC provider: away, and back."""

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import RedirectResponse

from edge_sdk.errors import RefusedError
from fleet_server.access import SESSION_SECONDS
from fleet_server.asking import COOKIE, address_of
from fleet_server.guard import Guard
from fleet_server.oidc import WAIT_SECONDS, Oidc
from fleet_server.web.frame import HEADERS, Frame

AWAY = "edge_oidc"
BACK = "/login/oidc/back"


def oidc_pages(frame: Frame, guard: Guard, oidc: Oidc) -> APIRouter:
    """The pages `/login/oidc` and `/login/oidc/back`."""
    router = APIRouter(include_in_schema=False)

    @router.get("/login/oidc")
    async def away(request: Request) -> Response:
        guard.refuse_guessing(address_of(request))
        guard.knock(address_of(request))
        back = str(request.base_url).rstrip("/") + BACK
        url, state = await run_in_threadpool(oidc.begin, back)
        answer = RedirectResponse(url, 303, HEADERS)
        answer.set_cookie(
            AWAY,
            state,
            max_age=int(WAIT_SECONDS),
            path=BACK,
            httponly=True,
            samesite="lax",  # the provider sends the browser back to us
            secure=request.url.scheme == "https",
        )
        return answer

    @router.get(BACK)
    async def back(request: Request) -> Response:
        address = address_of(request)
        guard.refuse_guessing(address)
        try:
            state = request.cookies.get(AWAY, "")
            known = await run_in_threadpool(oidc.finish, str(request.url), state)
            await run_in_threadpool(guard.admit, known.name, known.subject)
        except RefusedError as error:
            guard.failed(address)
            return frame.door("login.html", 401, refused="oidc", why=str(error))
        # After a redirect that another site began no strict cookie is sent: our page goes on.
        answer = frame.door("logged_in.html", who=known.name)
        answer.set_cookie(
            COOKIE,
            await run_in_threadpool(guard.open_session, known.name),
            max_age=int(SESSION_SECONDS),
            httponly=True,
            samesite="strict",
            secure=request.url.scheme == "https",
        )
        answer.delete_cookie(AWAY, path=BACK)
        return answer

    return router
