"""`edge verify A B`: is B as good as A on these rows, and where do their layers part?

Both are bundles or .tflite files, run in LiteRT as a device runs them; TensorFlow takes no part.
"""

from pathlib import Path
from typing import get_args

import click
import msgspec

from converters.accuracy import SliceDrop, by_class, compare
from converters.dataset import read
from converters.layers import LayerError
from converters.layerwise import layer_errors
from converters.order import read_features
from edge_sdk.bundle import Metrics, Task, unpack
from edge_sdk.channels import Array, Preprocessing
from edge_sdk.errors import InvalidInputError, NotConvertibleError, RefusedError
from edge_sdk.formats import to_json
from edge_sdk.interpreter import LiteRt, Scores
from edge_sdk.signing import PublicKey

_FILE = click.Path(path_type=Path)
_WORST = 5


class Verification(msgspec.Struct, frozen=True, kw_only=True):
    """What came out.

    Attributes:
        metrics: of B, with A in the place of the float model.
        classes: the drop within each class.
        layers: the error of each layer of B against that of A, in the order of the graph.
        unpaired: why there are no layer errors; empty if there are.
    """

    format: int = 1
    metrics: Metrics
    classes: tuple[SliceDrop, ...]
    layers: tuple[LayerError, ...]
    unpaired: str


class Subject(msgspec.Struct, frozen=True):
    """A model to run; labels only if it is a bundle."""

    model: bytes
    preprocessing: Preprocessing
    labels: tuple[str, ...]
    task: Task


def subject(path: Path, plain: Preprocessing, task: Task, key: Path | None) -> Subject:
    """The model in a file; a bundle brings its own preprocessing.

    Raises:
        InvalidInputError: it can't be read, or is a bundle and no key was given.
        EdgeError: a bundle that is damaged or not signed by the key.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InvalidInputError(f"{path} can't be read: {error.strerror}") from error
    if data[4:8] == b"TFL3":
        return Subject(data, plain, (), task)
    if key is None:
        raise InvalidInputError(
            f"{path} is no .tflite file; if it is a bundle, give its publisher's key with --key"
        )
    bundle = unpack(data, [PublicKey.load(key)])
    manifest = bundle.manifest
    return Subject(bundle.model, manifest.preprocessing, manifest.labels, manifest.task)


def verification(a: Subject, b: Subject, data: Path) -> Verification:
    """B against A on the rows of a .npz file.

    Raises:
        InvalidInputError: the rows do not fit the models.
        NotConvertibleError: LiteRT does not run one of them.
    """
    if a.task != b.task:
        raise InvalidInputError(f"A is for {a.task}, B for {b.task}: they can't be compared")
    rows = read(data, task=a.task)
    before, after = (_scores(one, rows.x, data) for one in (a, b))
    if before.shape != after.shape:
        raise InvalidInputError(
            f"A gives {before.shape[1]} numbers and B {after.shape[1]}: they can't be compared"
        )
    classes = before.shape[1] if a.task == "classification" else 0
    if classes and int(rows.y.max()) >= classes:
        raise InvalidInputError(
            f"{data}: y holds the class {int(rows.y.max())}, the models give {classes}"
        )
    labels = a.labels or b.labels or tuple(str(i) for i in range(classes))
    layers: tuple[LayerError, ...] = ()
    unpaired = ""
    try:
        layers = layer_errors(a.model, b.model, rows.x, a.preprocessing)
    except NotConvertibleError as error:
        unpaired = str(error)
    return Verification(
        metrics=compare(rows.y, before, after, labels, a.task),
        classes=by_class(rows.y, before, after, labels),
        layers=layers,
        unpaired=unpaired,
    )


def _scores(one: Subject, rows: Array, path: Path) -> Scores:
    model = LiteRt(one.model, one.preprocessing, reconstructs=one.task == "anomaly")
    given = one.preprocessing.apply(rows[:1]).shape[1:]
    if model.input.shape[1:] != given:
        raise InvalidInputError(
            f"{path}: a row has shape {given}, a model takes {model.input.shape[1:]}"
        )
    return model.run_rows(rows)


@click.command()
@click.argument("a", type=_FILE)
@click.argument("b", type=_FILE)
@click.option("--data", type=_FILE, required=True, help=".npz: x (n, ...) raw, y (n,) classes.")
@click.option("--max-drop", type=float, default=0.01, show_default=True, help="A share.")
@click.option("--scale", type=float, default=1.0, help="For .tflite: input = raw * scale + offset.")
@click.option("--offset", type=float, default=0.0, help="See --scale.")
@click.option("--features", type=_FILE, help="For .tflite: as `edge convert` takes them.")
@click.option(
    "--task", type=click.Choice(get_args(Task)), default="classification", show_default=True,
    help="For .tflite; a bundle says its own.",
)  # fmt: skip
@click.option("--key", type=_FILE, help="Public key (.pub) of bundles.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def verify(  # noqa: PLR0913 - one per option
    a: Path, b: Path, data: Path, max_drop: float, scale: float, offset: float,
    features: Path | None, task: Task, key: Path | None,
    as_json: bool,  # noqa: FBT001 - click hands it over by name
) -> None:  # fmt: skip
    """Whether model B is as good as model A; ends with 3 if it loses more than --max-drop."""
    plain = Preprocessing(scale, offset, read_features(features))
    found = verification(subject(a, plain, task, key), subject(b, plain, task, key), data)
    if as_json:
        click.echo(to_json(found), nl=False)
    else:
        for what, value in lines(found):
            click.echo(f"{what:16}{value}".rstrip())
    if found.metrics.drop > max_drop + 1e-9:
        raise RefusedError(
            f"{b} loses {found.metrics.drop * 100:.2f} points of {found.metrics.quality} against "
            f"{a}, allowed {max_drop * 100:.2f}"
        )


def lines(found: Verification) -> list[tuple[str, str]]:
    """A verification in words."""
    metrics = found.metrics
    worst = max(found.classes, key=lambda one: (one.drop, one.label), default=None)
    layers = sorted(found.layers, key=lambda one: -one.error)[:_WORST]
    return [
        ("rows", f"{metrics.rows:,}"),
        (metrics.quality, f"A {metrics.float_accuracy:.4f}, B {metrics.accuracy:.4f}"),
        (
            "drop, 95 %",
            f"{metrics.drop * 100:+.2f} points "
            f"[{metrics.drop_low * 100:+.2f}, {metrics.drop_high * 100:+.2f}]",
        ),
        ("same answer", f"{metrics.agreement:.2%} of rows"),
        *((("worst class", _slice(worst)),) if worst else ()),
        *((("layers", found.unpaired),) if found.unpaired else ()),
        *(
            ("worst layers" if i == 0 else "", f"{one.error:7.2%}  {one.op} {one.name}")
            for i, one in enumerate(layers)
        ),
    ]


def _slice(found: SliceDrop) -> str:
    return (
        f"{found.label}: {found.drop * 100:+.2f} points "
        f"[{found.low * 100:+.2f}, {found.high * 100:+.2f}] in {found.rows:,} rows"
    )
