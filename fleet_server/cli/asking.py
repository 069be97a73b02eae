"""How a command that asks the server gets its client."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import msgspec

from fleet_server.cli.places import open_client


def show(content: object, words: str, *, as_json: bool) -> None:
    """Print an answer for people, or as JSON."""
    click.echo(msgspec.json.format(msgspec.json.encode(content)).decode() if as_json else words)


def asks(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command its client, made from --server and --data-dir."""

    @click.option("--server", envvar="EDGE_SERVER", metavar="URL", help="The server's address.")
    @click.option(
        "--data-dir",
        envvar="EDGE_DATA_DIR",
        type=click.Path(path_type=Path),
        help="The server's data folder, for its address and token; else EDGE_TOKEN is used.",
    )
    @click.option("--json", "as_json", is_flag=True, help="Print JSON.")
    @functools.wraps(command)
    def asking(*, server: str | None, data_dir: Path | None, **given: object) -> object:
        with open_client(server, data_dir) as client:
            return command(client, **given)

    return asking
