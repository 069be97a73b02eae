"""`edge label weak`: labelling functions of the user's own vote on rows that wait for a label."""

import importlib.util
import io
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from edge_sdk.errors import EdgeError, InvalidInputError
from edge_sdk.sketch import Floats
from fleet_server.cli.asking import asks, show
from fleet_server.cli.drift import label
from fleet_server.cli.table import table
from fleet_server.client import Client
from fleet_server.labels import Label
from fleet_server.weak import ABSTAIN, label_model, spread, spread_accuracy

SURE = 0.8
Function = Callable[[NDArray[np.generic]], int]


@label.command()
@click.argument("model")
@click.option(
    "--functions", type=click.Path(path_type=Path, exists=True),
    help="A .py whose functions named label_* take a row and give a class number, or -1.",
)  # fmt: skip
@click.option("--sure", type=float, default=SURE, show_default=True, help="Keep labels from there.")
@asks
def weak(client: Client, model: str, functions: Path | None, sure: float, *, as_json: bool) -> None:
    """Label waiting rows of MODEL: by voting functions, or spread from labelled rows like them.

    Functions are judged by where they agree and by labels that people gave; one that never meets
    either counts for nothing. What comes out never counts for the accuracy; its certainty goes into
    the dataset as weight.
    """
    with np.load(io.BytesIO(client.waiting(model))) as file:
        rows = {name: file[name] for name in file.files}
    classes = [str(name) for name in rows["classes"]]
    waiting = rows["known"] < 0
    if functions is not None:
        named = load(functions)
        votes = vote(named, rows["x"])
        chances, accuracy = label_model(votes, len(classes), rows["known"].astype(np.intp))
        told = (votes[:, np.isfinite(accuracy)] != ABSTAIN).any(axis=1)
        chosen, certainty = chances.argmax(axis=1), np.where(told, chances.max(axis=1), 0.0)
        chosen, certainty = chosen[waiting], certainty[waiting]
        cells = [
            [name, "-" if np.isnan(a) else f"{a:.3f}", f"{(v != ABSTAIN).mean():.2f}"]
            for (name, _), a, v in zip(named, accuracy, votes.T, strict=True)
        ]
    else:
        flat = rows["x"].reshape(len(rows["x"]), -1).astype(np.float64)
        truth = rows["known"].astype(np.intp)
        found, certain = spread(flat, truth)
        right = spread_accuracy(flat, truth)
        share = f"{len(flat[~waiting]) / len(flat):.2f}"
        cells = [["(spread from labels)", "-" if right is None else f"{right:.3f}", share]]
        chosen, certainty = found[waiting], certain[waiting]
    labels = _labels(model, rows, waiting, [classes[c] for c in chosen], certainty, sure)
    if labels:
        client.add_labels(labels)
    words = f"{len(labels)} of {int(waiting.sum())} waiting rows labelled with {sure} or surer"
    text = f"{table(['FUNCTION', 'ESTIMATED ACCURACY', 'VOTES ON'], cells)}\n{words}"
    show({"labelled": len(labels), "functions": cells}, text, as_json=as_json)


def load(path: Path) -> list[tuple[str, Function]]:
    """The functions `label_*` of a file, by name; raises InvalidInputError if there are not two."""
    spec = importlib.util.spec_from_file_location("edge_labelling_functions", path)
    if spec is None or spec.loader is None:
        raise InvalidInputError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # it is the user's program: whatever it raises, they must know
        raise InvalidInputError(f"{path} can't be run: {error!r}") from error
    found = [(n, f) for n, f in sorted(vars(module).items()) if n.startswith("label_")]
    if len(found) < 2:
        raise InvalidInputError(f"give two functions label_* or more: {path} has {len(found)}")
    return found


def vote(functions: list[tuple[str, Function]], x: NDArray[np.generic]) -> NDArray[np.intp]:
    """What each function says of each row."""
    votes = np.full((len(x), len(functions)), ABSTAIN, np.intp)
    for column, (name, function) in enumerate(functions):
        for i, row in enumerate(x):
            try:
                votes[i, column] = int(function(row))
            except Exception as error:  # the user's program again
                raise EdgeError(f"{name} fails at row {i}: {error!r}") from error
    return votes


def _labels(
    model: str, rows: dict[str, NDArray[np.generic]], waiting: NDArray[np.bool_],
    chosen: list[str], certainty: Floats, sure: float,
) -> list[Label]:  # fmt: skip
    found = []
    for i, name, sureness in zip(np.flatnonzero(waiting), chosen, certainty.tolist(), strict=True):
        if sureness >= sure:
            found.append(
                Label(
                    device=str(rows["device"][i]),
                    row=str(rows["row"][i]),
                    model=model,
                    version=str(rows["version"][i]),
                    predicted=str(rows["predicted"][i]),
                    label=name,
                    taken_at=float(rows["taken_at"][i]),
                    audit=False,
                    source="weak",
                    certainty=min(sureness, 1.0),
                )
            )
    return found
