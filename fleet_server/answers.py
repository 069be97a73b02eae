"""How the API answers: JSON that nobody caches, and problems as RFC 9457 says."""

import base64
import hashlib
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import TypeVar

import msgspec
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from edge_sdk.errors import (
    CorruptBundleError,
    EdgeError,
    FormatError,
    InvalidInputError,
    RefusedError,
    UntrustedError,
)
from fleet_server.api_types import Problem

T = TypeVar("T")
HEADERS = {"cache-control": "no-store", "x-content-type-options": "nosniff"}


class NotFoundError(InvalidInputError):
    """Something was named that is not there."""


def answer(content: object, status: int = 200) -> Response:
    """`content` as JSON."""
    return Response(msgspec.json.encode(content), status, HEADERS, "application/json")


def problem(status: int, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    """An error in words."""
    body = msgspec.json.encode(Problem(HTTPStatus(status).phrase, status, detail))
    return Response(body, status, {**HEADERS, **(headers or {})}, "application/problem+json")


def status_of(error: EdgeError) -> int:
    """The HTTP status that says the same as the error's kind."""
    match error:
        case NotFoundError():
            return 404
        case InvalidInputError():
            return 400
        case CorruptBundleError() | UntrustedError():
            return 422
        case RefusedError():
            return 409
        case _:
            return 503


async def read_body(request: Request, limit: int) -> bytes:
    """The request's body; raises HTTPException 413 as soon as it is over `limit` bytes."""
    announced = request.headers.get("content-length", "0")
    chunks: list[bytes] = []
    length = 0 if not announced.isdecimal() else int(announced)
    if length <= limit:
        length = 0
        async for chunk in request.stream():
            length += len(chunk)
            if length > limit:
                break
            chunks.append(chunk)
    if length > limit:
        raise HTTPException(413, f"the request's body is longer than {limit:,} bytes")
    return b"".join(chunks)


def read_json(kind: type[T], data: bytes, what: str) -> T:
    """A body as one of our structs; raises FormatError."""
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FormatError(f"{what} can't be read: {error}") from error


def tag_of(body: bytes) -> str:
    """The ETag of an answer."""
    return f'"{hashlib.sha256(body).hexdigest()[:32]}"'


def refuse_if_changed(request: Request, content: object) -> None:
    """Raises HTTPException 412 if `content` is not what the request's If-Match was got for."""
    known = [one.strip() for one in request.headers.get("if-match", "*").split(",")]
    if "*" not in known and tag_of(msgspec.json.encode(content)) not in known:
        raise HTTPException(412, "it has changed since it was read: read it again, then decide")


def bearer(request: Request) -> str:
    """The token of the Authorization header; raises HTTPException 401 if there is none."""
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    if kind.lower() != "bearer" or not token.strip():
        raise unauthorized("this needs 'Authorization: Bearer TOKEN'")
    return token.strip()


def basic(request: Request) -> tuple[str, str] | None:
    """Name and password of the Authorization header (RFC 7617); None if it holds none."""
    kind, _, given = request.headers.get("authorization", "").partition(" ")
    if kind.lower() != "basic":
        return None
    try:
        name, found, password = base64.b64decode(given, validate=True).decode().partition(":")
    except ValueError:
        return None
    return (name, password) if found else None


def unauthorized(why: str) -> HTTPException:
    return HTTPException(401, why, {"www-authenticate": "Bearer"})


def speak_problems(app: FastAPI, page: Callable[[Request, int, str], Response]) -> None:
    """Every error leaves as a problem document; for a browser, as a `page`."""

    def told(
        request: Request, status: int, words: str, headers: Mapping[str, str] | None = None
    ) -> Response:
        if "text/html" not in request.headers.get("accept", ""):
            return problem(status, words, headers)
        shown = page(request, status, words)
        shown.headers.update(headers or {})
        return shown

    @app.exception_handler(EdgeError)
    async def ours(request: Request, error: EdgeError) -> Response:
        return told(request, status_of(error), str(error))

    @app.exception_handler(HTTPException)
    async def theirs(request: Request, error: HTTPException) -> Response:
        words = str(error.detail)
        if error.status_code == 405 or (error.status_code == 404 and words == "Not Found"):
            words = f"this server does not answer {request.method} {request.url.path[:200]}"
        return told(request, error.status_code, words, error.headers)

    @app.exception_handler(RequestValidationError)
    async def misfit(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = " ".join(str(part) for part in first["loc"])
        return told(request, 400, f"{where}: {first['msg']}")

    @app.exception_handler(Exception)
    async def bug(request: Request, _error: Exception) -> Response:
        return told(request, 500, "the server failed at this; its log says where")
