"""The API's own page, rendered from the OpenAPI document: nothing is fetched from another host."""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from fastapi import APIRouter, Depends, Request, Response

from fleet_server.access import scope_of
from fleet_server.asking import Required
from fleet_server.web.frame import Frame


class Operation(msgspec.Struct, frozen=True):
    """One thing that can be asked; `scope` is empty where devices ask."""

    method: str
    path: str
    words: str
    scope: str
    parameters: tuple[str, ...]
    body: str
    gives: str


def api_page(
    frame: Frame, document: Callable[[], Mapping[str, Any]], required: Required
) -> APIRouter:
    """The page `/api/docs`."""
    router = APIRouter(include_in_schema=False, dependencies=[Depends(required)])

    @router.get("/api/docs")
    def page(request: Request) -> Response:
        known = document()
        return frame.page(
            request,
            "api_page.html",
            live=False,
            operations=operations(known),
            schemas=known.get("components", {}).get("schemas", {}),
        )

    return router


def operations(document: Mapping[str, Any]) -> list[Operation]:
    """What the OpenAPI document offers, by path."""
    found = []
    for path, methods in sorted(document["paths"].items()):
        for method, told in methods.items():
            ours = path.startswith("/api/v1")
            found.append(
                Operation(
                    method=method.upper(),
                    path=path,
                    words=told.get("description", told.get("summary", "")).replace("`", ""),
                    scope=scope_of(method.upper(), path) if ours else "",
                    parameters=tuple(p["name"] for p in told.get("parameters", ())),
                    body=_schema(told.get("requestBody", {})),
                    gives=_schema(next(iter(told.get("responses", {}).values()), {})),
                )
            )
    return found


def _schema(part: Mapping[str, Any]) -> str:
    for content in part.get("content", {}).values():
        schema = content.get("schema", {})
        name = schema.get("$ref") or schema.get("items", {}).get("$ref") or ""
        known = name.rpartition("/")[2]
        if known.startswith("Page_"):  # Page[AlertRow], as OpenAPI may call it
            known = f"page of {known.removeprefix('Page_').rstrip('_')}"
        return str(known or schema.get("format", schema.get("type", "")))
    return ""
