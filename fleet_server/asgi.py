"""The HTTP side put together: pages, operator API, device API."""

from fastapi import Depends, FastAPI, Response

from edge_sdk import __version__
from fleet_server.answers import HEADERS, answer, speak_problems
from fleet_server.api import operator_router
from fleet_server.api_devices import device_router, mqtt_socket
from fleet_server.api_sticks import stick_router
from fleet_server.asking import by_session, by_token
from fleet_server.changes import Changes
from fleet_server.metrics import CONTENT_TYPE
from fleet_server.openapi import DescribedApi
from fleet_server.parts import Parts
from fleet_server.repeating import allow_repeating
from fleet_server.web.alert_pages import alert_pages
from fleet_server.web.api_page import api_page
from fleet_server.web.drift import drift_router
from fleet_server.web.entrance import entrance
from fleet_server.web.fleet_pages import fleet_pages
from fleet_server.web.frame import Frame
from fleet_server.web.labelling import label_router
from fleet_server.web.oidc_pages import oidc_pages
from fleet_server.web.own_page import own_page
from fleet_server.web.pages import overview_router
from fleet_server.web.rollout_pages import rollout_router


def make_app(parts: Parts, changes: Changes) -> FastAPI:
    """The ASGI application; FastAPI's documentation pages stay off: they load foreign scripts."""
    app = DescribedApi(
        title="Edge fleet server", version=__version__, docs_url=None, redoc_url=None
    )
    frame, required = (
        Frame(__version__, parts.oidc.provider if parts.oidc else ""),
        by_session(parts.guard),
    )
    speak_problems(app, frame.problem)
    app.include_router(device_router(parts))
    app.include_router(operator_router(parts, changes))
    app.include_router(stick_router(parts))
    app.include_router(entrance(frame, parts.guard, parts.store))
    if parts.oidc is not None:
        app.include_router(oidc_pages(frame, parts.guard, parts.oidc))
    app.include_router(fleet_pages(frame, parts, required))
    app.include_router(overview_router(frame, parts.look, changes.rings, required))
    app.include_router(rollout_router(frame, parts, required))
    app.include_router(drift_router(frame, parts, required))
    app.include_router(alert_pages(frame, parts, required))
    app.include_router(label_router(frame, parts, required))
    app.include_router(own_page(frame, parts, required))
    app.include_router(api_page(frame, app.openapi, required))
    allow_repeating(app, parts.store, parts.now)

    app.add_api_websocket_route("/mqtt", mqtt_socket(parts))

    @app.get("/metrics", tags=["operators"], dependencies=[Depends(by_token(parts.guard))])
    def metrics() -> Response:
        """For Prometheus; needs a token with the scope `read`."""
        return Response(parts.meters.text(), 200, HEADERS, CONTENT_TYPE)

    @app.get("/readyz", tags=["operators"])
    def readyz() -> Response:
        """Whether the server can do its work now: its database can be written."""
        with parts.store.transaction():
            parts.store.device("")
        return answer({"status": "ready"})

    @app.get("/healthz", tags=["operators"])
    def healthz() -> Response:
        """Whether the server answers and its database does."""
        parts.store.device("")
        return answer({"status": "ok"})

    return app
