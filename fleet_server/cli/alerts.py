"""`edge alert`: what needs a person's eye."""

import click

from fleet_server.cli.asking import asks, show
from fleet_server.cli.table import moment, table
from fleet_server.client import Client


@click.group()
def alert() -> None:
    """What needs a person's eye."""


@alert.command(name="list")
@click.option("--all", "over", is_flag=True, help="Also what is over, what ended last first.")
@click.option("--kind", default="", help="Only of this kind: 'data drift', novelty, …")
@click.option("--model", default="", help="Only about this model.")
@asks
def list_alerts(client: Client, kind: str, model: str, *, over: bool, as_json: bool) -> None:
    """What needs a person, the costliest first."""
    filters = {"kind": kind, "model": model}
    rows = client.alerts(**filters) if over else client.open_alerts(**filters)
    cells = [[a.id, a.state, a.severity, a.kind, a.scope, str(a.devices), a.title] for a in rows]
    head = ["ID", "STATE", "SEVERITY", "KIND", "SCOPE", "DEVICES", "WHAT"]
    show(rows, table(head, cells), as_json=as_json)


@alert.command(name="show")
@click.argument("alert_id", metavar="ID")
@asks
def show_alert(client: Client, alert_id: str, *, as_json: bool) -> None:
    """One alert: what moved, why, what it costs, what to do."""
    row = client.alert(alert_id)
    lines = [
        f"{row.id} {row.severity}, {row.state}: {row.title}",
        row.detail,
        f"likely cause: {row.cause}" if row.cause else "",
        f"what to do: {row.action}" if row.action else "",
        f"began: {moment(row.since)}, told: {moment(row.opened_at)}" if row.since else "",
        f"versions: {', '.join(row.versions)}" if row.versions else "",
        f"devices: {', '.join(row.device_ids[:20])}" if row.device_ids else "",
    ]
    show(row, "\n".join(line for line in lines if line), as_json=as_json)


@alert.command()
@click.argument("alert_id", metavar="ID")
@asks
def ack(client: Client, alert_id: str, *, as_json: bool) -> None:
    """Say that a person has seen an alert."""
    row = client.acknowledge(alert_id)
    show(row, f"{row.id} is {row.state}: {row.title}", as_json=as_json)


@alert.command()
@click.argument("alert_id", metavar="ID")
@click.option("--hours", type=float, default=24.0, show_default=True, help="For how long.")
@asks
def mute(client: Client, alert_id: str, hours: float, *, as_json: bool) -> None:
    """Hear nothing of an alert for some hours; it opens again if its cause is still there."""
    row = client.mute(alert_id, hours)
    until = moment(row.muted_until or 0.0)
    show(row, f"{row.id} is {row.state} until {until}", as_json=as_json)
