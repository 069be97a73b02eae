"""`edge drift` and `edge label`: how models fare, and the truth that tells it."""

import csv
from pathlib import Path
from typing import get_args

import click
import msgspec

from edge_sdk.errors import FormatError, InvalidInputError
from edge_sdk.messages import Policy
from fleet_server.api_types import AskSamples
from fleet_server.cli.asking import asks, show
from fleet_server.cli.table import moment, table
from fleet_server.client import Client
from fleet_server.drift_views import AccuracyRow, ChannelRow, DriftReport
from fleet_server.labels import MAX_LABELS, Label
from fleet_server.samples import FARTHEST, region_of

TOP = 8  # channels shown
MOVED_HOURS = 24.0


@click.group()
def drift() -> None:
    """Whether a model gets worse, where and why."""


HOURS = click.option(
    "--hours", type=click.FloatRange(min=1), default=24.0, show_default=True, help="How far back."
)


@drift.command()
@click.argument("model")
@HOURS
@click.option("--html", type=click.Path(path_type=Path), help="Write the report as a page.")
@asks
def report(client: Client, model: str, hours: float, html: Path | None, *, as_json: bool) -> None:
    """MODEL over the last hours: trend, where, and what is different."""
    found = client.drift(model, hours)
    if html is not None:
        html.write_bytes(client.drift_page(model, hours))
    show(found, "\n".join(report_words(found)), as_json=as_json)


@drift.command(name="show")
@click.argument("model")
@asks
def show_devices(client: Client, model: str, *, as_json: bool) -> None:
    """Every device of MODEL against its own past."""
    rows = client.drift_devices(model)
    cells = [
        [
            d.device,
            d.site,
            d.version,
            "alarm" if d.alarmed else "moved" if d.moved else "ok" if d.judged else "learning",
            "-" if d.accuracy_change is None else f"{100 * d.accuracy_change:+z.1f}",
            "; ".join(d.moved[:2]),
        ]
        for d in rows
    ]
    head = ["DEVICE", "SITE", "VERSION", "STATE", "ACCURACY", "MOVED"]
    show(rows, table(head, cells), as_json=as_json)


@drift.command()
@click.argument("alert_id", metavar="ALERT")
@asks
def rebaseline(client: Client, alert_id: str, *, as_json: bool) -> None:
    """Say that what an alert is about is how its devices shall look from now on."""
    row = client.rebaseline(alert_id)
    words = f"{row.id} is {row.state}: {row.devices} devices start a new past"
    show(row, words, as_json=as_json)


def _ends(low: float, high: float) -> str:
    if abs(low) >= FARTHEST:
        return f"up to {high:.4g}"
    return f"from {low:.4g}" + ("" if abs(high) >= FARTHEST else f" to {high:.4g}")


def _regions(
    _ctx: click.Context, _option: click.Parameter, given: tuple[str, ...]
) -> dict[str, tuple[float, float]]:
    found = {}
    for text in given:
        name, _, ends = text.partition("=")
        try:
            low, high = map(float, ends.split(":"))
        except ValueError as error:
            raise click.BadParameter(f"{text!r} is not CHANNEL=LOW:HIGH") from error
        if not name or not low <= high:
            raise click.BadParameter(f"{text!r} is not CHANNEL=LOW:HIGH, the lower end first")
        found[name] = (low, high)
    return found


@click.group()
def label() -> None:
    """The truth about rows that devices answered."""


@label.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--picked", is_flag=True, help="The rows were picked, not drawn at random.")
@asks
def add(client: Client, file: Path, *, picked: bool, as_json: bool) -> None:
    """Hand in FILE, a .csv or .jsonl.

    Its columns: device, row, model, version, predicted, label, taken_at (Unix seconds) and perhaps
    confidence (0..1).
    """
    labels = [
        msgspec.structs.replace(one, audit=False) if picked else one for one in read_labels(file)
    ]
    new = replaced = 0
    for start in range(0, len(labels), MAX_LABELS):
        taken = client.add_labels(labels[start : start + MAX_LABELS])
        new, replaced = new + taken.new, replaced + taken.replaced
    words = f"{new} rows labelled, {replaced} labelled anew"
    show({"new": new, "replaced": replaced}, words, as_json=as_json)


@label.command(name="ask")
@click.argument("model")
@click.option(
    "--policy",
    type=click.Choice(get_args(Policy)),
    default="margin",
    show_default=True,
    help="Which rows: unsure ones (margin, entropy), unlike the training data (novelty) or each "
    "other (cluster), those on which a shadow disagrees (a committee of two), or any.",
)
@click.option("--quota", type=int, default=20, show_default=True, help="Rows of each device.")
@click.option("--days", type=float, default=7.0, show_default=True, help="For how long.")
@click.option("--site", default="", help="Only of devices there.")
@click.option("--version", default="", help="Only rows that this version answered.")
@click.option("--class", "classes", multiple=True, help="Only rows answered so; may be repeated.")
@click.option(
    "--between", multiple=True, metavar="CHANNEL=LOW:HIGH", callback=_regions,
    help="Only rows in this region of a channel, input.brightness=0.1:0.3; may be repeated.",
)  # fmt: skip
@click.option("--moved", is_flag=True, help="Only rows from where the inputs moved to.")
@asks
def ask_samples(  # noqa: PLR0913 - one argument an option
    client: Client,
    model: str,
    policy: Policy,
    quota: int,
    days: float,
    site: str,
    version: str,
    classes: tuple[str, ...],
    between: dict[str, tuple[float, float]],
    *,
    moved: bool,
    as_json: bool,
) -> None:
    """Ask the devices that run MODEL for rows to label; see 'edge label list' and the page."""
    if moved:
        between |= region_of(client.drift(model, MOVED_HOURS).channels)
    wish = AskSamples(
        policy=policy, quota=quota, days=days, site=site, version=version, classes=classes,
        between=between,
    )  # fmt: skip
    devices = client.ask_samples(model, wish)
    where = "".join(f", {name} {_ends(*ends)}" for name, ends in between.items())
    words = f"{devices} devices were asked for {quota} rows each{where}"
    show({"devices": devices, "between": between}, words, as_json=as_json)


@label.command(name="list")
@click.argument("model")
@asks
def list_samples(client: Client, model: str, *, as_json: bool) -> None:
    """Rows of MODEL that wait for a label, the most wanted first."""
    rows = client.samples(model)
    cells = [
        [
            r.device,
            r.row[:16],
            r.version,
            r.policy,
            f"{r.score:.3f}",
            r.predicted,
            f"{r.confidence:.2f}",
        ]
        for r in rows
    ]
    head = ["DEVICE", "ROW", "VERSION", "POLICY", "SCORE", "SAID", "CONFIDENCE"]
    show(rows, table(head, cells), as_json=as_json)


@label.command()
@click.argument("model")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The .npz to write.")
@asks
def export(client: Client, model: str, out: Path, *, as_json: bool) -> None:
    """Labelled rows of MODEL as a dataset: x, y, weight, and where each row came from."""
    data = client.dataset(model)
    out.write_bytes(data)
    show({"path": str(out), "bytes": len(data)}, f"{out}: {len(data):,} bytes", as_json=as_json)


@label.command()
@click.argument("model")
@HOURS
@asks
def accuracy(client: Client, model: str, hours: float, *, as_json: bool) -> None:
    """Accuracy of MODEL by version: counted on labelled audit rows, and estimated without."""
    rows = [s for s in client.drift(model, hours).splits if s.by == "version"]
    cells = [[s.value, f"{s.rows:,}", *_accuracy_cells(s.accuracy)] for s in rows]
    head = ["VERSION", "ROWS", "ESTIMATED", "LABELLED", "COUNTED", "CALIBRATION ERROR", "NOTE"]
    show(rows, table(head, cells), as_json=as_json)


def read_labels(file: Path) -> list[Label]:
    """The labels of a .csv or .jsonl file; raises InvalidInputError with the line."""
    try:
        text = file.read_text()
    except OSError as error:
        raise InvalidInputError(f"{file} can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise FormatError(f"{file} is no UTF-8 text: {error}") from error
    if file.suffix == ".csv":
        rows: list[object] = [
            {k: v for k, v in row.items() if v not in ("", None)}
            for row in csv.DictReader(text.splitlines())
        ]
    else:
        rows = [_line(file, i, line) for i, line in enumerate(text.splitlines(), 1) if line.strip()]
    labels = []
    for number, row in enumerate(rows, 2 if file.suffix == ".csv" else 1):
        try:
            labels.append(msgspec.convert(row, Label, strict=False))
        except msgspec.ValidationError as error:
            raise FormatError(f"{file}, line {number}: {error}") from error
    return labels


def _line(file: Path, number: int, line: str) -> object:
    try:
        return msgspec.json.decode(line)
    except msgspec.DecodeError as error:
        raise FormatError(f"{file}, line {number}: {error}") from error


def report_words(found: DriftReport) -> list[str]:
    """The report, line by line."""
    lines = [f"{found.model}: {len(found.alerts)} open alerts"]
    for alert in found.alerts:
        lines += [f"  {alert.severity}: {alert.title}", f"    {alert.action}"]
    trend = [
        [
            moment(t.start)[:16],
            f"{t.rows:,}",
            str(t.skew + t.errors),
            *_accuracy_cells(t.accuracy)[:3],
        ]
        for t in found.trend
    ]
    lines += ["", table(["FROM", "ROWS", "BAD ROWS", "ESTIMATED", "LABELLED", "COUNTED"], trend)]
    doubts = [t.accuracy.note for t in found.trend[-1:] if t.accuracy.note]
    lines += [f"the last estimate should not be believed: {note}" for note in doubts]
    splits = [
        [s.by, s.value, f"{s.rows:,}", *_accuracy_cells(s.accuracy)[:1], s.worst,
         f"{s.distance:.2f}"]
        for s in found.splits
    ]  # fmt: skip
    lines += ["", table(["BY", "VALUE", "ROWS", "ESTIMATED", "FURTHEST", "DISTANCE"], splits)]
    channels = [
        [c.name, f"{c.mean_before:.4g}", f"{c.mean:.4g}", f"{c.shift:+z.2f}",
         f"{c.jensen_shannon:.3f}", f"{c.psi:.3f}", _test_size(c), f"{100 * c.missing:.1f}"]
        for c in found.channels[:TOP]
    ]  # fmt: skip
    head = ["CHANNEL", "BEFORE", "NOW", "SHIFT SD", "JS", "PSI", "KS OR V", "MISSING %"]
    lines += ["", f"now against {found.reference}:", table(head, channels)]
    lines += ["", *found.concept] if found.concept else []
    return lines


def _test_size(row: ChannelRow) -> str:
    """The bounds of the Kolmogorov-Smirnov distance of numbers, Cramér's V of categories."""
    return f"V {row.cramers_v:.3f}" if row.ks is None else f"{row.ks[0]:.3f}-{row.ks[1]:.3f}"


def _accuracy_cells(row: AccuracyRow) -> list[str]:
    def percent(value: float | None) -> str:
        return "-" if value is None else f"{100 * value:.1f}"

    estimated = (
        "-"
        if row.estimated is None
        else f"{percent(row.estimated)} [{percent(row.low)}, {percent(row.high)}]"
    )
    counted = (
        f"{percent(row.right / row.labelled)} "
        f"[{percent(row.counted_low)}, {percent(row.counted_high)}]"
        if row.labelled
        else "-"
    )
    return [estimated, str(row.labelled), counted, percent(row.calibration_error), row.note]
