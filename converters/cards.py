"""`edge card`: a bundle's model card, as Markdown or as a page that stands alone."""

from pathlib import Path

import click

from converters.page import page
from converters.result import Proof
from edge_sdk.bundle import CARD, contents, read_manifest, unpack
from edge_sdk.errors import CorruptBundleError, InvalidInputError
from edge_sdk.files import sha256, write_atomic
from edge_sdk.formats import from_json
from edge_sdk.signing import PublicKey

_FILE = click.Path(path_type=Path)


def read_proof(bundle: Path, data: bytes) -> Proof | None:
    """The proof beside a bundle, if there is one and it is of these bytes."""
    path = bundle.with_suffix(".proof.json")
    if not path.exists():
        return None
    proof = from_json(Proof, path.read_bytes(), str(path))
    return proof if proof.digest == sha256(data) else None


@click.command()
@click.argument("bundle", type=_FILE)
@click.option("--html", type=_FILE, help="Write a page that stands alone, with pictures.")
@click.option("--key", type=_FILE, help="Public key (.pub) to check the signature with.")
def card(bundle: Path, html: Path | None, key: Path | None) -> None:
    """The model card of BUNDLE: Markdown with the head that Hugging Face's hub reads."""
    try:
        data = bundle.read_bytes()
    except OSError as error:
        raise InvalidInputError(f"{bundle} can't be read: {error.strerror}") from error
    if key is not None:
        members = unpack(data, [PublicKey.load(key)]).members
    else:
        read_manifest(data)
        members = contents(data)
    if CARD not in members:
        raise CorruptBundleError(f"{bundle} holds no {CARD}")
    text = members[CARD].decode(errors="replace")
    if html is None:
        click.echo(text, nl=False)
        return
    made = page(text, read_proof(bundle, data))
    try:
        write_atomic(html, made.encode())
    except OSError as error:
        raise InvalidInputError(f"{html} can't be written: {error.strerror}") from error
