"""The operator's pages, rendered on the server; live by server-sent events, readable without.

All that devices say is hostile: Jinja escapes it, and the content security policy lets no script
or style run that is not one of our own files.
"""

import asyncio
from collections.abc import AsyncIterator, Callable

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.exceptions import HTTPException

from fleet_server.views import Overview
from fleet_server.web import figures
from fleet_server.web.assets import load_assets
from fleet_server.web.login import Login, Session

PAUSE_SECONDS = 0.5  # between two calls to look again: a busy fleet changes all the time
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "cache-control": "no-store",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
STATIC_HEADERS = {
    "cache-control": "public, max-age=31536000, immutable",
    "x-content-type-options": "nosniff",
}


def page_router(
    look: Callable[[], Overview],
    rings: Callable[[], AsyncIterator[int]],
    *,
    login: Login,
    version: str,
) -> APIRouter:
    """The pages `/`, `/overview` (its live part), `/events`, `/login` and `/static/…`.

    Args:
        look: the fleet as it is now; called in a worker thread.
        rings: a number at each change until the server stops; iterated on the event loop.
        login: who may see them.
        version: of the server, for the foot of the page.
    """
    router = APIRouter(include_in_schema=False)
    templates = _Templates(version)
    _overview(router, login, templates, look)
    _events(router, login, rings)
    _entrance(router, login, templates)
    return router


def _overview(
    router: APIRouter, login: Login, templates: "_Templates", look: Callable[[], Overview]
) -> None:
    @router.get("/")
    def home(edge_session: Session = "") -> Response:
        if not login.knows(edge_session):
            return templates.page("login.html", 401)
        return templates.page("page.html", overview=look())

    @router.get("/overview", dependencies=[Depends(login.require)])
    def live_part() -> Response:
        return templates.page("overview.html", overview=look())


def _events(router: APIRouter, login: Login, rings: Callable[[], AsyncIterator[int]]) -> None:
    @router.get(
        "/events",
        dependencies=[Depends(login.require)],
        response_class=EventSourceResponse,
    )
    async def events() -> AsyncIterator[ServerSentEvent]:
        # The page may be older than this connection, so its first look is due at once.
        yield ServerSentEvent(event="changed", raw_data="0")
        async for number in rings():
            yield ServerSentEvent(event="changed", raw_data=str(number))
            await asyncio.sleep(PAUSE_SECONDS)


def _entrance(router: APIRouter, login: Login, templates: "_Templates") -> None:
    @router.get("/login")
    def enter(request: Request, code: str = "") -> Response:
        if not login.accepts(code):
            return templates.page("login.html", 401, refused=True)
        answer = RedirectResponse("/", 303, HEADERS)
        login.remember(answer, request.url.scheme)
        return answer

    @router.get("/static/{name}")
    def static(name: str) -> Response:
        asset = templates.assets.get(name)
        if asset is None:
            raise HTTPException(404)
        return Response(asset.content, 200, STATIC_HEADERS, asset.media_type)


class _Templates:
    """Jinja behind one call; escapes everything, fails on a name that is not there."""

    def __init__(self, version: str) -> None:
        self.assets = load_assets()
        self._jinja = Environment(
            loader=PackageLoader("fleet_server.web"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._jinja.filters |= {
            "ago": figures.ago,
            "iso": figures.iso,
            "points": figures.points,
            "size": figures.size,
            "span": figures.span,
        }
        self._jinja.globals |= {
            "asset": lambda name: self.assets[name].url,
            "change": figures.change,
            "interval_plot": figures.interval_plot,
            "running_bar": figures.running_bar,
            "shown_devices": figures.shown_devices,
            "version": version,
        }

    def page(self, name: str, status: int = 200, **values: object) -> HTMLResponse:
        text = self._jinja.get_template(name).render({"refused": False, **values})
        return HTMLResponse(text, status, HEADERS)
