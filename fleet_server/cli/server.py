"""`edge server`: the fleet server as one process."""

import asyncio
import logging
import resource
import signal
import time
from pathlib import Path

import click
import msgspec
from click.core import ParameterSource

from edge_sdk.errors import InvalidInputError
from edge_sdk.signing import PublicKey
from fleet_server.app import Server, Settings
from fleet_server.cli.asking import asks
from fleet_server.cli.places import default_data_dir, default_publisher
from fleet_server.client import Client
from fleet_server.data_dir import Running
from fleet_server.decay import DAY
from fleet_server.keyring import Keyring
from fleet_server.store.engines import has_password

MQTT_PORT, MQTTS_PORT = 1883, 8883


@click.group()
def server() -> None:
    """The fleet server."""


def _no_password_in_argv(ctx: click.Context, option: click.Parameter, url: str) -> str:
    typed = ctx.get_parameter_source(str(option.name)) is ParameterSource.COMMANDLINE
    if url and has_password(url) and typed:
        raise InvalidInputError(
            "a command line is no place for a password, others see it there: "
            "give it by EDGE_DATABASE, PGPASSWORD or ~/.pgpass"
        )
    return url


@server.command()
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="EDGE_DATA_DIR",
    default=default_data_dir,
    show_default="edge-server in your data folder",
    help="Database, bundles and keys; made at the first start.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8080,
    show_default=True,
    help="For HTTP; 0 takes a free one, and one for MQTT too.",
)
@click.option(
    "--mqtt-port",
    type=click.IntRange(0, 65535),
    show_default=f"{MQTT_PORT}, with TLS {MQTTS_PORT}",
    help="For the devices' messages; 0 takes a free one.",
)
@click.option(
    "--publisher",
    "publishers",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Public key (.pub) whose bundles are taken; may be repeated.  [default: those of the "
    "last start; at the first one that of 'edge convert']",
)
@click.option("--tls", is_flag=True, help="HTTPS and MQTTS, with a CA of the server's own.")
@click.option("--plain", is_flag=True, help="Without TLS even where other machines connect.")
@click.option(
    "--name",
    "names",
    multiple=True,
    help="Host name or address that devices use, for the certificate; may be repeated.",
)
@click.option(
    "--database",
    envvar="EDGE_DATABASE",
    default="",
    metavar="URL",
    help="postgresql://USER@HOST/NAME; its password by EDGE_DATABASE, PGPASSWORD or ~/.pgpass.  "
    "[default: SQLite in the data folder]",
    callback=_no_password_in_argv,
)
@click.option(
    "--drift-past",
    type=click.FloatRange(min=1.0),
    default=DAY,
    show_default="a day",
    metavar="SECONDS",
    help="How much of a device's first time is the past that its drift is measured by; "
    "a short one is for trials.",
)
def run(  # noqa: PLR0913 - one argument an option
    data_dir: Path,
    host: str,
    port: int,
    mqtt_port: int | None,
    publishers: tuple[Path, ...],
    names: tuple[str, ...],
    database: str,
    drift_past: float,
    *,
    tls: bool,
    plain: bool,
) -> None:
    """Run the server until Ctrl-C or SIGTERM."""
    _raise_file_limit()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s: %(message)s")
    settings = Settings(
        data_dir=data_dir,
        host=host,
        port=port,
        mqtt_port=_mqtt_port(port, tls=tls) if mqtt_port is None else mqtt_port,
        publishers=[PublicKey.load(path) for path in publishers],
        default_publisher=default_publisher(),
        tls=tls,
        plain=plain,
        names=names,
        database=database,
        drift_past=drift_past,
    )
    if tls and plain:
        raise InvalidInputError("--tls and --plain contradict each other: give one")
    asyncio.run(_serve(settings))


@server.command()
@asks
def link(client: Client, *, as_json: bool) -> None:
    """Print a link that opens the page once, within the hour."""
    address = client.new_login_link()
    click.echo(msgspec.json.encode({"link": address}) if as_json else address)


def _mqtt_port(http_port: int, *, tls: bool) -> int:
    if not http_port:
        return 0
    return MQTTS_PORT if tls else MQTT_PORT


def _raise_file_limit() -> None:
    """Every device is an open file: take what the system allows, not its cautious default."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


async def _serve(settings: Settings) -> None:
    # This is the edge: it hands out the clock.
    running = Server(settings, now=time.time, ready=_ready)  # noqa: TID251 - as said above
    loop = asyncio.get_running_loop()
    for end in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(end, running.stop)
    await running.serve()


def _ready(where: Running, keyring: Keyring, link: str) -> None:
    if keyring.renewed:
        click.echo(
            "edge: other publishers than before: enrolment tokens made so far are void", err=True
        )
    click.echo(f"edge: page {where.url}{link} (opens once; 'edge server link' for more)", err=True)
    if where.tls:
        click.echo(f"edge: TLS by our own CA, SHA-256 {keyring.trust.ca}", err=True)
    click.echo(f"edge: MQTT on {where.host} port {where.mqtt_port}, Ctrl-C stops", err=True)
