"""The rollout pages: all of them, and one with its phases, gates, devices and decisions."""

from urllib.parse import urlencode

import msgspec
from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import RedirectResponse

from edge_sdk.formats import from_json
from fleet_server.answers import NotFoundError
from fleet_server.api_rollouts import WORDS, found, person
from fleet_server.asking import Required, caller_of
from fleet_server.parts import Parts
from fleet_server.records import RolloutRecord
from fleet_server.rollout.state import BAD, LIVE, OPEN, Command, Decision, Order, Rollout
from fleet_server.store.listing import MemberFilter, RolloutFilter
from fleet_server.views import RolloutDevice
from fleet_server.web.frame import Frame

ROLLOUTS_SHOWN, ROWS, STUCK_SHOWN, DECISIONS_SHOWN = 50, 50, 50, 100
WORD = 64  # characters of a filter
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
        records = parts.store.rollout_page(RolloutFilter(), "", ROLLOUTS_SHOWN)
        rows = [parts.describe(record) for record in records]
        return frame.page(request, "rollouts_page.html", rows=rows, now=parts.now())

    @router.get("/rollouts/{rollout_id}")
    def one(request: Request, rollout_id: str, standing: str = "", after: str = "") -> Response:
        record = found(parts, rollout_id)
        asked = {"standing": standing.strip()[:WORD]} if standing.strip() else {}
        devices = parts.controls.devices(record, MemberFilter(**asked), after[:WORD], ROWS + 1)
        more = {**asked, "after": devices[ROWS - 1].device} if len(devices) > ROWS else {}
        log = [
            msgspec.json.decode(d.document, type=Decision)
            for d in parts.store.decisions(rollout_id, DECISIONS_SHOWN)
        ]
        return frame.page(
            request,
            "rollout_page.html",
            r=parts.describe(record),
            devices=devices[:ROWS],
            stuck=[] if asked or after else need_a_look(parts, record),
            standing=standing,
            first=urlencode(asked) if after else None,
            more=urlencode(more),
            log=log,
            may=commands(request, from_json(Rollout, record.document, f"rollout {record.id}")),
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


def need_a_look(parts: Parts, record: RolloutRecord) -> list[RolloutDevice]:
    """As many of the devices that failed as one page bears."""
    names = parts.store.devices_standing(record.id, BAD, STUCK_SHOWN)
    return parts.controls.devices(record, MemberFilter(devices=names), "", STUCK_SHOWN)


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
