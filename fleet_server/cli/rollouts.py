"""`edge rollout`: plan, start, follow and steer how a version comes to devices."""

import time
from pathlib import Path
from typing import Any

import click
import msgspec

from edge_sdk.errors import InvalidInputError, RefusedError
from fleet_server.cli.asking import asks, show
from fleet_server.cli.table import ago, moment, read_moment, table
from fleet_server.client import Client
from fleet_server.views import RolloutPlan, RolloutRow

STRATEGIES = ("all-at-once", "canary", "staged", "blue-green", "shadow", "ab")
WATCH_SECONDS = 1.0
GOING = ("scheduled", "running")  # the rest waits for a person, or is over
DEVICES_SHOWN = 20


@click.group()
def rollout() -> None:
    """Bring a version to devices."""


_strategy = click.option(
    "--strategy",
    type=click.Choice(STRATEGIES),
    default="canary",
    show_default=True,
    help="How many devices get it when and in which role, and what must hold before more do.",
)
_file = click.option(
    "--strategy-file",
    type=click.Path(path_type=Path),
    help="A strategy of your own, or changes to the named one, as JSON or TOML.",
)


@rollout.command()
@click.argument("model")
@click.argument("version")
@_strategy
@_file
@asks
def plan(
    client: Client,
    model: str,
    version: str,
    strategy: str,
    strategy_file: Path | None,
    *,
    as_json: bool,
) -> None:
    """Who would get VERSION when, who can't and why, how long it takes, what the gates can see."""
    found = client.plan_rollout(model, version, _document(strategy, strategy_file))
    show(found, _plan_words(found), as_json=as_json)


@rollout.command()
@click.argument("model")
@click.argument("version")
@_strategy
@_file
@click.option("--start-at", default="", help="Begin then: 2026-01-31T02:00, or Unix seconds.")
@click.option("--supersede", is_flag=True, help="Take over from a rollout that is under way.")
@asks
def create(  # noqa: PLR0913 - one option each
    client: Client,
    model: str,
    version: str,
    strategy: str,
    strategy_file: Path | None,
    start_at: str,
    *,
    supersede: bool,
    as_json: bool,
) -> None:
    """Start to bring VERSION of MODEL to the fleet."""
    made = client.create_rollout(
        model,
        version,
        _document(strategy, strategy_file),
        start_at=read_moment(start_at) if start_at else 0.0,
        supersede=supersede,
    )
    row = client.rollout(made).rollout
    words = (
        f"{made}: {model} {version} by {row.strategy}; follow it with: edge rollout watch {made}"
    )
    show(row, words, as_json=as_json)


@rollout.command(name="list")
@asks
def list_rollouts(client: Client, *, as_json: bool) -> None:
    """Every rollout, newest first."""
    rows = client.rollouts()
    cells = [
        [r.id, r.model, r.version, r.strategy, r.status, f"{r.confirmed}/{r.total}", r.reason]
        for r in rows
    ]
    head = ["ID", "MODEL", "VERSION", "STRATEGY", "STATUS", "CONFIRMED", "REASON"]
    show(rows, table(head, cells), as_json=as_json)


@rollout.command(name="show")
@click.argument("rollout_id", metavar="ID")
@click.option("--devices", is_flag=True, help="Also every device, where it stands and why.")
@asks
def show_rollout(client: Client, rollout_id: str, *, devices: bool, as_json: bool) -> None:
    """One rollout: its phases, its gates as last judged, its devices, and what was decided."""
    story = client.rollout(rollout_id)
    row = story.rollout
    lines = [_line(row), ""]
    lines += [f"{p.state:8}{p.name}, {p.devices} devices to {p.role}" for p in row.phases]
    if row.gates:
        lines += ["", *(f"{g.verdict:14}{g.words}" for g in row.gates)]
    if row.standings:
        counts = sorted(row.standings.items(), key=lambda pair: -pair[1])
        lines += ["", ", ".join(f"{n} {where}" for where, n in counts)]
    if devices:
        lines += ["", _device_table(client, rollout_id)]
    if story.decisions:
        made = [(d.at, msgspec.json.decode(d.decision, type=_Decision)) for d in story.decisions]
        words = [f"{moment(at)}  {d.action} ({d.phase}): {d.reason}" for at, d in reversed(made)]
        lines += ["", *words]
    show(story, "\n".join(lines), as_json=as_json)


@rollout.command()
@click.argument("rollout_id", metavar="ID")
@asks
@click.pass_context
def watch(ctx: click.Context, client: Client, rollout_id: str, *, as_json: bool) -> None:
    """Follow a rollout; exit 0 if it is promoted, 3 if it ends otherwise or needs a person."""
    told = ""
    while True:
        row = client.rollout(rollout_id).rollout
        line = _line(row)
        if line != told:
            click.echo(msgspec.json.encode(row).decode() if as_json else line)
            told = line
        if row.status not in GOING:
            ctx.exit(0 if row.status == "promoted" else RefusedError.exit_code)
        time.sleep(WATCH_SECONDS)


def _steering(word: str, told: str) -> None:
    """The command `word`, which asks the server to do just that to a rollout."""

    @rollout.command(name=word, help=told)
    @click.argument("rollout_id", metavar="ID")
    @click.option("--reason", default="", help="Why, for the log.")
    @asks
    def steer(client: Client, rollout_id: str, reason: str, *, as_json: bool) -> None:
        story = client.command_rollout(rollout_id, word, reason)
        show(story, _line(story.rollout), as_json=as_json)


for _word, _told in {
    "pause": "Give no more orders until it is resumed.",
    "resume": "Go on after a pause; let a promotion stand that was called in question.",
    "approve": "As a second person, let its next phase begin.",
    "retry": "Give the devices that failed their order once more.",
    "abort": "End a rollout; devices that confirmed the version keep it.",
    "rollback": "End a rollout, or undo one that ended; its devices go back to what they ran.",
}.items():
    _steering(_word, _told)


class _Decision(msgspec.Struct):
    action: str
    phase: str
    reason: str


def _document(name: str, path: Path | None) -> dict[str, Any]:
    """The strategy to ask for."""
    if path is None:
        return {"name": name}
    decode = msgspec.toml.decode if path.suffix == ".toml" else msgspec.json.decode
    try:
        told = decode(path.read_bytes())
    except OSError as error:
        raise InvalidInputError(f"{path} can't be read: {error.strerror}") from error
    except msgspec.DecodeError as error:
        raise InvalidInputError(f"{path} can't be read: {error}") from error
    if not isinstance(told, dict):
        raise InvalidInputError(f"{path} must hold one object, the strategy")
    return {"name": name, **told}


def _plan_words(found: RolloutPlan) -> str:
    reached = [d for d in found.devices if not d.why_not]
    lines = [
        f"{found.model} {found.version} by {found.strategy}: {len(reached)} of "
        f"{len(found.devices)} devices, {found.bytes:,} bytes, {ago(found.seconds)} at least",
        "",
        *(f"{name}: {count} devices to {role}" for name, role, count in found.phases),
    ]
    left_out = [d for d in found.devices if d.why_not]
    lines += [f"not {d.device}: {d.why_not}" for d in left_out[:DEVICES_SHOWN]]
    if len(left_out) > DEVICES_SHOWN:
        lines.append(f"and {len(left_out) - DEVICES_SHOWN} more: see --json")
    if found.detectable:
        lines += ["", *(d.words for d in found.detectable)]
    return "\n".join(lines)


def _device_table(client: Client, rollout_id: str) -> str:
    cells = [
        [
            d.device,
            d.site,
            d.profile,
            d.phase,
            d.standing,
            moment(d.since) if d.since else "-",
            d.reason,
        ]
        for d in client.rollout_devices(rollout_id)
    ]
    return table(["DEVICE", "SITE", "PROFILE", "PHASE", "STANDING", "SINCE", "REASON"], cells)


def _line(row: RolloutRow) -> str:
    now = next((phase.name for phase in row.phases if phase.state == "now"), "")
    where = f" ({now})" if now else ""
    words = [f"{row.confirmed} of {row.total} confirmed"]
    if row.failed:
        words.append(f"{row.failed} failed")
    if row.reason:
        words.append(row.reason)
    return f"{row.id} {row.model} {row.version}: {row.status}{where}, {', '.join(words)}"
