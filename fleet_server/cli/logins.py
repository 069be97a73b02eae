"""`edge login`, `edge logout`: ask a server in one's own name, and where what it gave is kept."""

import os
import platform
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import click
import msgspec

from edge_sdk.errors import EdgeError, InvalidInputError
from edge_sdk.files import private, write_atomic
from edge_sdk.formats import from_json, to_json
from fleet_server.access import SCOPES, SESSION_SECONDS
from fleet_server.client import Client

HOURS = SESSION_SECONDS / 3600


class Login(msgspec.Struct, frozen=True, kw_only=True):
    """A server that somebody logged in at.

    Attributes:
        token: with it, what is asked is asked in that person's name.
        until: when it ends by itself, Unix seconds.
        ca: path of the CA certificate that HTTPS is checked by; empty for the system's.
    """

    format: int = 1
    server: str
    token: str
    until: float
    ca: str = ""

    def __repr__(self) -> str:
        return f"Login({self.server})"

    def client(self, now: float) -> Client:
        """Raises InvalidInputError if it ended."""
        if self.until <= now:
            raise InvalidInputError(
                f"your log-in at {self.server} has ended: "
                f"'edge login --server {self.server}' again, or 'edge logout'"
            )
        return Client(self.server, self.token, Path(self.ca) if self.ca else None)


def place() -> Path:
    """`login.json` in the user's folder for settings."""
    given = os.environ.get("XDG_CONFIG_HOME", "")
    folder = Path(given) if Path(given).is_absolute() else Path.home() / ".config"
    return folder / "edge" / "login.json"


def current() -> Login | None:
    """Where one is logged in; raises InvalidInputError for a file that others can read."""
    path = place()
    if not path.exists():
        return None
    if not private(path):
        raise InvalidInputError(f"{path} is open to other users: chmod 600 {path}")
    return from_json(Login, path.read_bytes(), str(path))


@click.command()
@click.option("--server", envvar="EDGE_SERVER", metavar="URL", required=True, help="Its address.")
@click.option("--user", "name", help="Your name there.  [default: asked for]")
@click.option(
    "--ca",
    envvar="EDGE_CA",
    type=click.Path(path_type=Path),
    help="The server's CA certificate.  [default: HTTPS is checked as the system does]",
)
@click.option(
    "--scope",
    "scopes",
    type=click.Choice(SCOPES),
    multiple=True,
    help="What the commands may do; may be repeated.  [default: all that you may]",
)
@click.option("--hours", type=float, default=HOURS, show_default=True, help="How long it holds.")
@click.option(
    "--token", "by_token", is_flag=True, help="With a token of your page, not a password."
)
def login(
    server: str,
    name: str | None,
    ca: Path | None,
    scopes: tuple[str, ...],
    hours: float,
    *,
    by_token: bool,
) -> None:
    """Let the commands of this machine ask a server in your own name.

    The password, or with --token a token made on the server's page 'You', is asked for, or read
    from EDGE_PASSWORD or EDGE_TOKEN or a line of the standard input.
    """
    if by_token:
        token = _secret("Token", "EDGE_TOKEN")
    else:
        known = name or str(click.prompt("Name"))
        with Client.of_person(server, known, _secret("Password", "EDGE_PASSWORD"), ca) as asking:
            token = asking.new_token(f"edge login on {platform.node()}"[:64], scopes or None, hours)
    until = time.time() + hours * 3600  # noqa: TID251 - this is the edge
    kept = Login(
        server=server.rstrip("/"), token=token, until=until, ca=str(ca.resolve()) if ca else ""
    )
    with kept.client(0.0) as fleet:
        me = fleet.me()
    place().parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_atomic(place(), to_json(kept), mode=0o600)
    click.echo(f"{me.name.partition('/')[0]} at {server}, who may: {', '.join(me.scopes)}")


@click.command()
def logout() -> None:
    """End what 'edge login' was given, on the server and here."""
    found = current()
    words = _ended(found) if found else "not logged in anywhere"
    place().unlink(missing_ok=True)
    click.echo(words)


def _ended(found: Login) -> str:
    now = time.time()  # noqa: TID251 - this is the edge
    if found.until <= now:
        return f"the log-in at {found.server} had ended by itself"
    try:
        with found.client(now) as fleet:
            fleet.log_out()
    except EdgeError as error:
        until = datetime.fromtimestamp(found.until, UTC).strftime("%Y-%m-%d %H:%M UTC")
        return f"forgotten here; {found.server} was not told, it holds there until {until}: {error}"
    return f"logged out of {found.server}"


def _secret(what: str, variable: str) -> str:
    if given := os.environ.get(variable):
        return given.strip()
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\r\n")
    text: str = click.prompt(what, hide_input=True)
    return text
