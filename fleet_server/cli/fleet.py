"""`edge publish`, `rollout`, `device`, `model`, `enroll`: the operator's commands."""

import time
from pathlib import Path

import click
import msgspec

from edge_sdk.errors import InvalidInputError, RefusedError
from fleet_server.cli.asking import asks
from fleet_server.cli.table import ago, table
from fleet_server.client import Client
from fleet_server.views import RolloutRow

STRATEGIES = ("all-at-once", "canary", "staged")
WATCH_SECONDS = 1.0


def _show(content: object, words: str, *, as_json: bool) -> None:
    click.echo(msgspec.json.format(msgspec.json.encode(content)).decode() if as_json else words)


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@asks
def publish(client: Client, files: tuple[Path, ...], *, as_json: bool) -> None:
    """Hand bundle FILES to the server."""
    rows = []
    for path in files:
        try:
            rows.append(client.publish(path.read_bytes()))
        except OSError as error:
            raise InvalidInputError(f"{path} can't be read: {error.strerror}") from error
        except (InvalidInputError, RefusedError) as error:
            raise type(error)(f"{path} was not published: {error}") from error
    words = [f"published {r.model} {r.version} for {r.profile}, {r.digest[:12]}" for r in rows]
    _show(rows, "\n".join(words), as_json=as_json)


@click.group()
def rollout() -> None:
    """Bring a version to devices."""


@rollout.command()
@click.argument("model")
@click.argument("version")
@click.option(
    "--strategy",
    type=click.Choice(STRATEGIES),
    default="canary",
    show_default=True,
    help="How many devices get it when, and what must hold before more do.",
)
@asks
def create(client: Client, model: str, version: str, strategy: str, *, as_json: bool) -> None:
    """Start to bring VERSION of MODEL to the fleet."""
    made = client.create_rollout(model, version, {"name": strategy})
    words = f"{made}: {model} {version} by {strategy}; follow it with: edge rollout watch {made}"
    _show(client.rollout(made).rollout, words, as_json=as_json)


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
    _show(rows, table(head, cells), as_json=as_json)


@rollout.command()
@click.argument("rollout_id", metavar="ID")
@asks
def show(client: Client, rollout_id: str, *, as_json: bool) -> None:
    """One rollout: its phases, its gates as last judged, and what was decided."""
    story = client.rollout(rollout_id)
    row = story.rollout
    lines = [_line(row), ""]
    lines += [f"{p.state:8}{p.name}, {p.devices} devices" for p in row.phases]
    if row.gates:
        lines += ["", *(f"{g.verdict:14}{g.words}" for g in row.gates)]
    if story.decisions:
        made = [(d.at, msgspec.json.decode(d.decision, type=_Decision)) for d in story.decisions]
        words = [f"{_clock(at)}  {d.action} ({d.phase}): {d.reason}" for at, d in reversed(made)]
        lines += ["", *words]
    _show(story, "\n".join(lines), as_json=as_json)


@rollout.command()
@click.argument("rollout_id", metavar="ID")
@asks
@click.pass_context
def watch(ctx: click.Context, client: Client, rollout_id: str, *, as_json: bool) -> None:
    """Follow a rollout; exit 0 if it is promoted, 3 if rolled back, aborted or held."""
    told = ""
    while True:
        row = client.rollout(rollout_id).rollout
        line = _line(row)
        if line != told:
            click.echo(msgspec.json.encode(row).decode() if as_json else line)
            told = line
        if row.status != "running":
            ctx.exit(0 if row.status == "promoted" else RefusedError.exit_code)
        time.sleep(WATCH_SECONDS)


@rollout.command()
@click.argument("rollout_id", metavar="ID")
@asks
def abort(client: Client, rollout_id: str, *, as_json: bool) -> None:
    """End a rollout; its devices go back to what they ran."""
    story = client.abort_rollout(rollout_id)
    _show(story, _line(story.rollout), as_json=as_json)


@click.group()
def device() -> None:
    """The devices of a fleet."""


@device.command(name="list")
@asks
def list_devices(client: Client, *, as_json: bool) -> None:
    """Every device: what it should run, what it says it runs, how it is."""
    rows = client.devices()
    cells = [
        [
            d.id,
            d.profile,
            d.site,
            d.health,
            ago(d.seen_seconds_ago),
            d.model,
            d.wanted,
            d.running,
            d.phase,
            "-" if d.confidence is None else f"{d.confidence:.3f}",
            d.reason or ", ".join(d.drifting),
        ]
        for d in rows
    ]
    head = [
        "DEVICE",
        "PROFILE",
        "SITE",
        "HEALTH",
        "SEEN",
        "MODEL",
        "WANTED",
        "RUNNING",
        "PHASE",
        "CONFIDENCE",
        "NOTE",
    ]
    _show(rows, table(head, cells), as_json=as_json)


@device.command()
@click.argument("device_id", metavar="ID")
@asks
def revoke(client: Client, device_id: str, *, as_json: bool) -> None:
    """Shut a device out: its connection is cut, its credentials are refused."""
    row = client.revoke(device_id)
    _show(row, f"{row.id} is revoked; 'edge device readmit {row.id}' undoes it", as_json=as_json)


@device.command()
@click.argument("device_id", metavar="ID")
@asks
def readmit(client: Client, device_id: str, *, as_json: bool) -> None:
    """Let a revoked device in again, with the key it had."""
    row = client.readmit(device_id)
    _show(row, f"{row.id} may connect again", as_json=as_json)


@device.command()
@click.argument("device_id", metavar="ID")
@click.option("--yes", is_flag=True, help="Don't ask.")
@asks
def forget(client: Client, device_id: str, *, yes: bool, as_json: bool) -> None:
    """Erase all that came from a device: windows, samples, labels, events, what was learnt."""
    if not yes:
        click.confirm(f"erase everything that came from {device_id}?", abort=True)
    rows = client.forget(device_id)
    words = ", ".join(f"{count} {name}" for name, count in rows.items() if count)
    _show(rows, f"{device_id} is forgotten: {words or 'there was nothing'}", as_json=as_json)


@click.group()
def model() -> None:
    """Models and versions of a fleet."""


@model.command(name="list")
@asks
def list_models(client: Client, *, as_json: bool) -> None:
    """Every published bundle, newest first, and how many devices run it."""
    rows = client.bundles()
    cells = [
        [
            b.model,
            b.version,
            b.profile,
            b.recipe,
            f"{b.length:,}",
            f"{b.accuracy:.4f}",
            f"{b.drop:+.4f}",
            str(b.devices),
            b.digest[:12],
        ]
        for b in rows
    ]
    head = [
        "MODEL",
        "VERSION",
        "PROFILE",
        "RECIPE",
        "BYTES",
        "ACCURACY",
        "DROP",
        "DEVICES",
        "DIGEST",
    ]
    _show(rows, table(head, cells), as_json=as_json)


@click.group()
def enroll() -> None:
    """Keys by which devices join."""


@enroll.group()
def key() -> None:
    """Enrolment keys."""


@key.command()
@click.option("--uses", type=click.IntRange(1), default=1, show_default=True, help="Devices.")
@click.option("--hours", type=float, default=24.0, show_default=True, help="How long it holds.")
@click.option("--note", default="", help="What it is for.")
@click.option("--device", default="", help="For this one alone, which may bring another key.")
@asks
def new(client: Client, uses: int, hours: float, note: str, device: str, *, as_json: bool) -> None:
    """Make a key; its text is printed this once."""
    made = client.new_enrolment_key(uses=uses, hours=hours, note=note, device=device)
    _show(made, made.token, as_json=as_json)


class _Decision(msgspec.Struct):
    action: str
    phase: str
    reason: str


def _line(row: RolloutRow) -> str:
    now = next((phase.name for phase in row.phases if phase.state == "now"), "")
    where = f" ({now})" if now and row.status in ("running", "held") else ""
    words = [f"{row.confirmed} of {row.total} confirmed"]
    if row.failed:
        words.append(f"{row.failed} failed")
    if row.reason:
        words.append(row.reason)
    return f"{row.id} {row.model} {row.version}: {row.status}{where}, {', '.join(words)}"


def _clock(at: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(at))
