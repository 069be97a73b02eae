"""`edge publish`, `device`, `enroll`: the operator's commands."""

from pathlib import Path

import click

from edge_sdk.errors import InvalidInputError, RefusedError
from fleet_server.cli.asking import asks, show
from fleet_server.cli.table import ago, moment, read_moment, table
from fleet_server.client import Client


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
    show(rows, "\n".join(words), as_json=as_json)


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
    show(rows, table(head, cells), as_json=as_json)


@device.command()
@click.argument("device_id", metavar="ID")
@asks
def revoke(client: Client, device_id: str, *, as_json: bool) -> None:
    """Shut a device out: its connection is cut, its credentials are refused."""
    row = client.revoke(device_id)
    show(row, f"{row.id} is revoked; 'edge device readmit {row.id}' undoes it", as_json=as_json)


@device.command()
@click.argument("device_id", metavar="ID")
@asks
def readmit(client: Client, device_id: str, *, as_json: bool) -> None:
    """Let a revoked device in again, with the key it had."""
    row = client.readmit(device_id)
    show(row, f"{row.id} may connect again", as_json=as_json)


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
    show(rows, f"{device_id} is forgotten: {words or 'there was nothing'}", as_json=as_json)


@device.command()
@click.argument("device_id", metavar="ID")
@click.option("--at", default="", help="At this time: 2026-01-31T12:00, or Unix seconds.")
@asks
def ran(client: Client, device_id: str, at: str, *, as_json: bool) -> None:
    """What a device ran, newest first, or what it ran at one moment."""
    rows = client.ran(device_id, read_moment(at) if at else None)
    cells = [[moment(r.at), r.model, r.version, r.digest[:12], r.beside[:12]] for r in rows]
    words = table(["SINCE", "MODEL", "VERSION", "DIGEST", "BESIDE"], cells)
    show(rows, words if rows else "nothing was heard of it until then", as_json=as_json)


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
    show(made, made.token, as_json=as_json)
