"""Asking devices for rows to label, the queue of them, and datasets made of what was labelled.

A command says which rows: those the model was unsure of, those unlike the training data, or any
(an audit). It is signed, numbered per device and stands until the next one. What comes back is kept
for a limited time; who it is about is a pseudonym made on the device.
"""

from collections.abc import Sequence

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool

from edge_sdk.errors import InvalidInputError
from edge_sdk.messages import SampleRequest
from fleet_server.answers import NotFoundError, answer, read_body, read_json
from fleet_server.api_types import Asked, AskSamples, Erased, Page
from fleet_server.commands import send
from fleet_server.dataset import make_dataset, waiting_rows
from fleet_server.openapi import gives, takes
from fleet_server.paging import first_of, within
from fleet_server.parts import Parts
from fleet_server.sample_views import sample_rows
from fleet_server.views import SampleRow

MAX_BODY = 16 * 1024
SHOWN = 200
MAX_QUOTA, MAX_DAYS = 10_000, 30.0


def sample_routes(router: APIRouter, parts: Parts) -> None:
    """`/samples/MODEL`, its dataset, and erasure."""

    @router.post("/samples/{model}", responses=gives(Asked), openapi_extra=takes(AskSamples))
    async def ask_devices(model: str, request: Request) -> Response:
        """Ask the devices that run a model for rows to label."""
        wish = read_json(AskSamples, await read_body(request, MAX_BODY), "the wish")
        return answer(await run_in_threadpool(_ask, parts, model, wish))

    @router.get("/samples/{model}", responses=gives(Page[SampleRow]))
    def queue(model: str, after: str = "", limit: int = SHOWN) -> Response:
        """Rows that wait for a label, the most wanted first."""
        device, _, row = after.partition("/")
        behind = parts.store.sample(device, row) if after else None
        if after and behind is None:
            raise InvalidInputError(f"no entry {after[:64]!r} is left here: begin without 'after'")
        rows = sample_rows(parts.store, model, within(limit) + 1, behind)
        return answer(first_of(rows, lambda row: f"{row.device}/{row.row}", limit))

    @router.get("/samples/{model}/dataset")
    def dataset(model: str) -> Response:
        """Labelled rows as an .npz for training: `x`, `y`, and where each came from."""
        data = make_dataset(parts.store, model, parts.now())
        return Response(data, media_type="application/octet-stream")

    @router.get("/samples/{model}/rows")
    def rows(model: str) -> Response:
        """All rows that came with their data, labelled or not, as an .npz: for weak supervision."""
        data = waiting_rows(parts.store, model)
        return Response(data, media_type="application/octet-stream")

    @router.post("/devices/{device}/forget", responses=gives(Erased))
    async def forget(device: str) -> Response:
        """Erase all that came from one device."""
        erased = await run_in_threadpool(_forget, parts, device)
        parts.changed()
        return answer(Erased(erased))


def _ask(parts: Parts, model: str, wish: AskSamples) -> Asked:
    now = parts.now()
    devices = [
        d.id
        for d in parts.store.devices()
        if d.running_model == model
        and d.revoked_at is None
        and wish.site in ("", d.labels.get("site", ""))
        and (not wish.devices or d.id in wish.devices)
    ]
    wanted = SampleRequest(
        policy=wish.policy,
        quota=wish.quota,
        until=now + wish.days * 86400,
        model=model,
        version=wish.version,
        raw=wish.raw,
        classes=wish.classes,
        between=wish.between,
    )
    return Asked(ask(parts, devices, wanted, now))


def ask(parts: Parts, devices: Sequence[str], wanted: SampleRequest, now: float) -> int:
    """Send each device a command; how many there were.

    Raises:
        InvalidInputError: nobody to ask, or a quota or time that makes no sense.
    """
    if not devices:
        raise InvalidInputError("no device runs this model there, so there is nobody to ask")
    if not 0 < wanted.quota <= MAX_QUOTA:
        raise InvalidInputError(f"a quota must be 1 to {MAX_QUOTA:,} samples a device")
    if not now < wanted.until <= now + MAX_DAYS * 86400:
        raise InvalidInputError(f"samples can be asked for during {MAX_DAYS:.0f} days at most")
    return len(send(parts, devices, now, samples=wanted))


def _forget(parts: Parts, device: str) -> dict[str, int]:
    if parts.store.device(device) is None:
        raise NotFoundError(f"there is no device {device[:64]!r}")
    return parts.controls.forget(device, parts.now())
