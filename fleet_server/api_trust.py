"""The repository's files for devices, `/device/v1/tuf`, and the time for one that doubts its clock.

The files verify themselves: any static server may carry the same folder. Here they need a device's
token, since the targets are the models.
"""

import re
from collections.abc import Callable

from fastapi import APIRouter, Depends, Response
from starlette.responses import FileResponse

from edge_sdk.errors import FormatError
from edge_sdk.signed_time import MAX_NONCE, sign_time
from fleet_server.answers import HEADERS, NotFoundError
from fleet_server.parts import Parts

_METADATA = re.compile(r"(\d{1,12}\.)?[A-Za-z0-9][A-Za-z0-9._+-]{0,99}\.json")
_TARGET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*/[0-9a-f]{64}\.[A-Za-z0-9._+-]+\.edge")
_NONCE = re.compile(r"[A-Za-z0-9_-]+")
_FOR_EVER = {"cache-control": "private, max-age=31536000, immutable"}
_ASK_AGAIN = {"cache-control": "no-cache"}


def trust_router(parts: Parts, caller: Callable[..., str]) -> APIRouter:
    """The routes; `caller` says which device asks, or refuses it."""
    router = APIRouter(dependencies=[Depends(caller)])
    folder = parts.registry.repository.folder

    @router.get("/tuf/metadata/{name}")
    def metadata(name: str) -> Response:
        """A metadata file; all but timestamp.json never change."""
        path = folder.metadata / name
        if not _METADATA.fullmatch(name) or not path.is_file():
            raise NotFoundError(f"there is no metadata {name[:64]!r}")
        headers = _FOR_EVER if name[0].isdigit() else _ASK_AGAIN
        return Response(path.read_bytes(), 200, headers, "application/json")

    @router.get("/tuf/targets/{path:path}")
    def target(path: str) -> Response:
        """A bundle under the name that begins with its digest."""
        found = parts.registry.target(path) if _TARGET.fullmatch(path) else None
        if found is None:
            raise NotFoundError(f"there is no target {path[:64]!r}")
        return FileResponse(found, 200, _FOR_EVER, "application/octet-stream")

    @router.get("/time")
    def time(nonce: str) -> Response:
        """What time it is, signed for this question only."""
        if len(nonce) > MAX_NONCE or not _NONCE.fullmatch(nonce):
            raise FormatError(f"a nonce is 1 to {MAX_NONCE} letters and digits")
        signed = sign_time(nonce, parts.now(), parts.keyring.director)
        return Response(signed, 200, HEADERS, "application/json")

    return router
