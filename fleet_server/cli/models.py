"""`edge model`: versions, their aliases over time, and where they come from."""

import click

from fleet_server.cli.asking import asks, show
from fleet_server.cli.table import moment, table
from fleet_server.client import Client


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
    show(rows, table(head, cells), as_json=as_json)


@model.command(name="show")
@click.argument("name", metavar="MODEL")
@click.argument("version")
@asks
def show_version(client: Client, name: str, version: str, *, as_json: bool) -> None:
    """One version: a bundle for each profile, where it comes from, what it was called when."""
    story = client.version(name, version)
    called = f", {', '.join(story.aliases)}" if story.aliases else ""
    lines = [f"{name} {version}{called}; {story.running} devices run it", ""]
    for one in story.artefacts:
        lines.append(
            f"{one.profile}: {one.length:,} bytes by {one.recipe}, accuracy {one.accuracy:.4f} "
            f"({one.drop:+.4f}), {one.digest[:12]}"
        )
        lines += [f"  {key}: {value}" for key, value in one.lineage.items() if value]
    if story.history:
        lines += ["", *(_change(a.at, a.alias, a.version, a.by, a.reason) for a in story.history)]
    show(story, "\n".join(lines), as_json=as_json)


@model.command()
@click.argument("name", metavar="MODEL")
@click.argument("alias", required=False)
@click.argument("version", required=False)
@click.option("--remove", is_flag=True, help="Let the alias mean nothing any more.")
@click.option("--reason", default="", help="Why, for the history.")
@asks
def alias(  # noqa: PLR0913 - one option each
    client: Client,
    name: str,
    alias: str | None,
    version: str | None,
    *,
    remove: bool,
    reason: str,
    as_json: bool,
) -> None:
    """Let ALIAS of MODEL mean VERSION; without them, tell what every alias meant when."""
    if alias is None:
        rows = client.aliases(name)
        lines = [_change(a.at, a.alias, a.version, a.by, a.reason) for a in rows]
        show(rows, "\n".join(lines) or f"{name} has no alias", as_json=as_json)
        return
    if remove == (version is not None):
        raise click.UsageError("give a VERSION for the alias, or --remove")
    made = client.set_alias(name, alias, version or "", reason)
    words = f"{alias} of {name} is {made.version}" if made.version else f"{alias} means nothing now"
    show(made, words, as_json=as_json)


def _change(at: float, alias: str, version: str, by: str, reason: str) -> str:
    why = f": {reason}" if reason else ""
    return f"{moment(at)}  {alias} = {version or '(nothing)'}, by {by}{why}"
