"""The installer for real: an environment, a unit that systemd takes, an agent that is not root."""

import json
import os
import pwd
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import msgspec
import numpy as np
import pytest

from device_agent.config import load_config
from device_agent.install import Service, carry_out, plan
from tests.agent_world import BOARD, FleetServer, eventually, rows

pytestmark = pytest.mark.system
ROOT = Path(__file__).parents[2]
USER = pwd.getpwnam("daemon")
SYSTEM_PYTHON = Path("/usr/bin/python3")


def python_for_everyone():
    """One that other users may start; of the version that the borrowed packages are for."""
    asked = [str(SYSTEM_PYTHON), "-c", "import sys, ensurepip; print(*sys.version_info[:2])"]
    if os.geteuid() == 0 and SYSTEM_PYTHON.exists():
        said = subprocess.run(asked, capture_output=True, text=True).stdout
        if said.split() == [str(part) for part in sys.version_info[:2]]:
            return SYSTEM_PYTHON
        pytest.skip("no system Python of this version with venv")
    return Path(sys.executable)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder that other users may enter too."""
    folder = tmp_path_factory.mktemp("device")
    outside = Path(tempfile.gettempdir()).resolve()
    for parent in (folder, *folder.parents):
        if parent == outside:
            break
        parent.chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def fleet():
    with FleetServer() as found:
        yield found


@pytest.fixture(scope="module")
def config_file(place, fleet):
    np.savez(place / "x.npz", x=rows())
    board = {k: v for k, v in msgspec.to_builtins(BOARD).items() if v is not None}
    lines = [f"{name} = {json.dumps(value)}" for name, value in board.items()]
    (place / "board.toml").write_text("\n".join(lines))
    (place / "agent.toml").write_text(f"""
        device = {{ profile = "board.toml", id = "dev-1" }}
        link.server = "{fleet.url}"
        input.source = "npz:x.npz"
        telemetry.window_seconds = 0.1
        state.dir = "state"
    """)
    return place / "agent.toml"


@pytest.fixture(scope="module")
def service(place, config_file):
    """Installed from a wheel of this tree; its dependencies are borrowed from this environment."""
    wheels = place / "wheels"
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(wheels)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    [wheel] = wheels.iterdir()
    config = load_config(config_file)
    found = Service(
        folder=place / "edge-agent",
        user=USER.pw_name,
        python=python_for_everyone(),
        config=config_file,
        state=config.state.dir,
        unit=place / "edge-agent.service",
    )
    told = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PIP_NO_DEPS", "1")
        patch.setenv("PIP_NO_INDEX", "1")
        deeds = plan(config, found, str(wheel), user_known=True, systemd=False)
        if os.geteuid() != 0:
            deeds = [deed for deed in deeds if "chown" not in str(deed)]
        carry_out(deeds, told.append)
    assert any("pip install" in line for line in told)
    [packages] = (found.folder / "venv" / "lib").glob("python*/site-packages")
    (packages / "borrowed.pth").write_text(sysconfig.get_path("purelib"))
    return found


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_takes_the_unit_without_a_complaint(service):
    done = subprocess.run(
        ["systemd-analyze", "verify", str(service.unit)], capture_output=True, text=True
    )
    about_us = [line for line in done.stderr.splitlines() if service.unit.name in line]
    assert (done.returncode, about_us) == (0, [])


def test_what_systemd_starts_runs_without_root_and_tells_that_it_is_up(service, fleet, place):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(place / "notify"))
        (place / "notify").chmod(0o777)
        systemd.settimeout(30)
        as_user = {"user": USER.pw_uid, "group": USER.pw_gid} if os.geteuid() == 0 else {}
        process = subprocess.Popen(
            service.command,
            env={
                "EDGE_ENROL_TOKEN": str(fleet.token),
                "NOTIFY_SOCKET": str(place / "notify"),
                "PATH": os.environ["PATH"],
            },
            cwd="/",
            extra_groups=[] if as_user else None,
            **as_user,
        )
        try:
            assert systemd.recv(100) == b"READY=1"
            assert systemd.recv(100) == b"WATCHDOG=1"
            eventually(lambda: fleet.last("dev-1"), "a report", 30)
            owner = Path(f"/proc/{process.pid}").stat().st_uid
            assert owner == (USER.pw_uid if as_user else os.getuid())
            process.terminate()
            assert process.wait(20) == 0
        finally:
            process.kill()
            process.wait()
    assert service.state.stat().st_mode & 0o777 == 0o700
