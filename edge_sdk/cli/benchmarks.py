"""`edge benchmark`: how fast models are, on this machine or as a device of the fleet reported."""

import importlib
from pathlib import Path
from typing import Any

import click

from edge_sdk.errors import EdgeError, InvalidInputError

_FILE = click.Path(path_type=Path)


@click.command()
@click.argument("files", type=_FILE, nargs=-1)
@click.option("--data", type=_FILE, help="Rows, as `edge convert` takes them; else noise.")
@click.option("--key", type=_FILE, help="Public key (.pub) of bundles.")
@click.option("--device", help="What this device of the fleet reported, instead of FILES here.")
@click.option("--runs", type=int, default=0, help="With --device: it times so many answers now.")
@click.option("--server", envvar="EDGE_SERVER", metavar="URL", help="With --device: whose fleet.")
@click.option(
    "--data-dir", envvar="EDGE_DATA_DIR", type=_FILE,
    help="With --device: the server's data folder, for its address and token.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def benchmark(  # noqa: PLR0913 - one per option
    files: tuple[Path, ...], data: Path | None, key: Path | None, device: str | None,
    runs: int, server: str | None, data_dir: Path | None,
    as_json: bool,  # noqa: FBT001 - click hands it over by name
) -> None:  # fmt: skip
    """Latency (one row at a time) and memory of models in LiteRT on this machine.

    With --device the latency that a device measured, preprocessing included: of the rows that it
    answered, or with --runs of its bundle's golden samples, in a process apart from its work.
    """
    if runs and not device:
        raise InvalidInputError("--runs is for --device: here a second's answers are timed")
    if bool(files) == bool(device):
        raise InvalidInputError("give FILES to measure here, or --device for what one reported")
    if device:
        on_device = _module("fleet_server.cli.latency", "server").on_device
        on_device(device, server, data_dir, runs, as_json=as_json)
    else:
        _module("converters.benchmark", "convert").here(files, data, key, as_json=as_json)


def _module(name: str, extra: str) -> Any:  # noqa: ANN401 - edge_sdk imports nothing above it
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise EdgeError(
            f"this needs {error.name}: pip install 'edge-deployment-sdk[{extra}]'"
        ) from error
