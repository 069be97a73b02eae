"""The label queue: a row, what the model said, and a button for what is right."""

from urllib.parse import quote

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import RedirectResponse
from starlette.exceptions import HTTPException

from fleet_server.asking import Required, caller_of
from fleet_server.labels import Label
from fleet_server.parts import Parts
from fleet_server.records import SampleRecord
from fleet_server.sample_views import picture, sample_rows
from fleet_server.web.frame import Frame

AT_ONCE = 12
PICTURE = {"cache-control": "private, no-store", "x-content-type-options": "nosniff"}


def label_router(frame: Frame, parts: Parts, required: Required) -> APIRouter:
    """The pages `/labels`, `/labels/MODEL` and the pictures on them."""
    router = APIRouter(include_in_schema=False, dependencies=[Depends(required)])
    store = parts.store

    def sample(device: str, row: str) -> SampleRecord:
        found = store.sample(device, row)
        if found is None:
            raise HTTPException(404, "there is no such sample")
        return found

    @router.get("/labels")
    def models(request: Request) -> Response:
        return frame.page(
            request, "label_models.html", counts=sorted(store.count_samples().items())
        )

    @router.get("/labels/{model}")
    def queue(request: Request, model: str) -> Response:
        classes = {b.digest: b.manifest.labels for b in store.bundles(model)}
        labels = list(classes.values())[-1] if classes else ()
        return frame.page(
            request,
            "label_queue.html",
            model=model,
            rows=sample_rows(store, model, AT_ONCE),
            labels=labels,
            may_label=caller_of(request).may("alerts"),
        )

    @router.get("/labels/{model}/{device}/{row}.png")
    def image(device: str, row: str) -> Response:
        found = sample(device, row)
        bundle = store.bundle(found.digest)
        data = picture(found, bundle.manifest.input) if bundle else None
        if data is None:
            raise HTTPException(404, "this sample is no picture")
        return Response(data, 200, PICTURE, "image/png")

    @router.post("/labels/{model}/{device}/{row}/is/{label}")
    def say(model: str, device: str, row: str, label: str) -> Response:
        found = sample(device, row)
        bundle = store.bundle(found.digest)
        if bundle is None or label not in bundle.manifest.labels:
            raise HTTPException(400, "that is no class of this model")
        store.add_labels([label_of(found, label)], parts.now())
        return RedirectResponse(f"/labels/{quote(model)}", 303)

    @router.post("/labels/{model}/{device}/{row}/skip")
    def skip(model: str, device: str, row: str) -> Response:
        sample(device, row)
        store.skip_sample(device, row)
        return RedirectResponse(f"/labels/{quote(model)}", 303)

    return router


def label_of(sample: SampleRecord, label: str) -> Label:
    """A person's word on a sample; only rows drawn at random count for the accuracy."""
    return Label(
        device=sample.device,
        row=sample.row,
        model=sample.model,
        version=sample.version,
        predicted=sample.predicted,
        label=label,
        confidence=sample.confidence,
        taken_at=sample.received_at,
        audit=sample.policy == "random",
        source="queue",
    )
