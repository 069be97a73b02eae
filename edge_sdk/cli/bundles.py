"""`edge inspect`: what a bundle or a .tflite file holds, and whether a bundle may be believed."""

import importlib
from pathlib import Path
from typing import Any

import click
import msgspec

from edge_sdk.bundle import Manifest, read_manifest, unpack
from edge_sdk.errors import EdgeError, InvalidInputError
from edge_sdk.files import sha256
from edge_sdk.formats import to_json
from edge_sdk.signing import PublicKey

_FILE = click.Path(path_type=Path)
_TFLITE = b"TFL3"


class Inspection(msgspec.Struct, frozen=True):
    """A bundle as `--json` prints it; `signed_by` is null unless the signature was checked."""

    digest: str
    bytes: int
    signed_by: str | None
    manifest: Manifest


@click.command()
@click.argument("file", type=_FILE)
@click.option("--key", type=_FILE, help="Public key (.pub) to check the signature with.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def inspect(file: Path, key: Path | None, as_json: bool) -> None:  # noqa: FBT001
    """What the bundle FILE holds; with --key, whether its publisher says so.

    A .tflite FILE is shown layer by layer.
    """
    try:
        data = file.read_bytes()
    except OSError as error:
        raise InvalidInputError(f"{file} can't be read: {error.strerror}") from error
    if data[4:8] == _TFLITE:
        _show_model(data, as_json=as_json)
        return
    if key is None:
        found = Inspection(sha256(data), len(data), None, read_manifest(data))
    else:
        bundle = unpack(data, [PublicKey.load(key)])
        found = Inspection(bundle.digest, len(data), bundle.signed_by, bundle.manifest)
    if as_json:
        click.echo(to_json(found), nl=False)
        return
    for what, value in lines(found):
        click.echo(f"{what:16}{value}".rstrip())


def _show_model(model: bytes, *, as_json: bool) -> None:
    try:  # by name, as the commands are: edge_sdk imports nothing above it
        anatomy: Any = importlib.import_module("converters.anatomy")
    except ModuleNotFoundError as error:
        raise EdgeError(
            f"looking into a .tflite file needs {error.name}: "
            "pip install 'edge-deployment-sdk[convert]'"
        ) from error
    found = anatomy.anatomy(model)
    if as_json:
        click.echo(to_json(found), nl=False)
    else:
        click.echo("\n".join(anatomy.lines(found)))


def _output(manifest: Manifest) -> str:
    if manifest.labels:
        return f"{manifest.scores} of {len(manifest.labels)}: {', '.join(manifest.labels)}"
    return f"{manifest.scores}, {manifest.answer_width} a row ({manifest.task})"


def lines(found: Inspection) -> list[tuple[str, str]]:
    """A bundle in words."""
    manifest, metrics = found.manifest, found.manifest.metrics
    signature = (
        "NOT CHECKED (every member is as the manifest lists it): give the publisher's key by --key"
        if found.signed_by is None
        else f"holds, and so does every member; key {found.signed_by}"
    )
    given, taken = manifest.input, manifest.preprocessing
    return [
        (
            "model",
            f"{manifest.name} {manifest.version} for {manifest.profile} ({manifest.runtime})",
        ),
        ("signature", signature),
        ("digest", found.digest),
        ("size", f"{found.bytes:,} bytes"),
        ("recipe", f"{manifest.recipe.name}: {'; then '.join(manifest.recipe.steps)}"),
        ("input", f"{given.kind} {given.shape}, raw {given.low:g} to {given.high:g}"),
        ("preprocessing", str(taken)),
        ("model input", f"{manifest.model_input.dtype} {manifest.model_input.shape}"),
        ("output", _output(manifest)),
        (metrics.quality, f"{metrics.accuracy:.4f} on {metrics.rows:,} held-out rows"),
        (
            "drop",
            f"{metrics.drop * 100:+.2f} points "
            f"[{metrics.drop_low * 100:+.2f}, {metrics.drop_high * 100:+.2f}] "
            f"against float {metrics.float_accuracy:.4f}",
        ),
        *(
            (f"  {name}", f"{member.length:,} bytes, sha256 {member.sha256}")
            for name, member in manifest.members.items()
        ),
    ]
