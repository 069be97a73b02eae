"""`edge webhook`: what happens in the fleet, told to other services."""

from itertools import islice

import click
import msgspec

from fleet_server.cli.asking import asks
from fleet_server.cli.table import moment, table
from fleet_server.client import Client


def _show(content: object, words: str, *, as_json: bool) -> None:
    click.echo(msgspec.json.format(msgspec.json.encode(content)).decode() if as_json else words)


@click.group()
def webhook() -> None:
    """Other services that hear what happens."""


@webhook.command(name="list")
@asks
def list_hooks(client: Client, *, as_json: bool) -> None:
    """Every webhook, and how its deliveries go."""
    rows = client.webhooks()
    cells = [
        [h.id, h.url, h.events or "all", str(h.delivered), str(h.failures), h.last_error]
        for h in rows
    ]
    head = ["ID", "URL", "EVENTS", "DELIVERED", "FAILING", "WHY"]
    _show(rows, table(head, cells), as_json=as_json)


@webhook.command()
@click.argument("url")
@click.option("--event", "events", multiple=True, help="Names that begin so; may be repeated.")
@click.option("--private", is_flag=True, help="It may be an address that is not public.")
@asks
def add(client: Client, url: str, events: tuple[str, ...], *, private: bool, as_json: bool) -> None:
    """Tell URL what happens: https://…, or mailto:NAME@HOST (alerts, unless told otherwise).

    The secret that signs deliveries is printed this once.
    """
    made = client.add_webhook(url, events, private=private)
    by_mail = url.startswith("mailto:")
    words = f"{made.id} writes to {url}" if by_mail else f"{made.id} signs with {made.secret}"
    _show(made, words, as_json=as_json)


@webhook.command()
@click.argument("hook", metavar="ID")
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True)
@asks
def log(client: Client, hook: str, limit: int, *, as_json: bool) -> None:
    """The last tries to tell a webhook: when, of what, and what its receiver answered."""
    rows = list(islice(client.deliveries(hook), limit))
    cells = [
        [moment(d.at), str(d.event), d.name, str(d.status or "-"), f"{d.seconds:.2f} s", d.error]
        for d in rows
    ]
    _show(rows, table(["AT", "EVENT", "NAME", "STATUS", "TOOK", "WHY"], cells), as_json=as_json)


@webhook.command()
@click.argument("hook", metavar="ID")
@asks
def remove(client: Client, hook: str, *, as_json: bool) -> None:
    """End a webhook."""
    _show(client.remove_webhook(hook), f"{hook} is gone", as_json=as_json)
