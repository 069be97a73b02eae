"""`edge user`, `edge token`, `edge audit`: who may do what, and who did."""

import os
from pathlib import Path

import click
import msgspec

from edge_sdk.errors import FormatError, InvalidInputError
from fleet_server.access import ROLES, SCOPES
from fleet_server.audit import AuditEntry, verify
from fleet_server.cli.asking import asks
from fleet_server.cli.table import moment, table
from fleet_server.client import Client

SHOWN = 50


def _show(content: object, words: str, *, as_json: bool) -> None:
    click.echo(msgspec.json.format(msgspec.json.encode(content)).decode() if as_json else words)


@click.group()
def user() -> None:
    """People who may use the server."""


@user.command(name="list")
@asks
def list_users(client: Client, *, as_json: bool) -> None:
    """Everybody, by name."""
    rows = client.users()
    cells = [[u.name, u.role, "disabled" if u.disabled else "", moment(u.created_at)] for u in rows]
    _show(rows, table(["NAME", "ROLE", "", "SINCE"], cells), as_json=as_json)


@user.command()
@click.argument("name")
@click.option("--role", type=click.Choice(list(ROLES)), default="viewer", show_default=True)
@click.option("--no-password", is_flag=True, help="For one who logs in elsewhere (OIDC).")
@asks
def add(client: Client, name: str, role: str, *, no_password: bool, as_json: bool) -> None:
    """Add a user; the password is asked for, or read from EDGE_PASSWORD."""
    made = client.add_user(name, role, "" if no_password else _password())
    _show(made, f"{made.name} is {made.role}", as_json=as_json)


@user.command()
@click.argument("name")
@asks
def passwd(client: Client, name: str, *, as_json: bool) -> None:
    """Give a user another password; their open sessions end."""
    changed = client.set_password(name, _password())
    _show(changed, f"{changed.name} has another password", as_json=as_json)


@user.command()
@click.argument("name")
@click.argument("role", type=click.Choice(list(ROLES)))
@asks
def role(client: Client, name: str, role: str, *, as_json: bool) -> None:
    """Give a user another role."""
    changed = client.set_role(name, role)
    _show(changed, f"{changed.name} is {changed.role}", as_json=as_json)


@user.command()
@click.argument("name")
@asks
def disable(client: Client, name: str, *, as_json: bool) -> None:
    """Shut a user out: sessions end, tokens stop."""
    changed = client.disable_user(name)
    _show(changed, f"{name} is shut out; 'edge user enable {name}' undoes it", as_json=as_json)


@user.command()
@click.argument("name")
@asks
def enable(client: Client, name: str, *, as_json: bool) -> None:
    """Let a user in again."""
    _show(client.enable_user(name), f"{name} may log in again", as_json=as_json)


def _password() -> str:
    if given := os.environ.get("EDGE_PASSWORD"):
        return given
    text: str = click.prompt("Password", hide_input=True, confirmation_prompt=True)
    return text


@click.group()
def token() -> None:
    """Tokens by which programs ask in your name."""


@token.command(name="list")
@asks
def list_tokens(client: Client, *, as_json: bool) -> None:
    """Your tokens; an administrator sees everybody's."""
    rows = client.tokens()
    cells = [[t.id, t.user, t.name, " ".join(t.scopes), moment(t.expires_at)] for t in rows]
    _show(rows, table(["ID", "USER", "NAME", "SCOPES", "UNTIL"], cells), as_json=as_json)


@token.command()
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    type=click.Choice(SCOPES),
    multiple=True,
    default=("read",),
    show_default=True,
    help="What it may do; may be repeated.",
)
@click.option("--hours", type=float, default=720.0, show_default=True, help="How long it holds.")
@asks
def new(client: Client, name: str, scopes: tuple[str, ...], hours: float, *, as_json: bool) -> None:
    """Make a token; its text is printed this once. Use it as EDGE_TOKEN."""
    made = client.new_token(name, scopes, hours)
    _show({"token": made}, made, as_json=as_json)


@token.command()
@click.argument("token_id", metavar="ID")
@asks
def revoke(client: Client, token_id: str, *, as_json: bool) -> None:
    """End a token."""
    left = client.revoke_token(token_id)
    _show(left, f"token {token_id} is void", as_json=as_json)


@click.group()
def audit() -> None:
    """Who did what, in a chain that can't be changed unnoticed."""


@audit.command(name="list")
@click.option("--actor", default="", help="Of this user or part of the server alone.")
@click.option("--target", default="", help="About this device, rollout, … alone.")
@asks
def list_audit(client: Client, actor: str, target: str, *, as_json: bool) -> None:
    """Print the newest entries."""
    found = client.audit(actor=actor, target=target)
    rows = [row for row, _ in zip(found, range(SHOWN), strict=False)]
    cells = [[str(r.id), moment(r.at), r.actor, r.action, r.target, r.detail[:80]] for r in rows]
    _show(rows, table(["ID", "AT", "WHO", "WHAT", "TARGET", "DETAIL"], cells), as_json=as_json)


@audit.command()
@asks
def export(client: Client, *, as_json: bool) -> None:  # noqa: ARG001 - it is always JSON
    """Print the whole log, oldest first, one entry a line: for 'edge audit verify FILE'."""
    for row in reversed(list(client.audit())):
        click.echo(msgspec.json.encode(row).decode())


@audit.command(name="verify")
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option("--head", default="", help="A digest noted earlier, which must still be in the log.")
@asks
def verify_audit(client: Client, file: Path | None, head: str, *, as_json: bool) -> None:
    """Check every link of the log, the server's or an exported FILE; exit 3 if one is broken."""
    entries = _read(file) if file else _asked(client)
    count, last = verify(entries, head)
    found = {"entries": count, "head": last}
    _show(found, f"{count} entries, unbroken; note the head {last}", as_json=as_json)


def _asked(client: Client) -> list[AuditEntry]:
    rows = list(client.audit())
    return [AuditEntry(**msgspec.structs.asdict(row)) for row in reversed(rows)]


def _read(file: Path) -> list[AuditEntry]:
    try:
        lines = file.read_bytes().splitlines()
    except OSError as error:
        raise InvalidInputError(f"{file} can't be read: {error.strerror}") from error
    try:
        return [msgspec.json.decode(line, type=AuditEntry) for line in lines]
    except msgspec.DecodeError as error:
        raise FormatError(f"{file} is no exported audit log: {error}") from error
