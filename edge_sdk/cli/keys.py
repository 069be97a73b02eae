"""`edge keys`: the keys that sign bundles."""

import functools
import os
from collections.abc import Callable
from pathlib import Path

import click

from edge_sdk.errors import InvalidInputError
from edge_sdk.signing import SigningKey


@click.group()
def keys() -> None:
    """Keys that sign bundles."""


@keys.command()
@click.argument("path", type=click.Path(path_type=Path))
def new(path: Path) -> None:
    """Make an Ed25519 key at PATH, and its public half beside it as .pub."""
    public = path.with_suffix(".pub")
    for file in (path, public):
        if file.exists():
            raise InvalidInputError(f"{file} exists: an old key is never overwritten")
    if path == public:
        raise InvalidInputError(f"{path} ends in .pub, which is for the public half")
    key = _make(path)
    click.echo(f"{path} (keep it secret) and {public}, key id {key.public.keyid}", err=True)
    click.echo(key.public.hex)


def signer(path: Path | None) -> Callable[[], SigningKey]:
    """What gives the key at `path`, or the user's own, which is made at its first use and said so.

    The user's own is `$EDGE_SIGNING_KEY`, else `edge/signing.key` in the configuration folder. What
    is wrong with a key is said here and not after an hour's work.

    Raises:
        InvalidInputError: a key that was named is not there or can't be used, or none can be made.
    """
    if path is not None:
        given = SigningKey.load(path)
        return lambda: given
    named = os.environ.get("EDGE_SIGNING_KEY")
    own = Path(named) if named else _config_folder() / "edge" / "signing.key"
    if own.exists():
        kept = SigningKey.load(own)
        return lambda: kept
    there = next(folder for folder in own.absolute().parents if folder.exists())
    if not os.access(there, os.W_OK):
        raise InvalidInputError(f"{own} can't be written: no right to write into {there}")
    return functools.cache(lambda: _first(own))


def _first(own: Path) -> SigningKey:
    key = _make(own)
    click.echo(
        f"edge: made a signing key, {own} (public half: {own.with_suffix('.pub')})", err=True
    )
    return key


def _config_folder() -> Path:
    given = os.environ.get("XDG_CONFIG_HOME", "")
    return Path(given) if Path(given).is_absolute() else Path.home() / ".config"


def _make(path: Path) -> SigningKey:
    key = SigningKey.generate()
    try:
        key.save(path)
    except OSError as error:
        raise InvalidInputError(f"{path} can't be written: {error.strerror}") from error
    return key
