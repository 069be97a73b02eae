"""`edge trust`: the signed repository that says which bundles devices may take."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import msgspec

from edge_sdk.errors import InvalidInputError, RefusedError
from edge_sdk.profiles import profile_names
from edge_sdk.signing import SigningKey
from fleet_server.cli.places import default_data_dir
from fleet_server.cli.table import ago, table
from fleet_server.data_dir import KEYS, TRUST
from fleet_server.trust import ceremony
from fleet_server.trust.founding import create
from fleet_server.trust.repository import Repository, Standing
from fleet_server.trust.roles import PREFIX


def _now() -> float:
    return time.time()  # noqa: TID251 - this is the edge: it hands out the clock


def _places(command: Callable[..., Any]) -> Callable[..., Any]:
    """--dir and --keys, which every command here has."""
    path = click.Path(path_type=Path, file_okay=False)
    command = click.option(
        "--keys",
        type=path,
        default=lambda: default_data_dir() / KEYS,
        show_default="'keys' in the server's data folder",
        help="Where the keys are that this machine may sign with.",
    )(command)
    return click.option(
        "--dir",
        "folder",
        type=path,
        default=lambda: default_data_dir() / TRUST,
        show_default="'trust' in the server's data folder",
        help="The repository.",
    )(command)


def _open(folder: Path, keys: Path) -> Repository:
    found = Repository(folder, keys)
    if not found.folder.exists():
        raise InvalidInputError(f"{folder} holds no repository: make one with 'edge trust init'")
    return found


@click.group()
def trust() -> None:
    """The signed list of bundles that devices believe: a TUF repository.

    root and targets are signed by keys that belong on a machine without a network; the server
    itself signs which bundles there are for each delegated profile, and that this is still so.
    """


@trust.command()
@_places
@click.option("--root-keys", type=click.IntRange(1, 20), default=1, show_default=True)
@click.option(
    "--threshold",
    type=click.IntRange(1, 20),
    default=1,
    show_default=True,
    help="How many of the root keys must sign a new root.",
)
@click.option(
    "--profile",
    "profiles",
    multiple=True,
    help="A hardware profile to delegate; may be repeated.  [default: all that are shipped]",
)
def init(
    folder: Path, keys: Path, root_keys: int, threshold: int, profiles: tuple[str, ...]
) -> None:
    """Make a repository and its keys, before the server's first start."""
    names = list(profiles or profile_names())
    made = create(
        folder, keys, profiles=names, root_keys=root_keys, threshold=threshold, now=_now()
    )
    click.echo(
        f"made {folder} for {', '.join(names)}\n"
        f"root {made.root_digest[:16]}, signed by {threshold} of {root_keys}\n"
        f"move {keys}/root*.pem and {keys}/targets.pem to a machine that is offline; "
        "the server needs the others"
    )


@trust.command()
@_places
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def status(folder: Path, keys: Path, *, as_json: bool) -> None:
    """Show every role: version, when it expires, whose signature it needs.

    Ends with 3 if one has expired or was not renewed in time.
    """
    now = _now()
    found = _open(folder, keys).standing(now)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(found)).decode())
    else:
        click.echo(table(_HEAD, [_row(role, now) for role in found]))
    problems = [role.problem for role in found if role.problem]
    if problems:
        raise RefusedError("; ".join(problems))


_HEAD = ("ROLE", "VERSION", "EXPIRES IN", "LISTS", "KEYS", "STAGED")


def _row(role: Standing, now: float) -> tuple[str, ...]:
    left = role.expires - now
    waits = "" if role.missing is None else f"lacks {role.missing}"
    return (
        role.role,
        str(role.version),
        ago(left) if left > 0 else f"expired {ago(-left)} ago",
        str(role.targets) if role.role.startswith(PREFIX) else "",
        f"{role.threshold} of {', '.join(keyid[:8] for keyid in role.keys)}",
        waits,
    )


@trust.command()
@click.argument("role")
@_places
@click.option("--revoke", default="", help="The key to replace, if the role has several.")
def rotate(role: str, folder: Path, keys: Path, revoke: str) -> None:
    """Give ROLE a new key in place of its old one.

    A new root or targets that lacks signatures is staged until 'edge trust sign' brings them.
    """
    click.echo(str(ceremony.rotate(_open(folder, keys), role, _now(), revoke)))


@trust.command()
@click.argument("profile")
@_places
def delegate(profile: str, folder: Path, keys: Path) -> None:
    """Let the server list bundles for one more PROFILE; needs the targets key."""
    click.echo(str(ceremony.delegate(_open(folder, keys), profile, _now())))


@trust.command()
@click.argument("role", type=click.Choice(["root", "targets"]))
@click.option("--key", type=click.Path(path_type=Path), required=True, help="A private key (PEM).")
@_places
def sign(role: str, key: Path, folder: Path, keys: Path) -> None:
    """Add a signature to the staged ROLE; with enough of them it is published."""
    done = ceremony.sign(_open(folder, keys), role, SigningKey.load(key), _now())
    click.echo(str(done))


@trust.command()
@click.argument("model")
@click.argument("version")
@_places
def withdraw(model: str, version: str, folder: Path, keys: Path) -> None:
    """Take VERSION of MODEL off the list: no device takes it any more, whoever orders it.

    Devices that run it keep it. 'edge publish' with the same file lists it again.
    """
    gone = _open(folder, keys).withdraw(model, version, _now())
    if not gone:
        raise InvalidInputError(f"{model} {version} is not listed here: 'edge trust status'")
    click.echo("\n".join(f"withdrawn {path}" for path in gone))
