"""What every page has: who sees it, the navigation, the policy; how a template becomes an answer.

A page is one template that extends `layout`: the whole frame for a browser, the bare content for
htmx, which fetches the same address again whenever something changed. So every page is live, and
every page works without JavaScript.

All that devices say is hostile: Jinja escapes it, and the content security policy lets no script or
style run that is not one of our own files.
"""

from collections.abc import Mapping

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined

from fleet_server.access import Caller
from fleet_server.web import figures
from fleet_server.web.assets import load_assets

NAV = (
    ("Overview", "/"),
    ("Devices", "/devices"),
    ("Models", "/models"),
    ("Rollouts", "/rollouts"),
    ("Drift", "/drift"),
    ("Alerts", "/alerts"),
    ("Labels", "/labels"),
    ("Audit", "/audit"),
)
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "cache-control": "no-store",
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
}


class Frame:
    """Jinja behind one call; escapes everything, fails on a name that is not there."""

    def __init__(self, version: str, provider: str = "") -> None:
        """`version` is the server's, for the foot; `provider` where one may log in too (OIDC)."""
        self.assets = load_assets()
        self.jinja = Environment(
            loader=PackageLoader("fleet_server.web"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self.jinja.filters |= {
            "ago": figures.ago,
            "iso": figures.iso,
            "points": figures.points,
            "size": figures.size,
            "span": figures.span,
        }
        self.jinja.globals |= {
            "asset": lambda name: self.assets[name].url,
            "change": figures.change,
            "interval_plot": figures.interval_plot,
            "nav": NAV,
            "running_bar": figures.running_bar,
            "shown_devices": figures.shown_devices,
            "provider": provider,
            "version": version,
        }

    def page(self, request: Request, name: str, **values: object) -> HTMLResponse:
        """A page for whoever is logged in: `request.state.caller`, put there by the guard.

        Templates know `caller`, `here` (this page's address, to fetch it again) and `at_nav`.
        """
        alone = request.headers.get("hx-request") == "true"
        query = f"?{request.url.query}" if request.url.query else ""
        known = {
            "layout": "bare.html" if alone else "frame.html",
            "caller": request.state.caller,
            "here": request.url.path + query,
            "at_nav": "/" + request.url.path.lstrip("/").partition("/")[0],
            "live": True,
        }
        return self.render(name, 200, {**known, **values})

    def door(self, name: str, status: int = 200, **values: object) -> HTMLResponse:
        """A page for somebody who is not logged in."""
        nobody: Caller | None = None
        known = {"layout": "frame.html", "caller": nobody, "here": "/", "at_nav": "", "live": False}
        return self.render(name, status, {**known, **values})

    def problem(self, request: Request, status: int, words: str) -> HTMLResponse:
        """What went wrong, for a person; to a stranger the way in."""
        if status == 401:
            return self.door("login.html", 401)
        known = {
            "layout": "frame.html",
            "caller": getattr(request.state, "caller", None),
            "here": "/",
            "at_nav": "",
            "live": False,
        }
        return self.render("problem.html", status, {**known, "status": status, "words": words})

    def render(self, name: str, status: int, values: Mapping[str, object]) -> HTMLResponse:
        text = self.jinja.get_template(name).render({"refused": "", **values})
        return HTMLResponse(text, status, HEADERS)
