"""The rollout pages: all of them, and one with its phases, gates, devices and decisions."""

import msgspec
from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import RedirectResponse

from fleet_server.answers import NotFoundError
from fleet_server.api_rollouts import WORDS, found, person
from fleet_server.asking import Required, caller_of
from fleet_server.parts import Parts
from fleet_server.rollout.state import BAD, LIVE, OPEN, Command, Decision, Order, Rollout
from fleet_server.rollout_rows import device_rows
from fleet_server.views import RolloutDevice
from fleet_server.web.frame import Frame

ROLLOUTS_SHOWN, DEVICES_SHOWN, DECISIONS_SHOWN = 50, 500, 100
MAY: dict[Command, tuple[str, ...]] = {
    "pause": ("running", "held", "scheduled"),
    "resume": ("paused", "reopened"),
    "approve": ("to approve",),
    "retry": (*LIVE, "promoted", "reopened"),
    "abort": OPEN,
    "roll back": (*OPEN, "promoted", "aborted"),
}


def rollout_router(frame: Frame, parts: Parts, required: Required) -> APIRouter:
    """The pages `/rollouts` and `/rollouts/ID`."""
    router = APIRouter(include_in_schema=False, dependencies=[Depends(required)])

    @router.get("/rollouts")
    def rollouts(request: Request) -> Response:
        records = parts.store.rollouts()[: -ROLLOUTS_SHOWN - 1 : -1]
        rows = [parts.describe(record) for record in records]
        return frame.page(request, "rollouts_page.html", rows=rows, now=parts.now())

    @router.get("/rollouts/{rollout_id}")
    def one(request: Request, rollout_id: str) -> Response:
        record = found(parts, rollout_id)
        rollout = parts.controls.read(record)
        devices = device_rows(rollout, parts.store.standings(rollout_id))
        log = [
            msgspec.json.decode(d.document, type=Decision)
            for d in parts.store.decisions(rollout_id, DECISIONS_SHOWN)
        ]
        return frame.page(
            request,
            "rollout_page.html",
            r=parts.describe(record),
            devices=shown(devices),
            hidden=max(0, len(devices) - DEVICES_SHOWN),
            log=log,
            may=commands(request, rollout),
            now=parts.now(),
        )

    @router.post("/rollouts/{rollout_id}/{command}")
    def command(request: Request, rollout_id: str, command: str) -> Response:
        known = WORDS.get(command)
        if known not in MAY:
            raise NotFoundError(f"a rollout can't {command[:40]!r}")
        record = found(parts, rollout_id)
        order = Order(command=known, by=person(request), at=parts.now())
        parts.controls.command(record.id, order)
        parts.changed()
        return RedirectResponse(f"/rollouts/{record.id}", 303)

    return router


def commands(request: Request, rollout: Rollout) -> list[tuple[str, str]]:
    """What the caller may do now: the last part of its address, and its words."""
    caller = caller_of(request)
    found = [word for word, statuses in MAY.items() if rollout.status in statuses]
    return [
        (word.replace(" ", ""), word.capitalize())
        for word in found
        if caller.may("approve" if word == "approve" else "rollouts")
        and not (word == "approve" and person(request) == rollout.by)
    ]


def shown(devices: tuple[RolloutDevice, ...]) -> list[RolloutDevice]:
    """As many as one page bears, first those that need a look."""
    order = sorted(devices, key=lambda d: (d.standing not in BAD, d.standing == "confirmed"))
    return order[:DEVICES_SHOWN]
