"""Who may see the pages: who opened a link that works once; the browser keeps a proof of it.

The admin token itself is never printed, put into an address, or given to a browser.
"""

import hashlib
import hmac
import secrets
from collections.abc import Callable
from typing import Annotated

from fastapi import Cookie
from starlette.exceptions import HTTPException
from starlette.responses import Response

COOKIE = "edge_session"
LINK_SECONDS = 3600.0
MAX_LINKS = 100
Session = Annotated[str, Cookie(alias=COOKIE)]


class Login:
    """Makes links and knows sessions.

    Args:
        admin_token: what sessions are derived from, so that they outlive a restart.
        now: Unix seconds.
    """

    def __init__(self, admin_token: str, now: Callable[[], float]) -> None:
        # Not the token: whoever sees the cookie can't use it for the API.
        self._session = hmac.digest(admin_token.encode(), b"edge/1 page session", "sha256").hex()
        self._now = now
        self._links: dict[bytes, float] = {}

    def new_link(self) -> str:
        """The path of a link that opens the pages once, within the hour."""
        self._forget_old()
        code = secrets.token_urlsafe(24)
        self._links[_digest(code)] = self._now() + LINK_SECONDS
        return f"/login?code={code}"

    def accepts(self, code: str) -> bool:
        """Whether the link with this code is good; it is used up then."""
        self._forget_old()
        return self._links.pop(_digest(code), None) is not None

    def knows(self, session: str) -> bool:
        return hmac.compare_digest(session.encode(), self._session.encode())

    def remember(self, answer: Response, scheme: str) -> None:
        """Let the browser keep the proof until it is closed."""
        answer.set_cookie(
            COOKIE, self._session, httponly=True, samesite="strict", secure=scheme == "https"
        )

    def require(self, edge_session: Session = "") -> None:
        """For the page's own requests; raises HTTPException 401.

        The header makes htmx load the whole page, which tells how to log in.
        """
        if not self.knows(edge_session):
            raise HTTPException(
                401, "log in first: 'edge server link' prints a link", {"hx-refresh": "true"}
            )

    def _forget_old(self) -> None:
        now = self._now()
        fresh = [(code, until) for code, until in self._links.items() if until > now]
        self._links = dict(fresh[-MAX_LINKS + 1 :])


def _digest(code: str) -> bytes:
    """Codes are looked up by their digest, so that the look-up's time tells nothing of them."""
    return hashlib.sha256(code.encode(errors="surrogatepass")).digest()
