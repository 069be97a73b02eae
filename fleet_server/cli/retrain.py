"""`edge retrain`: from labelled rows to a challenger in shadow, by the user's own training.

Every step is a command that could be typed: export, train, convert, verify twice, publish, roll
out. The first that says no ends it.
"""

import hashlib
import io
import subprocess
import sys
from pathlib import Path

import click
import msgspec
import numpy as np
from numpy.typing import NDArray

from edge_sdk.errors import EdgeError, InvalidInputError, RefusedError
from fleet_server.cli.asking import asks, show
from fleet_server.cli.places import default_publisher
from fleet_server.client import Client
from fleet_server.views import VersionRow

HELD_OUT = 0.3  # of the labelled rows, by the hash of each
FEWEST = 20  # labelled rows
TRAIN_SECONDS = 24 * 3600
EDGE = (sys.executable, "-m", "edge_sdk.cli")


class Retrained(msgspec.Struct, frozen=True):
    """What came out: bundles by path, and the rollout that runs them in shadow ("" without one)."""

    bundles: tuple[str, ...]
    rows: int
    rollout: str


@click.command(name="retrain")
@click.argument("model")
@click.option(
    "--train", "script", type=click.Path(path_type=Path, exists=True), required=True,
    help="Your train.py; called as: train.py --old OLD.npz --new NEW.npz --out MODEL.keras",
)  # fmt: skip
@click.option(
    "--data", type=click.Path(path_type=Path, exists=True), required=True,
    help="The data of before: x, y; the challenger must not lose on it.",
)  # fmt: skip
@click.option("--version", required=True, help="Of the challenger.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="A folder for it all.")
@click.option("--max-drop", type=float, default=0.01, show_default=True, help="A share.")
@click.option(
    "--key", type=click.Path(path_type=Path), default=default_publisher,
    show_default="that of 'edge convert'", help="Public key (.pub) that bundles are signed by.",
)  # fmt: skip
@click.option("--scale", type=float, default=1.0, help="As 'edge convert' takes it.")
@click.option("--shadow/--no-shadow", default=True, help="Roll it out in shadow at the end.")
@asks
def retrain(  # noqa: PLR0913 - one argument an option
    client: Client, model: str, script: Path, data: Path, version: str, out: Path, max_drop: float,
    key: Path, scale: float, *, shadow: bool, as_json: bool,
) -> None:  # fmt: skip
    """Train MODEL anew on labelled rows, verify it against the champion, run it in shadow."""
    out.mkdir(parents=True, exist_ok=True)
    champions = champions_of(client.bundles(), model)
    rows = split(client.dataset(model), out)
    _say(f"{rows} labelled rows; training")
    made = out / "challenger.keras"
    _run([
        sys.executable, str(script), "--old", str(data), "--new", str(out / "new.npz"),
        "--out", str(made),
    ], "the training")  # fmt: skip
    if not made.exists():
        raise EdgeError(f"{script} ended well but wrote no {made}")
    _say("converting")
    profiles = [word for row in champions for word in ("--profile", row.profile)]
    _run([
        *EDGE, "convert", str(made), *profiles, "--data", str(data), "--name", model,
        "--version", version, "--scale", str(scale), "--out", str(out / "bundles"),
    ], "the conversion")  # fmt: skip
    limits = ["--max-drop", str(max_drop), "--key", str(key)]
    bundles = [_verified(client, row, out, (data, version), limits) for row in champions]
    for path in bundles:
        client.publish(path.read_bytes())
    rollout = client.create_rollout(model, version, {"name": "shadow"}) if shadow else ""
    found = Retrained(tuple(str(path) for path in bundles), rows, rollout)
    ending = f"; in shadow: edge rollout watch {rollout}" if rollout else ""
    show(
        found,
        f"{model} {version} is published for {len(bundles)} profiles{ending}",
        as_json=as_json,
    )


def champions_of(bundles: list[VersionRow], model: str) -> list[VersionRow]:
    """For each profile the bundle that most devices run, the newest if none does."""
    found: dict[str, VersionRow] = {}
    for row in bundles:  # newest first
        known = found.get(row.profile)
        if row.model == model and (known is None or row.devices > known.devices):
            found[row.profile] = row
    if not found:
        raise InvalidInputError(f"no bundle of {model} is published: there is no champion")
    return [found[profile] for profile in sorted(found)]


def split(dataset: bytes, out: Path) -> int:
    """Write new.npz to train with and new-held.npz to verify on; how many rows there were.

    A row goes by its hash, so it stays on its side when the dataset grows.

    Raises:
        InvalidInputError: too few rows.
    """
    with np.load(io.BytesIO(dataset)) as file:
        arrays = {name: file[name] for name in ("x", "y", "weight")}
        lineage = file["lineage"].item()
    held = np.array([_share(row) < HELD_OUT for row in arrays["x"]])
    if len(held) < FEWEST or held.all() or not held.any():
        raise InvalidInputError(
            f"{len(held)} labelled rows are too few to train and verify with: {FEWEST} at least"
        )
    for name, chosen in (("new", ~held), ("new-held", held)):
        np.savez(out / f"{name}.npz", **{key: values[chosen] for key, values in arrays.items()})
    (out / "lineage.json").write_bytes(lineage if isinstance(lineage, bytes) else lineage.encode())
    return len(held)


def _share(row: NDArray[np.generic]) -> float:
    digest = hashlib.sha256(np.ascontiguousarray(row).tobytes()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def _verified(
    client: Client, champion: VersionRow, out: Path, wanted: tuple[Path, str], limits: list[str]
) -> Path:
    """The challenger's bundle for the champion's profile, as good on old and on new rows."""
    data, version = wanted
    before = out / f"champion-{champion.profile}.edge"
    before.write_bytes(client.bundle(champion.digest))
    [after] = (out / "bundles").glob(f"{champion.model}-{version}-{champion.profile}.edge")
    for rows, what in ((data, "old rows"), (out / "new-held.npz", "new rows")):
        _say(f"verifying for {champion.profile} on the {what}")
        _run([
            *EDGE, "verify", str(before), str(after), "--data", str(rows), *limits,
        ], f"the verification on the {what}")  # fmt: skip
    return after


def _run(command: list[str], what: str) -> None:
    try:
        done = subprocess.run(  # noqa: S603 - the user's
            command,
            check=False,
            timeout=TRAIN_SECONDS,
            stdout=sys.stderr.fileno(),  # what we answer stays alone on the standard output
        )
    except subprocess.TimeoutExpired as error:
        raise EdgeError(f"{what} took longer than a day") from error
    if done.returncode == RefusedError.exit_code:
        raise RefusedError(f"{what} said no: see above; nothing was published")
    if done.returncode:
        raise EdgeError(f"{what} failed with exit code {done.returncode}; nothing was published")


def _say(words: str) -> None:
    click.echo(words, err=True)
