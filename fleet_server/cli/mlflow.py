"""`edge model mlflow`: the fleet's versions in MLflow's registry."""

import click

from edge_sdk.errors import InvalidInputError
from fleet_server.cli.asking import asks, show
from fleet_server.cli.models import model
from fleet_server.cli.table import table
from fleet_server.client import Client
from fleet_server.mlflow_registry import aliases_now, entries, sync

HOURS = 24.0


@model.command(name="mlflow")
@click.argument("name", metavar="MODEL")
@click.option(
    "--uri", envvar="MLFLOW_TRACKING_URI", required=True, help="Of MLflow's server or database."
)
@asks
def registry(client: Client, name: str, uri: str, *, as_json: bool) -> None:
    """Bring MODEL's versions, aliases and how they fare into MLflow's registry; again and again."""
    bundles = [bundle for bundle in client.bundles() if bundle.model == name]
    if not bundles:
        raise InvalidInputError(f"there is no model {name[:40]!r}: edge model list")
    wanted = entries(name, bundles, client.drift(name, HOURS), client.url)
    aliases = aliases_now(client.aliases(name))
    numbers = sync(uri, name, wanted, aliases)
    called = {v: ", ".join(sorted(a for a, of in aliases.items() if of == v)) for v in numbers}
    cells = [[one.version, numbers[one.version], called[one.version]] for one in wanted]
    show(numbers, table(["VERSION", "IN MLFLOW", "ALIASES"], cells), as_json=as_json)
