"""What operators ask of rollouts and versions, under `/api/v1`; in the CLI's words."""

from typing import get_args

import msgspec
from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool

from edge_sdk.errors import InvalidInputError
from fleet_server.answers import NotFoundError, answer, read_body, read_json, refuse_if_changed
from fleet_server.api_types import (
    AliasWish,
    Created,
    DecisionRow,
    NewRollout,
    Page,
    RolloutOrder,
    RolloutStory,
)
from fleet_server.asking import caller_of, tell_made
from fleet_server.openapi import gives, takes
from fleet_server.paging import appended, first_of, page_of, place_of, within
from fleet_server.parts import Parts
from fleet_server.planning import Wish
from fleet_server.records import DecisionRecord, RolloutRecord
from fleet_server.rollout.state import Command, Order
from fleet_server.store.listing import MemberFilter, RolloutFilter
from fleet_server.versions import LINE, set_alias, version_story
from fleet_server.views import (
    AliasRow,
    RolloutDevice,
    RolloutPlan,
    RolloutRow,
    RunRow,
    VersionStory,
)

MAX_BODY, MAX_REASON, MOST_RUNS = 64 * 1024, 500, 10_000
WORDS: dict[str, Command] = {word.replace(" ", ""): word for word in get_args(Command)}


def rollout_routes(router: APIRouter, parts: Parts) -> None:
    """Everything below `/rollouts`."""
    _reading(router, parts)
    _starting(router, parts)

    @router.post(
        "/rollouts/{rollout_id}/{command}",
        responses=gives(RolloutStory),
        openapi_extra=takes(RolloutOrder),
    )
    async def command(rollout_id: str, command: str, request: Request) -> Response:
        """Pause, resume, approve, retry, abort (who has it keeps it) or rollback (all go back)."""
        known = WORDS.get(command)
        if known is None or known == "supersede":
            raise NotFoundError(f"a rollout can't {command[:40]!r}")
        body = await read_body(request, MAX_BODY)
        asked = read_json(RolloutOrder, body, "the order") if body else RolloutOrder()
        if len(asked.reason) > MAX_REASON:
            raise InvalidInputError(f"the reason is longer than {MAX_REASON} characters")
        order = Order(command=known, by=person(request), at=parts.now(), reason=asked.reason)

        def obey() -> None:
            with parts.store.transaction():
                refuse_if_changed(request, story(parts, rollout_id))
                parts.controls.command(rollout_id, order)

        await run_in_threadpool(obey)
        parts.changed()
        return answer(await run_in_threadpool(story, parts, rollout_id))


def person(request: Request) -> str:
    """Who asks, by the user's name: a second token does not make a second person."""
    return caller_of(request).name.partition("/")[0]


def story(parts: Parts, rollout_id: str) -> RolloutStory:
    """A rollout with its decisions; raises NotFoundError."""
    record = found(parts, rollout_id)
    decisions = tuple(_decision(d) for d in parts.store.decisions(rollout_id))
    return RolloutStory(parts.describe(record), decisions)


def _decision(record: DecisionRecord) -> DecisionRow:
    return DecisionRow(record.at, msgspec.Raw(record.document), record.id)


def found(parts: Parts, rollout_id: str) -> RolloutRecord:
    """A rollout's record; raises NotFoundError."""
    record = parts.store.rollout(rollout_id)
    if record is None:
        raise NotFoundError(f"there is no rollout {rollout_id[:40]!r}")
    return record


def _reading(router: APIRouter, parts: Parts) -> None:
    @router.get("/rollouts", responses=gives(Page[RolloutRow]))
    def rollouts(
        after: str = "", limit: int = 50, model: str = "", version: str = "", status: str = ""
    ) -> Response:
        """Rollouts, newest first."""
        wanted = RolloutFilter(model=model, version=version, status=status)
        records = parts.store.rollout_page(wanted, after, within(limit) + 1)
        page = first_of(records, lambda record: record.id, limit)
        return answer(Page(tuple(parts.describe(r) for r in page.items), page.next))

    @router.get("/rollouts/{rollout_id}", responses=gives(RolloutStory))
    def one(rollout_id: str) -> Response:
        """One rollout with its decisions."""
        return answer(story(parts, rollout_id))

    @router.get("/rollouts/{rollout_id}/decisions", responses=gives(Page[DecisionRow]))
    def decisions(rollout_id: str, after: str = "", limit: int = 100) -> Response:
        """Its decisions, newest first, each with the evidence it was made on."""
        found(parts, rollout_id)
        before = place_of(after) or None
        rows = [
            _decision(record)
            for record in parts.store.decisions(rollout_id, within(limit) + 1, before)
        ]
        return answer(first_of(rows, lambda row: str(row.id), limit))

    @router.get("/rollouts/{rollout_id}/devices", responses=gives(Page[RolloutDevice]))
    def devices(rollout_id: str, after: str = "", limit: int = 100, standing: str = "") -> Response:
        """The devices of a rollout: when each is reached, where it stands, and why."""
        record = found(parts, rollout_id)
        if after and not parts.store.member_exists(rollout_id, after):
            raise InvalidInputError(f"no entry {after[:64]!r} is left here: begin without 'after'")
        wanted = MemberFilter(standing=standing)
        rows = parts.controls.devices(record, wanted, after, within(limit) + 1)
        return answer(first_of(rows, lambda row: row.device, limit))


def _starting(router: APIRouter, parts: Parts) -> None:
    async def wish(request: Request) -> Wish:
        asked = read_json(NewRollout, await read_body(request, MAX_BODY), "the rollout")
        return Wish(
            model=asked.model,
            version=asked.version,
            strategy=asked.strategy,
            start_at=asked.start_at,
            supersede=asked.supersede,
            by=person(request),
        )

    @router.post("/rollouts/plan", responses=gives(RolloutPlan), openapi_extra=takes(NewRollout))
    async def plan(request: Request) -> Response:
        """What a rollout would do: who gets what, who can't, and what its gates could see."""
        asked = await wish(request)
        return answer(await run_in_threadpool(parts.controls.plan, asked, parts.now()))

    @router.post(
        "/rollouts", status_code=201, responses=gives(Created, 201), openapi_extra=takes(NewRollout)
    )
    async def create(request: Request) -> Response:
        """Start a rollout, or schedule it."""
        asked = await wish(request)
        made = await run_in_threadpool(parts.controls.create, asked, parts.now())
        parts.changed()
        tell_made(request, f"{made}, {asked.model} {asked.version}")
        return answer(Created(made), 201)


def _run_key(row: RunRow) -> str:
    return f"{row.slot}@{row.at!r}@{row.digest}"


def version_routes(router: APIRouter, parts: Parts) -> None:
    """Versions with their aliases and lineage, and what ran where when."""

    @router.get("/models/{model}/{version}", responses=gives(VersionStory))
    def version(model: str, version: str) -> Response:
        """One version: its bundle for each profile, where it comes from, its aliases over time."""
        told = version_story(parts.store, model, version)
        if told is None:
            raise NotFoundError(f"no bundle of {model[:64]!r} {version[:64]!r} is published")
        return answer(told)

    @router.get("/models/{model}", responses=gives(Page[AliasRow]))
    def aliases(model: str, after: str = "", limit: int = 100) -> Response:
        """Every change of every alias of a model, oldest first."""
        return answer(appended(parts.store.alias_history(model), after, limit))

    @router.post(
        "/models/{model}/aliases/{alias}",
        responses=gives(AliasRow),
        openapi_extra=takes(AliasWish),
    )
    async def alias(model: str, alias: str, request: Request) -> Response:
        """Let an alias mean a version; an empty version takes it away."""
        asked = read_json(AliasWish, await read_body(request, MAX_BODY), "the alias")
        wanted = AliasRow(
            model=model,
            alias=alias,
            version=asked.version,
            by=person(request),
            reason=asked.reason,
            at=parts.now(),
        )
        return answer(await run_in_threadpool(set_alias, parts.store, wanted))

    @router.get("/devices/{device}/ran", responses=gives(Page[RunRow]))
    def ran(device: str, at: float | None = None, after: str = "", limit: int = LINE) -> Response:
        """What a device ran at a time (Unix seconds), or all that it ran, newest first."""
        if parts.store.device(device) is None:
            raise NotFoundError(f"there is no device {device[:64]!r}")
        if at is None:
            rows = parts.store.runs(device, MOST_RUNS)
            return answer(page_of(rows, _run_key, after, limit))
        run = parts.store.ran(device, at)
        return answer(Page((run,) if run else ()))
