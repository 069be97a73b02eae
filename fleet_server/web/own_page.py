"""The page of whoever is logged in: what they may do, and the tokens that ask in their name."""

from typing import Annotated

from fastapi import APIRouter, Depends, Form, Request, Response
from fastapi.responses import RedirectResponse

from edge_sdk.errors import InvalidInputError
from fleet_server.access import SCOPES, as_scopes
from fleet_server.answers import NotFoundError
from fleet_server.asking import Required, caller_of
from fleet_server.parts import Parts
from fleet_server.web.frame import HEADERS, Frame

HOURS = 24.0
Typed = Annotated[str, Form(max_length=64)]


def own_page(frame: Frame, parts: Parts, required: Required) -> APIRouter:
    """The page `/me` and its forms."""
    router = APIRouter(include_in_schema=False, dependencies=[Depends(required)])

    def show(request: Request, made: str = "", refused: str = "") -> Response:
        caller = caller_of(request)
        return frame.page(
            request, "own_page.html", live=False, now=parts.now(), made=made, refused=refused,
            hours=HOURS, scopes=[scope for scope in SCOPES if caller.may(scope)],
            tokens=parts.store.tokens(caller.name),
        )  # fmt: skip

    @router.get("/me")
    def me(request: Request) -> Response:
        return show(request)

    @router.post("/me/tokens")
    def new(
        request: Request,
        name: Typed = "",
        scope: Annotated[list[str], Form(max_length=len(SCOPES))] = [],  # noqa: B006 - FastAPI's
        hours: Annotated[float, Form()] = HOURS,
    ) -> Response:
        # The text is in this answer alone, so there is no page to send the browser on to.
        try:
            made = parts.guard.new_token(caller_of(request), name, as_scopes(scope), hours)
        except InvalidInputError as error:
            return show(request, refused=str(error))
        return show(request, made=made)

    @router.post("/me/tokens/{token}/revoke")
    def revoke(request: Request, token: str) -> Response:
        if token not in {known.id for known in parts.store.tokens(caller_of(request).name)}:
            raise NotFoundError(f"there is no token {token[:40]!r} of yours")
        parts.store.drop_token(token)
        return RedirectResponse("/me", 303, HEADERS)

    return router
