"""`edge keys`: the keys that sign bundles."""

import os
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


def signing_key(path: Path | None) -> SigningKey:
    """The key at `path`, or the user's own, which is made at its first use and said so.

    The user's own is `$EDGE_SIGNING_KEY`, else `edge/signing.key` in the configuration folder.

    Raises:
        InvalidInputError: a key that was named is not there or can't be used.
    """
    if path is not None:
        return SigningKey.load(path)
    named = os.environ.get("EDGE_SIGNING_KEY")
    own = Path(named) if named else _config_folder() / "edge" / "signing.key"
    if own.exists():
        return SigningKey.load(own)
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
