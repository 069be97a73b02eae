"""`edge profile`: the boards that models can be converted for."""

import click
import msgspec

from edge_sdk.profiles import HardwareProfile, load_profile, profile_names


@click.group()
def profile() -> None:
    """Hardware profiles."""


@profile.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list.")
def list_profiles(as_json: bool) -> None:  # noqa: FBT001 - click hands it over by name
    """The boards that are known; your own are given by path."""
    found = [load_profile(name) for name in profile_names()]
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(found)))
        return
    width = max(len(board.name) for board in found)
    for board in found:
        click.echo(f"{board.name:{width}}  {board.title} ({', '.join(board.precisions)})")


@profile.command()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def show(name: str, as_json: bool) -> None:  # noqa: FBT001 - click hands it over by name
    """One board, by NAME or by the path of a .toml file."""
    board = load_profile(name)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(board)))
        return
    for what, value in lines(board):
        click.echo(f"{what:16}{value}")


def lines(board: HardwareProfile) -> list[tuple[str, str]]:
    """A profile in words."""
    slowdown = "unknown, so no latency is estimated"
    if board.slowdown is not None:
        slowdown = f"about {board.slowdown:g} x this host ({board.slowdown_source})"
    return [
        ("name", board.name),
        ("board", board.title),
        ("cpu", f"{board.cpu}, {board.architecture}"),
        ("runtime", board.runtime),
        ("precisions", ", ".join(board.precisions)),
        ("ops", ", ".join(board.ops) or "every built-in one"),
        ("RAM for a model", f"{board.ram_bytes:,} bytes"),
        ("flash", f"{board.flash_bytes:,} bytes"),
        ("latency budget", f"{board.latency_budget_ms:g} ms"),
        ("slowdown", slowdown),
        ("threads", str(board.threads)),
        ("power", "unknown" if board.power_watts is None else f"{board.power_watts:g} W"),
    ]
