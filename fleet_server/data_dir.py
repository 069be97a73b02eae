"""What others read in a server's data folder: where it answers, and its operators' token."""

from pathlib import Path

import msgspec

from edge_sdk.errors import InvalidInputError
from edge_sdk.files import write_atomic
from edge_sdk.formats import from_json, to_json

CA_CERTIFICATE = "ca.pem"
ADMIN_TOKEN = "admin.token"  # noqa: S105 - a file's name
DATABASE = "fleet.db"
KEYS = "keys"
SERVER = "server.json"
SETTINGS = "server.toml"
TRUST = "trust"


class Running(msgspec.Struct, frozen=True, kw_only=True):
    """Where a server answers: `server.json`, there while it runs."""

    format: int = 1
    host: str
    port: int
    mqtt_port: int
    pid: int
    tls: bool = False

    @property
    def url(self) -> str:
        """For a client on the same machine."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104 - read
        scheme = "https" if self.tls else "http"
        place = f"[{host}]" if ":" in host else host
        return f"{scheme}://{place}:{self.port}"


def announce(data_dir: Path, where: Running) -> None:
    """Write `server.json`."""
    write_atomic(data_dir / SERVER, to_json(where))


def retract(data_dir: Path) -> None:
    """Remove `server.json`: no server runs here any more."""
    (data_dir / SERVER).unlink(missing_ok=True)


def read_running(data_dir: Path) -> Running | None:
    """Where the server of this folder answers; None while there is none."""
    path = data_dir / SERVER
    try:
        document = path.read_bytes()
    except FileNotFoundError:  # asked for once: a server that stops may remove it meanwhile
        return None
    return from_json(Running, document, str(path))


def ca_file(data_dir: Path) -> Path:
    """The CA certificate of the server in `data_dir`, by which its HTTPS is checked."""
    return data_dir / KEYS / CA_CERTIFICATE


def read_admin_token(data_dir: Path) -> str:
    """The operators' token of the server in `data_dir`.

    Raises:
        InvalidInputError: no server has run there, or the file is not ours to read.
    """
    path = data_dir / KEYS / ADMIN_TOKEN
    try:
        return path.read_text().strip()
    except OSError as error:
        raise InvalidInputError(
            f"{path} can't be read ({error.strerror}): give the folder that "
            "'edge server run --data-dir' uses, or the token in EDGE_TOKEN"
        ) from error
