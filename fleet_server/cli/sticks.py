"""`edge export-usb` and `edge import-usb`: models to a device without a network, reports back."""

from pathlib import Path

import click
import msgspec

from edge_sdk.errors import InvalidInputError
from edge_sdk.files import write_atomic
from edge_sdk.messages import read_order
from edge_sdk.stick import BUNDLES, METADATA, ORDERS, REPORTS, read_reports
from fleet_server.cli.asking import asks
from fleet_server.client import Client

FOLDER = click.Path(path_type=Path, file_okay=False)


@click.command("export-usb")
@click.option("--out", type=FOLDER, required=True, help="The stick's folder; made if absent.")
@click.option("--device", "devices", multiple=True, metavar="ID", help="May be repeated.")
@click.option("--all", "everyone", is_flag=True, help="Every device that has an order.")
@asks
def export_usb(
    client: Client, out: Path, devices: tuple[str, ...], *, everyone: bool, as_json: bool
) -> None:
    """Write signed orders and their bundles to a stick for 'edge agent import-usb'."""
    if bool(devices) == everyone:
        raise InvalidInputError("say for whom: --device ID, as often as needed, or --all")
    names = [row.id for row in client.devices() if row.wanted] if everyone else list(devices)
    digests = {}
    for name in names:
        order = client.order_of(name)
        _write(out / ORDERS / f"{name}.json", order)
        digests[name] = read_order(order).digest
    for digest in sorted(set(digests.values())):
        path = out / BUNDLES / f"{digest}.edge"
        if not path.exists():
            _write(path, client.bundle(digest))
    for name, text in client.metadata().items():
        _write(out / METADATA / name, text.encode())
    words = f"{len(digests)} orders and {len(set(digests.values()))} bundles are in {out}"
    click.echo(msgspec.json.encode(digests).decode() if as_json else words)


@click.command("import-usb")
@click.argument("folder", type=FOLDER)
@asks
def import_usb(client: Client, folder: Path, *, as_json: bool) -> None:
    """Bring the reports that devices left on the stick in FOLDER to the server."""
    files = sorted((folder / REPORTS).glob("*.json"))
    if not files:
        raise InvalidInputError(f"{folder / REPORTS} holds no report of a device")
    total = {"taken": 0, "refused": 0}
    for path in files:
        read_reports(path)
        for word, count in client.bring_reports(path.read_bytes()).items():
            total[word] += count
    words = f"{total['taken']} messages taken, {total['refused']} refused, of {len(files)} files"
    click.echo(msgspec.json.encode(total).decode() if as_json else words)


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, data)
