"""Devices, one device, models, one version of a model, and the audit log."""

from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Form, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import RedirectResponse

from fleet_server.answers import NotFoundError
from fleet_server.asking import Required
from fleet_server.fleet import bundle_rows
from fleet_server.parts import Parts
from fleet_server.records import WindowRecord
from fleet_server.revocation import readmit, revoke
from fleet_server.store.listing import DeviceFilter
from fleet_server.web.figures import curve
from fleet_server.web.frame import HEADERS, Frame

ROWS = 50
WINDOWS = 120
HOUR = 3600.0
WORD = 64  # characters of a filter


def fleet_pages(frame: Frame, parts: Parts, required: Required) -> APIRouter:
    """The routes; `required` lets in whoever is logged in and may."""
    router = APIRouter(include_in_schema=False, dependencies=[Depends(required)])
    _devices(router, frame, parts)
    _device(router, frame, parts)
    _models(router, frame, parts)
    _audit(router, frame, parts)
    return router


def _devices(router: APIRouter, frame: Frame, parts: Parts) -> None:
    @router.get("/devices")
    def devices(  # noqa: PLR0913 - one a filter
        request: Request,
        q: str = "",
        profile: str = "",
        site: str = "",
        model: str = "",
        silent: str = "",
        after: str = "",
    ) -> Response:
        asked = {"q": q, "profile": profile, "site": site, "model": model}
        asked = {name: value.strip()[:WORD] for name, value in asked.items()}
        since = parts.now() - HOUR if silent else None
        wanted = DeviceFilter(**asked, silent_since=since)
        found = parts.store.device_page(wanted, after, ROWS + 1)
        profiles, models = parts.store.profiles_and_models()
        query = {**asked, "silent": silent and "1"}
        more = {**query, "after": found[ROWS - 1].id} if len(found) > ROWS else None
        return frame.page(
            request,
            "devices_page.html",
            now=parts.now(),
            rows=parts.rows(found[:ROWS]),
            total=parts.store.device_count(wanted),
            asked=query,
            profiles=profiles,
            models=models,
            first=urlencode({k: v for k, v in query.items() if v}) if after else None,
            more=urlencode({k: v for k, v in more.items() if v}) if more else "",
        )


def _device(router: APIRouter, frame: Frame, parts: Parts) -> None:
    @router.get("/devices/{device}")
    def one(device: str, request: Request) -> Response:
        found = parts.store.device(device[:WORD])
        if found is None:
            raise NotFoundError(f"there is no device {device[:WORD]!r}")
        windows = parts.store.windows_of(found.id, WINDOWS)
        [row] = parts.rows([found])
        return frame.page(
            request,
            "device_page.html",
            now=parts.now(),
            d=row,
            record=found,
            order=parts.store.assignment(found.id),
            windows=windows[:20],
            confidence=_curve(windows, "confidence_mean"),
            latency=_curve(windows, "latency_mean"),
            events=parts.store.events_of(found.id, ROWS),
        )

    @router.post("/devices/{device}/{change}")
    async def welcome(device: str, change: str, why: Annotated[str, Form()] = "") -> Response:
        changes = {"revoke": revoke, "readmit": readmit}
        if change not in changes or why:
            raise NotFoundError("a device can be revoked or readmitted here")
        await run_in_threadpool(changes[change], parts.store, device, parts.now())
        parts.dismiss(device)
        parts.changed()
        return RedirectResponse(f"/devices/{device}", 303, HEADERS)


def _models(router: APIRouter, frame: Frame, parts: Parts) -> None:
    @router.get("/models")
    def models(request: Request) -> Response:
        rows = bundle_rows(parts.store.bundles(), parts.store.running_counts())
        return frame.page(request, "models_page.html", now=parts.now(), rows=rows)

    @router.get("/models/{model}/{version}")
    def version(model: str, version: str, request: Request) -> Response:
        found = [b for b in parts.store.bundles(model) if b.version == version]
        if not found:
            raise NotFoundError(f"no bundle of {model[:WORD]} {version[:WORD]} is published")
        return frame.page(
            request,
            "version_page.html",
            now=parts.now(),
            model=model,
            version=version,
            bundles=found,
            rows=bundle_rows(found, parts.store.running_counts()),
        )


def _audit(router: APIRouter, frame: Frame, parts: Parts) -> None:
    @router.get("/audit")
    def audit(
        request: Request, actor: str = "", target: str = "", before: int | None = None
    ) -> Response:
        asked = {"actor": actor.strip()[:WORD], "target": target.strip()[:WORD]}
        rows = parts.store.audit(before=before, limit=ROWS, **asked)
        kept = {name: value for name, value in asked.items() if value}
        more = urlencode({**kept, "before": rows[-1].id}) if len(rows) == ROWS else ""
        return frame.page(
            request, "audit_page.html", now=parts.now(), rows=rows, asked=asked, more=more,
            first=urlencode(kept) if before is not None else None,
        )  # fmt: skip


def _curve(windows: list[WindowRecord], field: str) -> str:
    values = [(w.received_at, getattr(w, field)) for w in reversed(windows)]
    return curve([(at, value) for at, value in values if value is not None])
