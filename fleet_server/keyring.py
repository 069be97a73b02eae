"""The server's own secrets, in one folder that only its user may read.

The director key signs orders, the exchange key gives each device its secrets, the CA certifies
devices and this server, the admin token lets operators in. The trust document is kept as bytes,
since tokens name its fingerprint.
"""

import secrets
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from edge_sdk.errors import InvalidInputError
from edge_sdk.files import private, write_atomic
from edge_sdk.formats import from_json, to_json
from edge_sdk.identity import Trust, exchange_public, new_exchange_key
from edge_sdk.signing import PublicKey, SigningKey
from fleet_server.ca import Ca, open_ca
from fleet_server.data_dir import ADMIN_TOKEN

_DIRECTOR, _EXCHANGE, _TRUST = "director.pem", "exchange.key", "trust.json"


class Keyring(msgspec.Struct, frozen=True):
    """What the server signs, proves and trusts with.

    Attributes:
        trust_document: the bytes of `trust` as they go to devices.
        renewed: the document differs from the one of the last start, so older tokens are void.
    """

    director: SigningKey
    exchange: bytes
    ca: Ca
    admin_token: str
    trust: Trust
    trust_document: bytes
    renewed: bool

    def __repr__(self) -> str:
        return f"Keyring(director={self.trust.director[:12]})"


def open_keyring(
    folder: Path,
    publishers: Sequence[PublicKey],
    default: Path,
    root: Callable[[], str] = str,
) -> Keyring:
    """The keys in `folder`, made if this is the first start.

    Args:
        folder: made with access for its owner only.
        publishers: whose bundles are taken; empty for those of the last start.
        default: the public key to trust at a first start without `publishers`.
        root: gives the digest of the TUF repository's first root, making one if need be.

    Raises:
        InvalidInputError: nobody to trust, a key that is missing, or a folder open to others.
    """
    known = _known_trust(folder)
    hexes = tuple(sorted({key.hex for key in publishers}))
    if not hexes:
        hexes = known[0].publishers if known else (_default_publisher(default).hex,)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not private(folder):
        raise InvalidInputError(f"{folder} is open to other users: chmod 700 {folder}")
    director = _director(folder, first=known is None)
    exchange = _exchange(folder, first=known is None)
    ca = open_ca(folder, first=known is None)
    trust = Trust(hexes, director.public.hex, exchange_public(exchange), ca.fingerprint, root())
    if known is not None and known[0] == trust:
        document = known[1]
    else:
        document = to_json(trust)
        write_atomic(folder / _TRUST, document)
    return Keyring(
        director=director,
        exchange=exchange,
        ca=ca,
        admin_token=_admin_token(folder),
        trust=trust,
        trust_document=document,
        renewed=known is not None and known[1] != document,
    )


def pinned_root(folder: Path) -> str:
    """The first root that enrolled devices pin; empty before the first start."""
    known = _known_trust(folder)
    return known[0].root if known else ""


def _known_trust(folder: Path) -> tuple[Trust, bytes] | None:
    path = folder / _TRUST
    if not path.exists():
        return None
    document = path.read_bytes()
    return from_json(Trust, document, str(path)), document


def _director(folder: Path, *, first: bool) -> SigningKey:
    path = folder / _DIRECTOR
    if not path.exists():
        _only_at_first(path, first=first)
        SigningKey.generate().save(path)
    return SigningKey.load(path)


def _exchange(folder: Path, *, first: bool) -> bytes:
    path = folder / _EXCHANGE
    if not path.exists():
        _only_at_first(path, first=first)
        write_atomic(path, new_exchange_key(), mode=0o600)
    key = path.read_bytes()
    if len(key) != 32:
        raise InvalidInputError(f"{path} holds {len(key)} bytes, not a key of 32: restore it")
    return key


def _only_at_first(path: Path, *, first: bool) -> None:
    if not first:
        raise InvalidInputError(
            f"{path} is missing, and enrolled devices believe no other key: "
            "restore it from a backup, or start a new fleet in an empty data folder"
        )


def _default_publisher(path: Path) -> PublicKey:
    if not path.exists():
        raise InvalidInputError(
            f"nobody's bundles are trusted yet: there is no {path}; make a key with "
            "'edge keys new', or give one with 'edge server run --publisher FILE.pub'"
        )
    return PublicKey.load(path)


def _admin_token(folder: Path) -> str:
    path = folder / ADMIN_TOKEN
    if not path.exists():
        write_atomic(path, secrets.token_hex(32).encode() + b"\n", mode=0o600)
    return path.read_text().strip()
