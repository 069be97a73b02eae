"""A new server's data folder: keys, CA, certificate, settings, the first link."""

import hmac
import secrets
from collections.abc import Sequence
from pathlib import Path

import msgspec

from edge_sdk.errors import InvalidInputError
from edge_sdk.files import write_atomic
from edge_sdk.formats import from_json, to_json
from edge_sdk.signing import PublicKey
from fleet_server.ca import server_certificate
from fleet_server.data_dir import DATABASE, KEYS, TRUST
from fleet_server.guard import digest
from fleet_server.keyring import Keyring, open_keyring, pinned_root
from fleet_server.tls import server_names
from fleet_server.trust.keeper import open_repository
from fleet_server.trust.repository import Repository

FIRST_LINK_SECONDS = 24 * 3600.0
_FIRST_LINK = "first-link.json"


class FirstLink(msgspec.Struct, frozen=True, kw_only=True):
    """What the first start takes as a link: its code's digest, and until when (Unix seconds)."""

    format: int = 1
    digest: str
    until: float


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What a new server shall be.

    Attributes:
        names: host names and addresses that devices use; the first is the one people see.
        publishers: whose bundles are taken; empty for the key of `default_publisher`.
        settings: the text of its settings file.
    """

    host: str
    names: Sequence[str]
    publishers: Sequence[PublicKey]
    default_publisher: Path
    settings: str


def found(data: Path, settings_file: Path, plan: Plan, now: float) -> tuple[Keyring, str]:
    """Make everything that a start needs; the keys, and the path of a link that opens once.

    Raises:
        InvalidInputError: there is a server in that folder, nobody to trust, or a bad name.
    """
    link = data / KEYS / _FIRST_LINK
    begun = settings_file.exists() or (data / DATABASE).exists()
    if begun or (pinned_root(data / KEYS) and not link.exists()):
        raise InvalidInputError(f"{data} has a server already: start it, or give another folder")
    names = server_names(plan.host, plan.names)
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    link.parent.mkdir(mode=0o700, exist_ok=True)
    code = secrets.token_urlsafe(24)
    first = FirstLink(digest=digest(code), until=now + FIRST_LINK_SECONDS)
    # First of all, and the settings last: so what was cut off in between is known, and done again.
    write_atomic(link, to_json(first), mode=0o600)
    repository = Repository(data / TRUST, data / KEYS)
    keyring = open_keyring(
        data / KEYS,
        plan.publishers,
        plan.default_publisher,
        lambda: open_repository(repository, pinned_root(data / KEYS), now),
    )
    server_certificate(data / KEYS, keyring.ca, names, now)
    write_atomic(settings_file, plan.settings.encode(), mode=0o600)
    return keyring, f"/login?code={code}"


def take_first_link(keys: Path, given: str, now: float) -> bool:
    """Whether this is the digest of the link that `found` made; it is used up then.

    It stays in its file until then: a server that is killed before somebody came still takes it.
    """
    path = keys / _FIRST_LINK
    try:
        first = from_json(FirstLink, path.read_bytes(), str(path))
        if not hmac.compare_digest(first.digest, given) or first.until <= now:
            return False
        path.unlink()
    except FileNotFoundError:  # of two who show it at once, one was quicker
        return False
    return True
