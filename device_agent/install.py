"""`edge agent install`: an environment of the agent's own and a systemd unit that fences it in.

What is to be done is data first, so that `--dry-run` shows just that; `carry_out` obeys. Root
installs, and the agent itself never runs as root.
"""

import os
import pwd
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from device_agent.config import AgentConfig
from device_agent.inputs import Spec
from edge_sdk import __version__
from edge_sdk.errors import EdgeError, InvalidInputError

FROM = f"edge-deployment-sdk[agent]=={__version__}"
UNIT_DIR, STATE_ROOT = Path("/etc/systemd/system"), Path("/var/lib")
# What the unit's ProtectHome and PrivateTmp hide from the agent.
HIDDEN = tuple(Path(name) for name in ("/home", "/root", "/run/user", "/tmp", "/var/tmp"))  # noqa: S108


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """What is installed where.

    Attributes:
        folder: gets the environment, in `venv`.
        user: the agent runs as; made if there is none such.
        config: the agent's TOML file.
        state: its state folder.
        python: makes the environment.
        unit: the unit's file.
    """

    folder: Path
    user: str
    config: Path
    state: Path
    python: Path = Path(sys.executable)
    unit: Path = UNIT_DIR / "edge-agent.service"

    @property
    def edge(self) -> Path:
        return self.folder / "venv" / "bin" / "edge"

    @property
    def command(self) -> list[str]:
        """What systemd starts."""
        return [str(self.edge), "agent", "run", "--config", str(self.config)]


class Run(msgspec.Struct, frozen=True):
    """Run a program; it must end well."""

    argv: tuple[str, ...]

    def __str__(self) -> str:
        return shlex.join(self.argv)


class Write(msgspec.Struct, frozen=True):
    """Write a file that everyone may read."""

    path: Path
    text: str

    def __str__(self) -> str:
        return f"cat > {shlex.quote(str(self.path))} <<'END'\n{self.text}END"


Deed = Run | Write


def reasons_to_refuse(config: AgentConfig, service: Service) -> list[str]:
    """Why such a service would not start; empty if it would."""
    found = []
    for what, path in (
        ("the config", service.config),
        ("[state] dir", config.state.dir),
        ("[input] source", Spec.parse(config.input.source).path),
        ("[enrol] token_file", config.enrol.token_file),
        ("--dir", service.folder),
    ):
        if path is not None and _hidden(path):
            found.append(f"{what} {path} is in a place that the service does not see: move it")
    if _hidden(service.python):
        found.append(
            f"{service.python} lies where the service does not see it: "
            "give another by --python, for instance /usr/bin/python3"
        )
    if config.device.profile.endswith(".toml") and _hidden(Path(config.device.profile)):
        found.append(f"[device] profile {config.device.profile} is in such a place too: move it")
    if service.user == "root":
        found.append("the agent does not run as root: give another --user")
    return found


def plan(
    config: AgentConfig, service: Service, source: str, *, user_known: bool, systemd: bool
) -> list[Deed]:
    """Everything to be done, in order; doing it again brings what is installed up to date.

    Args:
        config: the service's, read.
        service: what goes where.
        source: the distribution to install: a wheel, a folder, or a pip requirement.
        user_known: the user is there already.
        systemd: it runs here, so the service can be started.
    """
    python = str(service.folder / "venv" / "bin" / "python")
    deeds: list[Deed] = []
    if not user_known:
        options = ("--system", "--no-create-home", "--shell", "/usr/sbin/nologin")
        deeds.append(Run(("useradd", *options, service.user)))
    deeds += [
        Run((str(service.python), "-m", "venv", str(service.folder / "venv"))),
        Run((python, "-m", "pip", "install", "--upgrade", _requirement(source))),
    ]
    if not service.state.is_relative_to(STATE_ROOT):  # else systemd makes it
        deeds += [
            Run(("mkdir", "-p", str(service.state))),
            Run(("chown", "-R", f"{service.user}:", str(service.state))),
            Run(("chmod", "700", str(service.state))),
        ]
    if config.enrol.token_file is not None:
        deeds += [
            Run(("chown", f"{service.user}:", str(config.enrol.token_file))),
            Run(("chmod", "400", str(config.enrol.token_file))),
        ]
    deeds.append(Write(service.unit, unit_text(service)))
    if systemd:
        deeds += [
            Run(("systemctl", "daemon-reload")),
            Run(("systemctl", "enable", service.unit.name)),
            Run(("systemctl", "restart", service.unit.name)),
        ]
    return deeds


def carry_out(deeds: Sequence[Deed], tell: Callable[[str], None]) -> None:
    """Do it.

    Raises:
        EdgeError: a program ended badly or is missing, or a file can't be written.
    """
    for deed in deeds:
        try:
            match deed:
                case Run(argv):
                    tell(str(deed))
                    subprocess.run(argv, check=True)  # noqa: S603 - our own words
                case Write(path, text):
                    tell(f"write {path}")
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_text(text)
                    path.chmod(0o644)
        except subprocess.CalledProcessError as error:
            raise EdgeError(f"'{deed}' ended with {error.returncode}: see above") from error
        except OSError as error:
            raise EdgeError(f"the installation stopped: {error}") from error


def known_user(name: str) -> bool:
    """Whether this machine has such a user."""
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def require_root() -> None:
    """Raises InvalidInputError: only root may make users and units."""
    if os.geteuid() != 0:
        raise InvalidInputError("only root can install a service: use sudo, or look by --dry-run")


def systemd_runs() -> bool:
    """As sd_booted(3) tells it."""
    return Path("/run/systemd/system").is_dir() and shutil.which("systemctl") is not None


def unit_text(service: Service) -> str:
    """The unit. `deploy/edge-agent.service` is the one for the usual places."""
    inside = service.state.is_relative_to(STATE_ROOT)
    state = (
        f"StateDirectory={_path(service.state.relative_to(STATE_ROOT))}\nStateDirectoryMode=0700"
        if inside
        else f"ReadWritePaths={_path(service.state)}"
    )
    return _UNIT.format(
        user=service.user, command=" ".join(_word(word) for word in service.command), state=state
    )


def _hidden(path: Path) -> bool:
    return any(path.resolve().is_relative_to(hidden) for hidden in HIDDEN)


def _requirement(source: str) -> str:
    """A wheel or folder needs its extra named; a requirement says itself what it wants."""
    return f"{Path(source).absolute()}[agent]" if Path(source).exists() else source


def _word(text: str) -> str:
    """One argument of ExecStart."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return escaped if escaped == text and " " not in text else f'"{escaped}"'


def _path(path: Path) -> str:
    return str(path).replace("%", "%%").replace(" ", "\\x20")


_UNIT = """\
# Made by 'edge agent install': doing it again overwrites this file. Changes of yours belong into
# 'systemctl edit edge-agent', for instance SupplementaryGroups=video plugdev for a camera.
[Unit]
Description=Edge agent: runs a model on this device, watched by its fleet server
Wants=network-online.target
After=network-online.target time-sync.target
StartLimitIntervalSec=0

[Service]
Type=notify
User={user}
ExecStart={command}
Restart=always
RestartSec=5
# The thread that decides says every 30 s that it is alive.
WatchdogSec=120
TimeoutStopSec=30
MemoryHigh=60%
MemoryMax=75%
TasksMax=256

{state}
UMask=0077
NoNewPrivileges=yes
CapabilityBoundingSet=
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
ProtectProc=invisible
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectHostname=yes
RestrictSUIDSGID=yes
RestrictRealtime=yes
RestrictNamespaces=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
LockPersonality=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallErrorNumber=EPERM
# No PrivateDevices and no ProtectClock, which implies a closed list of devices: cameras and
# accelerators are devices.

[Install]
WantedBy=multi-user.target
"""
