"""`edge agent` and `edge simulate`: the edge that owns the clock, the signals and the terminal."""

import logging
import signal
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import click
import msgspec

from device_agent import install as installing
from device_agent.agent import Agent, Setup, Standing
from device_agent.board import Board
from device_agent.by_hand import import_stick, roll_back
from device_agent.config import AgentConfig, EnrolConfig, load_config, read_token
from device_agent.doctor import examine
from device_agent.doctor import in_words as in_lines
from device_agent.inputs import open_source
from device_agent.ledger import egress
from device_agent.notify import notify
from device_agent.selftest import in_this_process, try_apart
from device_agent.simulate import Plan, build
from device_agent.simulate import run as run_fleet
from device_agent.status import in_words, read_status
from edge_sdk.errors import InvalidInputError, RefusedError
from edge_sdk.formats import to_json
from edge_sdk.profiles import load_profile
from edge_sdk.topics import valid_device_id
from edge_sdk.tracing import tracer

FILE = click.Path(path_type=Path, dir_okay=False)
FOLDER = click.Path(path_type=Path, file_okay=False)


class SystemClock:
    """The host's clocks."""

    def wall(self) -> float:
        """Unix seconds."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds that never go back."""
        return time.monotonic()


@click.group()
def agent() -> None:
    """Run a model on this device, watched and updated by a fleet server."""


@agent.command("run")
@click.option("--config", "path", type=FILE, required=True, help="The agent's TOML file.")
def run_agent(path: Path) -> None:
    """Enrol, take orders, infer, send telemetry; until SIGTERM or Ctrl-C."""
    _log_lines(logging.INFO)
    setup = _setup(load_config(path))
    found = Agent(setup)
    notify("READY=1")
    try:
        found.run(_stop_on_signals())
    finally:
        if setup.tracer is not None:
            setup.tracer.close()


@agent.command()
@click.option("--config", "path", type=FILE, required=True, help="The agent's TOML file.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def status(path: Path, *, as_json: bool) -> None:
    """What this device runs, wants and has not sent yet, as its state folder says."""
    found = read_status(load_config(path).state.dir)
    click.echo(to_json(found).decode() if as_json else in_words(found), nl=not as_json)


@agent.command("egress")
@click.option("--config", "path", type=FILE, required=True, help="The agent's TOML file.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def show_egress(path: Path, *, as_json: bool) -> None:
    """What left this device: bytes by day (UTC) and kind, and each sample by itself."""
    days, samples = egress(load_config(path).state.dir / "outbox.sqlite")
    lines = [*days, *samples]
    if as_json:
        for line in lines:
            click.echo(msgspec.json.encode(line).decode())
        return
    if not lines:
        click.echo("nothing left this device yet")
    for day in days:
        click.echo(f"{day.day}  {day.kind:9}  {day.messages:7,} messages  {day.bytes:11,} bytes")
    for one in samples:
        at = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(one.wall))
        raw = f"{one.bytes:,} bytes of the row" if one.bytes else "the answer only"
        done = f" after {one.transforms}" if one.transforms else ""
        click.echo(f"{at}  sample {one.id} of {one.model} ({one.policy}): {raw}{done}")


@agent.command("doctor")
@click.option("--config", "path", type=FILE, required=True, help="The agent's TOML file.")
@click.option("--mqtt", is_flag=True, help="MQTT too; a running agent loses its link for a moment.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def examine_agent(path: Path, *, mqtt: bool, as_json: bool) -> None:
    """What keeps this device from working, step by step; exit 3 if a step fails."""
    failed = 0
    for step in examine(load_config(path), SystemClock().wall, mqtt=mqtt):
        click.echo(msgspec.json.encode(step).decode() if as_json else in_lines(step))
        failed += step.result == "fails"
    if failed:
        raise RefusedError(f"{failed} step{'s' if failed > 1 else ''} failed")


@agent.command("rollback")
@click.option("--config", "path", type=FILE, required=True, help="The agent's TOML file.")
def rollback(path: Path) -> None:
    """Go back to the version before, kept on this device; needs no server."""
    config = load_config(path)
    leaving, target = roll_back(config, load_profile(config.device.profile).name)
    click.echo(f"rolled back from {leaving} to {target}; the server hears of it")


@agent.command("import-usb")
@click.argument("folder", type=FOLDER)
@click.option("--config", "path", type=FILE, required=True, help="The agent's TOML file.")
def import_usb(folder: Path, path: Path) -> None:
    """Install what 'edge export-usb' put on the stick in FOLDER; exit 3 if it is not taken."""
    config = load_config(path)
    run = Agent(_setup(config)).run
    found, left = import_stick(folder, config, run)
    click.echo(f"{in_words(found)}\nreport   {left}: hand it in with 'edge import-usb {folder}'")
    if found.phase != "confirmed":
        raise RefusedError(f"the stick's order is {found.phase}: {found.reason}")


@agent.command("install")
@click.option("--config", "path", type=FILE, required=True, help="The agent's TOML file.")
@click.option(
    "--dir",
    "folder",
    type=FOLDER,
    default="/opt/edge-agent",
    show_default=True,
    help="Gets an environment of the agent's own.",
)
@click.option("--user", default="edge-agent", show_default=True, help="Whom the agent runs as.")
@click.option(
    "--from",
    "source",
    default=installing.FROM,
    show_default=True,
    help="Wheel, folder or pip requirement.",
)
@click.option("--python", type=FILE, default=sys.executable, help="Makes the environment.")
@click.option("--dry-run", is_flag=True, help="Show what would be done, as shell commands.")
def install_agent(
    path: Path, folder: Path, user: str, source: str, python: Path, *, dry_run: bool
) -> None:
    """Install this agent as a systemd service that never runs as root."""
    config = load_config(path)
    service = installing.Service(
        folder=folder.absolute(),
        user=user,
        config=path.absolute(),
        state=config.state.dir,
        python=python,
    )
    if reasons := installing.reasons_to_refuse(config, service):
        raise InvalidInputError("; ".join(reasons))
    systemd = installing.systemd_runs()
    deeds = installing.plan(
        config, service, source, user_known=installing.known_user(user), systemd=systemd
    )
    if dry_run:
        for deed in deeds:
            click.echo(str(deed))
        return
    installing.require_root()
    installing.carry_out(deeds, lambda line: click.echo(f"edge: {line}", err=True))
    if not systemd:
        click.echo("edge: systemd does not run here, so nothing was started", err=True)
    click.echo(
        f"edge: installed; check it with: sudo -u {user} {service.edge} agent doctor "
        f"--config {service.config} --mqtt",
        err=True,
    )


@click.command()
@click.option("--devices", type=click.IntRange(1, 1000), required=True, help="How many.")
@click.option("--server", required=True, help="http://host:port of the fleet server.")
@click.option("--data", type=FILE, required=True, help=".npz with the input rows in `x`.")
@click.option("--sites", default="north,south,east", show_default=True, help="Site labels.")
@click.option("--profiles", default="raspberry-pi-4", show_default=True, help="Hardware profiles.")
@click.option("--state-dir", type=FOLDER, default="edge-simulation", show_default=True)
@click.option("--faults", type=FILE, help="TOML with [[fault]]; read again when it changes.")
@click.option("--rows-per-second", type=float, default=100.0, show_default=True)
@click.option("--window", type=float, default=1.0, show_default=True, help="Seconds.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--name-prefix", default="sim", show_default=True)
@click.option("--duration", type=float, help="Seconds; without it until Ctrl-C.")
@click.option("--verbose", is_flag=True, help="A line for each event of each device.")
def simulate(  # noqa: PLR0913 - one argument an option
    devices: int,
    server: str,
    data: Path,
    sites: str,
    profiles: str,
    state_dir: Path,
    faults: Path | None,
    rows_per_second: float,
    window: float,
    seed: int,
    name_prefix: str,
    duration: float | None,
    *,
    verbose: bool,
) -> None:
    """Run N real agents in this process; the enrolment token comes from EDGE_ENROL_TOKEN.

    \b
    A faults file makes the sensors of a site go wrong while it is there:
      [[fault]]
      site = "north"
      gain = 0.5          # value * gain + offset, inside the data's range
      offset = 0.0
      blur = 0            # radius in pixels
      stuck_rows = 0      # first lines of the image stand at the lowest value
    """  # noqa: D301 - \b is click's mark for "keep these lines"
    _log_lines(logging.INFO if verbose else logging.WARNING)
    for name, value in (("--rows-per-second", rows_per_second), ("--window", window)):
        if not 0 < value < 1e6:
            raise InvalidInputError(f"{name} must be above zero, not {value}")
    if not valid_device_id(f"{name_prefix}-1"):
        raise InvalidInputError(f"--name-prefix {name_prefix!r} must be lower-case letters, digits")
    plan = Plan(
        devices=devices,
        server=server,
        data=data,
        sites=_names(sites, "--sites"),
        profiles=_names(profiles, "--profiles"),
        state_dir=state_dir,
        faults=faults,
        rows_per_second=rows_per_second,
        window_seconds=window,
        seed=seed,
        name_prefix=name_prefix,
    )
    log = logging.getLogger("edge.simulate")
    telling = tracer("edge-agent")
    agents = build(plan, SystemClock(), lambda: read_token(EnrolConfig()), log.warning, telling)
    stop = _stop_on_signals()
    if duration is not None:
        timer = threading.Timer(duration, stop.set)
        timer.daemon = True
        timer.start()
    live = sys.stderr.isatty() and not verbose
    try:
        run_fleet(agents, stop, _show if live else _silent)
    finally:
        if telling is not None:
            telling.close()
    if live:
        click.echo(err=True)


def _setup(config: AgentConfig) -> Setup:
    device = config.device
    board = Board.open(device.port, device.baud) if device.port else None
    return Setup(
        board=board,
        trial=in_this_process if board else try_apart,  # the board is a place of its own
        config=config,
        profile=load_profile(config.device.profile),
        source=open_source(config.input.source, config.input.rows_per_second, board=board),
        clock=SystemClock(),
        token=lambda: read_token(config.enrol),
        tracer=tracer("edge-agent"),
    )


def _names(text: str, option: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise InvalidInputError(f"{option} names nothing: give names with commas between")
    return names


def _stop_on_signals() -> threading.Event:
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop


def _log_lines(level: int) -> None:
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)-7s %(message)s")


def _show(fleet: list[Standing]) -> None:
    online = sum(standing.online for standing in fleet)
    running = Counter(s.running.version if s.running else "nothing" for s in fleet)
    phases = Counter(standing.phase for standing in fleet)
    parts = (
        f"{online}/{len(fleet)} online",
        "running " + ", ".join(f"{name}: {n}" for name, n in sorted(running.items())),
        ", ".join(f"{name}: {n}" for name, n in sorted(phases.items())),
        f"{sum(standing.outbox for standing in fleet)} messages waiting",
    )
    click.echo("\r\x1b[K" + " · ".join(parts), nl=False, err=True)


def _silent(_fleet: list[Standing]) -> None:
    """Nobody looks."""
