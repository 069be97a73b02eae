"""`edge convert`: words to an `Order`, a `Conversion` to a table or JSON."""

import sys
import time
from pathlib import Path
from typing import get_args

import click

from converters.front import picture
from converters.order import Order, plan, read_features
from converters.pipeline import convert as run
from converters.pipeline import quiet
from converters.recipe import DEFAULT, RECIPES
from converters.result import Conversion
from converters.search_order import Search, Strategy
from converters.table import COLUMNS, NUMERIC, cells, heading, outcome, plain
from edge_sdk.bundle import Task
from edge_sdk.channels import Preprocessing
from edge_sdk.cli.keys import signer
from edge_sdk.errors import InvalidInputError, NotConvertibleError
from edge_sdk.files import write_atomic
from edge_sdk.formats import to_json

_FILE = click.Path(path_type=Path)


@click.command()
@click.argument("model", type=_FILE)
@click.option("--profile", "profiles", multiple=True, required=True, help="Board, or a .toml.")
@click.option(
    "--data", type=_FILE, required=True,
    help=".npz: x (n, ...) raw, y (n,); .csv; a folder CLASS/*.png or *.wav; module:function.",
)  # fmt: skip
@click.option("--out", type=_FILE, required=True, help="Folder for the bundles.")
@click.option("--test", type=_FILE, help="Rows to evaluate on; --data then only calibrates.")
@click.option("--train", type=_FILE, help="Rows with y for recipes that train.")
@click.option("--train-share", type=float, default=0.0, help="Or this part of --data, by hash.")
@click.option("--calibration", type=_FILE, help="Rows without y, instead of a part of --data.")
@click.option(
    "--task", type=click.Choice(get_args(Task)), default="classification", show_default=True,
    help="Anomaly: the model reconstructs its input; y is 0 (normal) or 1.",
)  # fmt: skip
@click.option("--slice", "slices", multiple=True, help="Column of words to report the drop by.")
@click.option("--name", default="", help="Of the model; by default from its file name.")
@click.option("--version", default="1", show_default=True, help="Of the model.")
@click.option(
    "--max-drop", type=float, default=0.01, show_default=True,
    help="Share of accuracy that may be lost.",
)  # fmt: skip
@click.option(
    "--max-class-drop", type=float, default=0.1, show_default=True,
    help="The same within any one class, when its rows are enough to be sure.",
)  # fmt: skip
@click.option("--scale", type=float, default=1.0, help="Model input = raw * scale + offset.")
@click.option("--offset", type=float, default=0.0, help="See --scale; the device does the same.")
@click.option(
    "--features", type=_FILE, help="TOML with [[steps]] after that: standardise, bucket, window."
)
@click.option("--distribute", is_flag=True, help="Train on all devices here (tf.distribute).")
@click.option(
    "--recipe", "recipes", multiple=True,
    help=f"Of {', '.join(RECIPES)}; by default the first {len(DEFAULT)}. Settings follow a colon: "
    "pcqat:sparsity=0.6,clusters=8. Or build:MODULE:FUNCTION, your own build_model(hp).",
)  # fmt: skip
@click.option(
    "--search", "strategy", type=click.Choice(get_args(Strategy)),
    help="Search recipes and their settings for the boards, among --recipe if given.",
)  # fmt: skip
@click.option("--candidates", type=int, default=20, show_default=True, help="Budget of --search.")
@click.option("--minutes", type=float, default=60.0, show_default=True, help="Budget of --search.")
@click.option("--jobs", type=int, default=1, show_default=True, help="Candidates at a time.")
@click.option("--executor", default="local", show_default=True, help="Or dask://HOST:PORT.")
@click.option("--study", type=_FILE, help="Folder of a search, to go on with when interrupted.")
@click.option("--embedding", is_flag=True, help="Novelty by the classifier's own last features.")
@click.option("--explain", is_flag=True, help="SHAP, LIME, partial dependence of the chosen.")
@click.option("--memory", type=int, default=0, help="MiB that one conversion may take.")
@click.option("--labels", default="", help="Names of the classes: a,b,c.")
@click.option("--plot", type=_FILE, help="Write accuracy over size of all candidates as .svg.")
@click.option("--key", type=_FILE, help="Signing key; by default $EDGE_SIGNING_KEY or your own.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def convert(  # noqa: PLR0913 - one per option
    model: Path,
    profiles: tuple[str, ...],
    data: Path,
    out: Path,
    test: Path | None,
    train: Path | None,
    train_share: float,
    calibration: Path | None,
    task: Task,
    slices: tuple[str, ...],
    name: str,
    version: str,
    max_drop: float,
    max_class_drop: float,
    scale: float,
    offset: float,
    features: Path | None,
    distribute: bool,  # noqa: FBT001 - click hands it over by name
    recipes: tuple[str, ...],
    strategy: Strategy | None,
    candidates: int,
    minutes: float,
    jobs: int,
    executor: str,
    study: Path | None,
    embedding: bool,  # noqa: FBT001 - click hands it over by name
    explain: bool,  # noqa: FBT001 - click hands it over by name
    memory: int,
    labels: str,
    plot: Path | None,
    key: Path | None,
    as_json: bool,  # noqa: FBT001 - click hands it over by name
) -> None:
    """The best TFLite model for each board, with proof, as a signed bundle.

    Of the candidates that fit a board (precision, ops, flash, RAM, latency, accuracy), the one
    smallest when compressed is taken.
    """
    search = None
    if strategy is not None:
        search = Search(
            strategy=strategy,
            candidates=candidates,
            minutes=minutes,
            jobs=jobs,
            executor=executor,
            study=study,
        )
    order = Order(
        model=model,
        profiles=profiles,
        data=data,
        out=out,
        test=test,
        train=train,
        train_share=train_share,
        calibration=calibration,
        task=task,
        slices=slices,
        name=name,
        version=version,
        max_drop=max_drop,
        max_class_drop=max_class_drop,
        preprocessing=Preprocessing(scale, offset, read_features(features)),
        parallel=distribute,
        memory=memory * 2**20,
        embedding=embedding,
        explain=explain,
        search=search,
        recipes=recipes,
        labels=tuple(label.strip() for label in labels.split(",")) if labels else (),
    )
    plan(order)  # what is wrong with the words is said before what is wrong with the key
    result = run(order, signer(key), _Steps() if sys.stderr.isatty() else quiet)
    if plot is not None:
        _write_plot(plot, result)
    if as_json:
        click.echo(to_json(result), nl=False)
    elif sys.stdout.isatty():
        _draw(result)
    else:
        click.echo(plain(result))
    if result.unfit:
        raise NotConvertibleError(
            f"nothing fits {', '.join(result.unfit)}: the table says why; "
            "try another recipe, a smaller model, or a larger --max-drop"
        )


def _write_plot(path: Path, result: Conversion) -> None:
    try:
        write_atomic(path, picture(result).encode())
    except OSError as error:
        raise InvalidInputError(f"{path} can't be written: {error.strerror}") from error


class _Steps:
    """Step names with the seconds since the start, on stderr."""

    def __init__(self) -> None:
        self._start = time.perf_counter()

    def __call__(self, step: str) -> None:
        click.echo(f"{time.perf_counter() - self._start:6.1f} s  {step}", err=True)


def _draw(conversion: Conversion) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    console.print(heading(conversion))
    for result in conversion.profiles:
        table = Table(title=outcome(result), title_justify="left")
        for name in COLUMNS:
            table.add_column(name, justify="right" if name in NUMERIC else "left")
        for row in cells(conversion, result):
            table.add_row(*row, style="bold green" if row[0] else None)
        console.print(table)
