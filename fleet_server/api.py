"""What operators ask over HTTP, `/api/v1`, with a token; in the CLI's words."""

from collections.abc import Callable

from fastapi import APIRouter, Depends, Request, Response
from fastapi.concurrency import run_in_threadpool

from edge_sdk.bundle import MAX_BUNDLE
from edge_sdk.errors import InvalidInputError
from fleet_server.answers import NotFoundError, answer, read_body, read_json
from fleet_server.api_alerts import alert_routes
from fleet_server.api_drift import drift_routes
from fleet_server.api_history import history_routes
from fleet_server.api_latency import latency_routes
from fleet_server.api_people import people_routes
from fleet_server.api_rollouts import rollout_routes, version_routes
from fleet_server.api_samples import sample_routes
from fleet_server.api_types import (
    Created,
    EnrolmentToken,
    NewEnrolmentKey,
    Page,
)
from fleet_server.api_webhooks import webhook_routes
from fleet_server.asking import by_token, refuse_unknown, tell_made
from fleet_server.changes import Changes
from fleet_server.enrolment import Allowance, new_token
from fleet_server.fleet import bundle_rows
from fleet_server.openapi import gives, takes, takes_bundle
from fleet_server.paging import first_of, within
from fleet_server.parts import Parts
from fleet_server.revocation import readmit, revoke
from fleet_server.store import Store
from fleet_server.store.listing import BundleFilter, DeviceFilter
from fleet_server.views import DeviceRow, Overview, VersionRow

MAX_BODY = 64 * 1024
MAX_USES, MAX_HOURS, MAX_NOTE = 100_000, 24 * 366, 200


def operator_router(parts: Parts, changes: Changes) -> APIRouter:
    """The routes; each needs `Authorization: Bearer TOKEN` with the scope that `access` says."""
    asking = Depends(by_token(parts.guard))
    router = APIRouter(
        prefix="/api/v1", tags=["operators"], dependencies=[asking, Depends(refuse_unknown)]
    )
    _reading(router, parts)
    rollout_routes(router, parts)
    version_routes(router, parts)
    _changing(router, parts)
    alert_routes(router, parts)
    drift_routes(router, parts)
    latency_routes(router, parts)
    sample_routes(router, parts)
    people_routes(router, parts)
    webhook_routes(router, parts)
    history_routes(router, parts, changes)
    return router


def _reading(router: APIRouter, parts: Parts) -> None:
    @router.get("/overview", responses=gives(Overview))
    def overview() -> Response:
        """Everything the first page shows."""
        return answer(parts.look())

    @router.get("/devices", responses=gives(Page[DeviceRow]))
    def devices(  # noqa: PLR0913 - one a filter
        after: str = "",
        limit: int = 100,
        q: str = "",
        profile: str = "",
        site: str = "",
        model: str = "",
        running: str = "",
        phase: str = "",
        silent_since: float | None = None,
    ) -> Response:
        """Devices by id; `q` is how it begins, `next` the `after` of the page that follows."""
        wanted = DeviceFilter(
            q=q, profile=profile, site=site, model=model, running=running, phase=phase,
            silent_since=silent_since,
        )  # fmt: skip
        found = parts.store.device_page(wanted, after, within(limit) + 1)
        page = first_of(found, lambda device: device.id, limit)
        return answer(Page(parts.rows(page.items), page.next))

    @router.get("/devices/{device}", responses=gives(DeviceRow))
    def one_device(device: str) -> Response:
        """One device."""
        found = parts.store.device(device)
        if found is None:
            raise NotFoundError(f"there is no device {device[:64]!r}")
        [row] = parts.rows([found])
        return answer(row)

    @router.get("/bundles", responses=gives(Page[VersionRow]))
    def bundles(
        after: str = "", limit: int = 100, model: str = "", version: str = "", profile: str = ""
    ) -> Response:
        """Published bundles, newest first."""
        wanted = BundleFilter(model=model, version=version, profile=profile)
        found = parts.store.bundle_page(wanted, after, within(limit) + 1)
        page = first_of(found, lambda bundle: bundle.digest, limit)
        return answer(Page(bundle_rows(page.items, parts.store.running_counts()), page.next))


def _changing(router: APIRouter, parts: Parts) -> None:
    @router.post(
        "/bundles", status_code=201, responses=gives(VersionRow, 201), openapi_extra=takes_bundle()
    )
    async def publish(request: Request) -> Response:
        """Publish a bundle file; the same bytes again change nothing."""
        data = await read_body(request, MAX_BUNDLE)
        record = await run_in_threadpool(parts.registry.publish, data, parts.now())
        parts.changed()
        runs = await run_in_threadpool(parts.store.running_counts)
        [row] = bundle_rows([record], runs)
        about = f"{record.model} {record.version} {record.profile}"
        tell_made(request, f"{about} {record.digest[:12]} signed by {record.signed_by[:12]}")
        return answer(row, 201)

    @router.post(
        "/enrolment-keys",
        status_code=201,
        responses=gives(EnrolmentToken, 201),
        openapi_extra=takes(NewEnrolmentKey),
    )
    async def enrolment_key(request: Request) -> Response:
        """Make a token by which devices join; its text is shown this once."""
        wish = read_json(NewEnrolmentKey, await read_body(request, MAX_BODY), "the enrolment key")
        if not (0 < wish.uses <= MAX_USES and 0 < wish.hours <= MAX_HOURS):
            raise InvalidInputError(
                f"uses must be 1 to {MAX_USES:,} and hours above 0, at most {MAX_HOURS:,}"
            )
        if len(wish.note) > MAX_NOTE:
            raise InvalidInputError(f"the note is longer than {MAX_NOTE} characters")
        now = parts.now()
        token = await run_in_threadpool(
            new_token,
            parts.store,
            parts.keyring,
            Allowance(uses=wish.uses, hours=wish.hours, note=wish.note, device=wish.device),
            now,
        )
        whom = f"device {wish.device}" if wish.device else f"{wish.uses} devices"
        tell_made(request, f"for {whom}, {wish.hours:g} h: {wish.note}")
        return answer(EnrolmentToken(str(token), now + wish.hours * 3600), 201)

    @router.post("/login-links", responses=gives(Created, 201))
    async def login_link() -> Response:
        """The path of a link that opens the pages once."""
        return answer(Created(parts.guard.new_link()), 201)

    @router.post("/devices/{device}/revoke", responses=gives(DeviceRow))
    async def revoke_device(device: str) -> Response:
        """Shut a device out: its session is cut, its credentials and certificate are refused."""
        return await change_welcome(revoke, device)

    @router.post("/devices/{device}/readmit", responses=gives(DeviceRow))
    async def readmit_device(device: str) -> Response:
        """Let a revoked device in again, with the key it had."""
        return await change_welcome(readmit, device)

    async def change_welcome(how: Callable[[Store, str, float], None], device: str) -> Response:
        await run_in_threadpool(how, parts.store, device, parts.now())
        parts.dismiss(device)
        parts.changed()
        found = await run_in_threadpool(parts.store.device, device)
        [row] = await run_in_threadpool(parts.rows, [found] if found else [])
        return answer(row)
