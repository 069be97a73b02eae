"""`edge server`: the fleet server as one process."""

import asyncio
import logging
import os
import resource
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import msgspec
from click.core import ParameterSource

from edge_sdk.errors import InvalidInputError
from edge_sdk.signing import PublicKey
from fleet_server.app import Server, Settings
from fleet_server.backup import backup, restore
from fleet_server.broker_config import (
    Ports,
    ensure_client_certificate,
    write_emqx,
    write_mosquitto,
)
from fleet_server.ca import open_ca
from fleet_server.cli.asking import asks
from fleet_server.cli.places import default_data_dir, default_publisher
from fleet_server.cli.settings_file import read_settings, settings_text
from fleet_server.client import Client
from fleet_server.data_dir import CA_CERTIFICATE, KEYS, SETTINGS, Running
from fleet_server.decay import DAY
from fleet_server.founding import Plan, found
from fleet_server.keyring import Keyring
from fleet_server.logs import log_to_stderr
from fleet_server.mail import parse_relay
from fleet_server.oidc import OidcSettings
from fleet_server.store.engines import has_password
from fleet_server.tls import server_names
from fleet_server.worker import Worker

log = logging.getLogger("fleet_server.started")
log.setLevel(logging.INFO)

MQTT_PORT, MQTTS_PORT, WSS_PORT = 1883, 8883, 8084
DATABASE_HELP = (
    "postgresql://USER@HOST/NAME; its password by EDGE_DATABASE, PGPASSWORD or ~/.pgpass.  "
    "[default: SQLite in the data folder]"
)


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


_DATA_DIR = ("--data-dir",)
_DATA_DIR_KNOWN: dict[str, Any] = {
    "type": click.Path(path_type=Path, file_okay=False),
    "envvar": "EDGE_DATA_DIR",
    "default": default_data_dir,
    "show_default": "edge-server in your data folder",
    "help": "Database, bundles, keys and settings (server.toml).",
}
_data_dir = click.option(*_DATA_DIR, **_DATA_DIR_KNOWN)


def _settings_of(ctx: click.Context, _option: click.Parameter, data_dir: Path) -> Path:
    """Take what the folder's settings file says as the defaults of the other options."""
    ctx.default_map = read_settings(data_dir / SETTINGS, ctx.command)
    return data_dir


@server.command()
@click.option(*_DATA_DIR, **_DATA_DIR_KNOWN)
@click.option(
    "--name",
    "names",
    multiple=True,
    required=True,
    help="Host name or address that devices and people use; may be repeated.",
)
@click.option("--host", default="0.0.0.0", show_default=True, help="Address to listen on.")  # noqa: S104
@click.option("--port", type=click.IntRange(1, 65535), default=8080, show_default=True)
@click.option("--mqtt-port", type=click.IntRange(1, 65535), default=MQTTS_PORT, show_default=True)
@click.option(
    "--publisher",
    "publishers",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Public key (.pub) whose bundles are taken.  [default: that of 'edge convert']",
)
def init(
    data_dir: Path,
    names: tuple[str, ...],
    host: str,
    port: int,
    mqtt_port: int,
    publishers: tuple[Path, ...],
) -> None:
    """Set a server up: keys, CA, certificate, settings, and the link of the first administrator."""
    settings = {
        "host": host,
        "port": port,
        "mqtt-port": mqtt_port,
        "tls": True,
        "name": list(names),
    }
    plan = Plan(
        host=host,
        names=names,
        publishers=[PublicKey.load(path) for path in publishers],
        default_publisher=default_publisher(),
        settings=settings_text(settings),
    )
    keyring, link = found(data_dir, data_dir / SETTINGS, plan, time.time())  # noqa: TID251 - the edge
    place = f"[{names[0]}]" if ":" in names[0] else names[0]
    click.echo(f"settings: {data_dir / SETTINGS}")
    click.echo(f"CA:       {data_dir / KEYS / CA_CERTIFICATE}, SHA-256 {keyring.trust.ca}")
    click.echo(f"start:    edge server run --data-dir {data_dir}")
    click.echo(f"then opens once, within a day: https://{place}:{port}{link}")


@server.command()
@click.option(*_DATA_DIR, **_DATA_DIR_KNOWN, is_eager=True, callback=_settings_of)
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
    help=DATABASE_HELP,
    callback=_no_password_in_argv,
)
@click.option(
    "--bundles",
    envvar="EDGE_BUNDLES",
    default="",
    metavar="URL",
    help="s3://BUCKET[/PREFIX] of S3 or a store like it, keys and endpoint by AWS_ACCESS_KEY_ID, "
    "AWS_SECRET_ACCESS_KEY, AWS_REGION, AWS_ENDPOINT_URL.  [default: the data folder]",
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
@click.option(
    "--broker",
    envvar="EDGE_BROKER",
    default="",
    metavar="URL",
    help="mqtts://HOST[:PORT] of Mosquitto or EMQX, in place of the server's own endpoint; devices "
    "find it under the server's name ('edge server broker-config' sets it up).",
)
@click.option(
    "--smtp",
    envvar="EDGE_SMTP",
    default="",
    metavar="URL",
    help="smtp[s]://USER@HOST/?from=ADDRESS, by which 'edge webhook add mailto:…' sends; its "
    "password by EDGE_SMTP_PASSWORD.",
)
@click.option(
    "--keep-days",
    type=click.FloatRange(min=1.0),
    default=30.0,
    show_default=True,
    help="How long single windows stay; sums by hour stay three times as long, by day always.",
)
@click.option(
    "--oidc-issuer",
    envvar="EDGE_OIDC_ISSUER",
    default="",
    metavar="URL",
    help="OpenID Connect provider where users may log in; its secret by EDGE_OIDC_SECRET.",
)
@click.option("--oidc-client", default="edge-server", show_default=True, help="Our id there.")
@click.option(
    "--oidc-claim",
    default="email",
    show_default=True,
    help="What the provider tells that is a user's name here.",
)
@click.option("--json-logs", is_flag=True, help="One JSON object a line on the standard error.")
def run(  # noqa: PLR0913 - one argument an option
    data_dir: Path,
    host: str,
    port: int,
    mqtt_port: int | None,
    publishers: tuple[Path, ...],
    names: tuple[str, ...],
    database: str,
    bundles: str,
    drift_past: float,
    broker: str,
    smtp: str,
    keep_days: float,
    oidc_issuer: str,
    oidc_client: str,
    oidc_claim: str,
    *,
    json_logs: bool,
    tls: bool,
    plain: bool,
) -> None:
    """Run the server until Ctrl-C or SIGTERM."""
    _raise_file_limit()
    log_to_stderr(as_json=json_logs)
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
        oidc=_oidc(oidc_issuer, oidc_client, oidc_claim),
        database=database,
        bundles=bundles,
        drift_past=drift_past,
        broker=broker,
        relay=parse_relay(smtp, os.environ.get("EDGE_SMTP_PASSWORD", "")) if smtp else None,
        keep_windows=keep_days * DAY,
        keep_hours=3 * keep_days * DAY,
    )
    if tls and plain:
        raise InvalidInputError("--tls and --plain contradict each other: give one")
    asyncio.run(_serve(settings, for_logs=json_logs))


@server.command()
@_data_dir
@click.option(
    "--database",
    envvar="EDGE_DATABASE",
    default="",
    metavar="URL",
    help=DATABASE_HELP,
    callback=_no_password_in_argv,
)
@click.option(
    "--broker", envvar="EDGE_BROKER", required=True, metavar="URL", help="mqtts://HOST[:PORT]."
)
@click.option("--worker", default="1", show_default=True, help="A name of its own for each worker.")
def ingest(data_dir: Path, database: str, broker: str, worker: str) -> None:
    """Run one more ingest worker beside a server: same data folder, database and broker.

    Workers share the broker's messages. The database must be PostgreSQL.
    """
    if not database:
        raise InvalidInputError("workers share PostgreSQL: give its URL by EDGE_DATABASE")
    log_to_stderr(as_json=False)
    asyncio.run(_work(Worker(data_dir, database, broker, worker, now=time.time)))  # noqa: TID251


@server.command(name="backup")
@_data_dir
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
def make_backup(data_dir: Path, file: Path) -> None:
    """Write the data folder to FILE, also while the server runs; it holds the keys, keep it safe.

    With PostgreSQL run pg_dump first, then this.
    """
    parts = backup(data_dir, file)
    click.echo(f"{file}: {', '.join(parts)}")


@server.command(name="restore")
@_data_dir
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
def restore_backup(data_dir: Path, file: Path) -> None:
    """Make a new data folder of the backup in FILE."""
    parts = restore(file, data_dir, time.time())  # noqa: TID251 - this is the edge
    click.echo(f"{data_dir}: {', '.join(parts)}")


@server.command(name="broker-config")
@_data_dir
@click.argument("kind", type=click.Choice(["mosquitto", "emqx"]))
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="Where to write it.",
)
@click.option(
    "--name", "names", multiple=True, help="Host name or address of the broker; may be repeated."
)
@click.option("--port", type=click.IntRange(1, 65535), default=MQTTS_PORT, show_default=True)
@click.option(
    "--websocket-port",
    type=click.IntRange(1, 65535),
    default=WSS_PORT,
    show_default=True,
    help="For MQTT over a WebSocket with TLS, where networks let nothing else through.",
)
def broker_config(
    data_dir: Path, kind: str, out: Path, names: tuple[str, ...], port: int, websocket_port: int
) -> None:
    """Write the configuration of a broker, with its certificate and who may say what."""
    now = time.time()  # noqa: TID251 - this is the edge
    keys = data_dir / KEYS
    if not keys.exists():
        raise InvalidInputError(f"{data_dir} has no keys yet: run 'edge server init' first")
    ca = open_ca(keys, first=False)
    ensure_client_certificate(keys, ca, now)
    write = {"mosquitto": write_mosquitto, "emqx": write_emqx}[kind]
    ports = Ports(port, websocket_port)
    write(out, ca, server_names("0.0.0.0", names), ports, now)  # noqa: S104 - all of its names
    click.echo(f"wrote {out}; then: edge server run --tls --broker mqtts://HOST:{port}")


@server.command()
@asks
def link(client: Client, *, as_json: bool) -> None:
    """Print a link that opens the page once, within the hour."""
    address = client.new_login_link()
    click.echo(msgspec.json.encode({"link": address}) if as_json else address)


def _oidc(issuer: str, client: str, claim: str) -> OidcSettings | None:
    if not issuer:
        return None
    secret = os.environ.get("EDGE_OIDC_SECRET", "")
    return OidcSettings(issuer=issuer, client=client, secret=secret, claim=claim)


def _mqtt_port(http_port: int, *, tls: bool) -> int:
    if not http_port:
        return 0
    return MQTTS_PORT if tls else MQTT_PORT


def _raise_file_limit() -> None:
    """Every device is an open file: take what the system allows, not its cautious default."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


async def _serve(settings: Settings, *, for_logs: bool) -> None:
    ready = _ready_for_logs if for_logs else _ready
    # This is the edge: it hands out the clock.
    running = Server(settings, now=time.time, ready=ready)  # noqa: TID251 - as said above
    loop = asyncio.get_running_loop()
    for end in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(end, running.stop)
    await running.serve()


async def _work(worker: Worker) -> None:
    loop = asyncio.get_running_loop()
    for end in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(end, worker.stop)
    await worker.work()


def _ready(where: Running, keyring: Keyring, link: str) -> None:
    lines = [f"page {where.url}{link} (opens once; 'edge server link' for more)"]
    for line in [*lines, *_started(where, keyring)]:
        click.echo(f"edge: {line}", err=True)


def _ready_for_logs(where: Running, keyring: Keyring, _link: str) -> None:
    """Logs are kept and read by many: no link."""
    for line in [f"page {where.url}; 'edge server link' opens it", *_started(where, keyring)]:
        log.info("%s", line)


def _started(where: Running, keyring: Keyring) -> Iterator[str]:
    if keyring.renewed:
        yield "other publishers than before: enrolment tokens made so far are void"
    if where.tls:
        yield f"TLS by our own CA, SHA-256 {keyring.trust.ca}"
    yield f"MQTT on {where.host} port {where.mqtt_port}, Ctrl-C stops"
