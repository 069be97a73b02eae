"""The HTTP side put together: pages, operator API, device API."""

from fastapi import FastAPI, Response

from edge_sdk import __version__
from fleet_server.answers import answer, speak_problems
from fleet_server.api import operator_router
from fleet_server.api_devices import device_router
from fleet_server.api_sticks import stick_router
from fleet_server.changes import Changes
from fleet_server.openapi import DescribedApi
from fleet_server.parts import Parts
from fleet_server.web.pages import page_router


def make_app(parts: Parts, changes: Changes) -> FastAPI:
    """The ASGI application; its documentation pages stay off, since they load foreign scripts."""
    app = DescribedApi(
        title="Edge fleet server", version=__version__, docs_url=None, redoc_url=None
    )
    speak_problems(app)
    app.include_router(device_router(parts))
    app.include_router(operator_router(parts))
    app.include_router(stick_router(parts))
    app.include_router(
        page_router(
            parts.look,
            changes.rings,
            login=parts.login,
            version=__version__,
        )
    )

    @app.get("/healthz", tags=["operators"])
    def healthz() -> Response:
        """Whether the server answers and its database does."""
        parts.store.device("")
        return answer({"status": "ok"})

    return app
