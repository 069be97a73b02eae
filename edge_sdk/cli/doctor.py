"""`edge doctor`: is this machine ready, and if not, what to do. Looks, changes nothing."""

import datetime as dt
import importlib.metadata
import os
import platform
import shutil
import socket
import struct
import time
from pathlib import Path

import click
import msgspec

EXTRAS = {
    "convert": ("tensorflow", "tf-keras", "tensorflow-model-optimization", "ai-edge-litert"),
    "agent": ("ai-edge-litert", "paho-mqtt"),
    "server": ("fastapi", "uvicorn", "sqlalchemy", "alembic", "jinja2", "httpx2"),
}
DISK_NEEDED = 500 * 1024 * 1024
PORTS = {"web and API": 8080, "MQTT": 1883}


class Check(msgspec.Struct, frozen=True):
    """One thing looked at: `no` stops work, `note` does not."""

    name: str
    result: str
    found: str
    advice: str = ""


def checks(folder: Path) -> list[Check]:
    """Everything, in the order in which it matters."""
    found = [_python(), _machine(), _disk(folder), _clock(folder)]
    found += [_extra(extra, names) for extra, names in EXTRAS.items()]
    found += [_port(what, number) for what, number in PORTS.items()]
    return found


def _python() -> Check:
    version = platform.python_version()
    return Check("python", "ok", version)


def _machine() -> Check:
    bits = struct.calcsize("P") * 8
    found = f"{platform.machine()}, {bits} bits, {os.cpu_count()} cores"
    if bits != 64:
        return Check("machine", "no", found, "LiteRT has no 32-bit wheels: use a 64-bit system")
    return Check("machine", "ok", found)


def _disk(folder: Path) -> Check:
    free = shutil.disk_usage(folder).free
    found = f"{free / 2**30:.1f} GiB free"
    if free < DISK_NEEDED:
        return Check("disk", "no", found, f"free at least {DISK_NEEDED / 2**20:.0f} MiB")
    return Check("disk", "ok", found)


def _clock(folder: Path) -> Check:
    """A board without a battery clock starts in the past: nothing can be older than our code."""
    newest = max(Path(__file__).stat().st_mtime, folder.stat().st_mtime)
    now = time.time()
    if now < newest - 86_400:
        return Check("clock", "no", _day(now), "set the clock (timedatectl), or wait for NTP")
    return Check("clock", "ok", _day(now))


def _extra(extra: str, names: tuple[str, ...]) -> Check:
    versions, missing = [], []
    for name in names:
        try:
            versions.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        advice = f"if wanted here: pip install 'edge-deployment-sdk[{extra}]'"
        return Check(f"extra {extra}", "note", f"without {', '.join(missing)}", advice)
    return Check(f"extra {extra}", "ok", ", ".join(versions))


def _port(what: str, number: int) -> Check:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", number))
        except OSError as error:
            advice = f"a server here needs another --port ({error.strerror})"
            return Check(f"port {number}", "note", f"taken, wanted for {what}", advice)
    return Check(f"port {number}", "ok", f"free for {what}")


def _day(seconds: float) -> str:
    return dt.datetime.fromtimestamp(seconds, dt.UTC).strftime("%Y-%m-%d %H:%M UTC")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
@click.pass_context
def doctor(ctx: click.Context, as_json: bool) -> None:  # noqa: FBT001 - click hands it over
    """Is this machine ready, and if not, why? Exit 3 if something stops work."""
    found = checks(Path.cwd())
    well = all(check.result != "no" for check in found)
    if as_json:
        click.echo(msgspec.json.encode({"ok": well, "checks": found}))
    else:
        for check in found:
            advice = f"  -> {check.advice}" if check.advice else ""
            click.echo(f"{check.result:<5}{check.name:<15}{check.found}{advice}")
    ctx.exit(0 if well else 3)
