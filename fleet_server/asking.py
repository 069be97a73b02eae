"""How routes ask the guard: those for programs by a token, pages by a cookie."""

from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

from fastapi import Request
from starlette.exceptions import HTTPException

from edge_sdk.errors import InvalidInputError
from fleet_server.access import Caller
from fleet_server.answers import basic, bearer, unauthorized
from fleet_server.guard import Guard

COOKIE = "edge_session"
LOG_IN = ("POST", "/api/v1/tokens")  # what a name and a password open, beside the pages
Required = Callable[[Request], Iterator[Caller]]


def by_token(guard: Guard) -> Required:
    """For `/api/v1`: needs `Authorization: Bearer TOKEN`; to make one, Basic does too."""

    def required(request: Request) -> Iterator[Caller]:
        address = address_of(request)
        guard.refuse_guessing(address)
        person = basic(request) if (request.method, request.url.path) == LOG_IN else None
        caller = guard.of_password(*person) if person else guard.of_bearer(bearer(request))
        if caller is None:
            guard.failed(address)
            what = "that is not the password" if person else "the token is wrong or has expired"
            raise unauthorized(what)
        request.state.caller = caller
        with guard.allowed(caller, request):
            yield caller

    return required


def by_session(guard: Guard) -> Required:
    """For pages: needs the cookie; what changes something must come from one of our own pages."""

    def required(request: Request) -> Iterator[Caller]:
        caller = guard.of_session(request.cookies.get(COOKIE, ""))
        if caller is None:
            # The header makes htmx load the whole page, which tells how to log in.
            raise HTTPException(
                401, "log in first: 'edge server link' prints a link", {"hx-refresh": "true"}
            )
        if request.method not in ("GET", "HEAD"):
            refuse_foreign(request)
        request.state.caller = caller
        with guard.allowed(caller, request):
            yield caller

    return required


def refuse_unknown(request: Request) -> None:
    """Raises InvalidInputError for a parameter that the route does not know.

    A misspelt filter that is ignored would answer everything, and be taken for what was asked.
    """
    known = {str(field.alias) for field in request.scope["route"].dependant.query_params}
    unknown = sorted(set(request.query_params) - known)
    if unknown:
        those = f"only {', '.join(sorted(known))}" if known else "nor any other"
        raise InvalidInputError(f"there is no parameter {unknown[0][:40]!r} here, {those}")


def refuse_foreign(request: Request) -> None:
    """Raises HTTPException 403 for a form that another site sent (CSRF)."""
    site = request.headers.get("sec-fetch-site")
    origin = request.headers.get("origin", "")
    if site is not None:
        ours = site == "same-origin"
    else:  # a browser from before 2023, which sends Origin with every POST
        ours = bool(origin) and urlsplit(origin).netloc == request.headers.get("host", "")
    if not ours:
        raise HTTPException(403, "this form was not sent by one of this server's own pages")


def address_of(request: Request) -> str:
    return request.client.host if request.client else ""


def tell_made(request: Request, words: str) -> None:
    """What a request made, for the audit log: no path says it before it is there. No secrets."""
    request.state.made = words


def caller_of(request: Request) -> Caller:
    """Who asks, once a dependency above has let them in."""
    found: Caller = request.state.caller
    return found
