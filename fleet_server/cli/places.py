"""Where things lie if nobody says: the server's data, its operators' token, the publisher's key."""

import os
import time
from pathlib import Path

from edge_sdk.errors import InvalidInputError
from fleet_server.cli.logins import current
from fleet_server.client import Client
from fleet_server.data_dir import ca_file, read_admin_token, read_running

URL = "http://127.0.0.1:8080"


def default_data_dir() -> Path:
    """`edge-server` in the user's folder for data."""
    return _user_folder("XDG_DATA_HOME", Path(".local") / "share") / "edge-server"


def default_publisher() -> Path:
    """The public half of the key that `edge convert` signs with."""
    named = os.environ.get("EDGE_SIGNING_KEY")
    own = _user_folder("XDG_CONFIG_HOME", Path(".config")) / "edge" / "signing.key"
    return (Path(named) if named else own).with_suffix(".pub")


def open_client(server: str | None, data_dir: Path | None) -> Client:
    """A client for the server that is meant.

    The token comes from EDGE_TOKEN, from `edge login`, or from the server's data folder. That of
    a log-in or of the default folder goes to its own server only, never to another address given
    by hand. The CA certificate comes from EDGE_CA or from where the token does; without both HTTPS
    is checked as the system does.

    Raises:
        InvalidInputError: no token for that server.
    """
    folder = data_dir or default_data_dir()
    token = os.environ.get("EDGE_TOKEN", "").strip()
    person = current() if not token and data_dir is None else None
    if person and server in (None, person.server, f"{person.server}/"):
        return person.client(time.time())  # noqa: TID251 - this is the edge
    if not token and server and data_dir is None:
        raise InvalidInputError(
            f"you are not logged in at {server}: 'edge login --server {server}', or put a token "
            "into EDGE_TOKEN, or name the server's own folder with --data-dir"
        )
    if server is None:
        running = read_running(folder)
        server = running.url if running else URL
    ca = Path(os.environ["EDGE_CA"]) if os.environ.get("EDGE_CA") else ca_file(folder)
    given = bool(os.environ.get("EDGE_CA")) or ca.exists()
    https = server.startswith("https:")
    return Client(server, token or read_admin_token(folder), ca if https and given else None)


def _user_folder(variable: str, fallback: Path) -> Path:
    given = os.environ.get(variable, "")
    return Path(given) if Path(given).is_absolute() else Path.home() / fallback
