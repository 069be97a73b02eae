"""What is installed is what people get: the wheel, in an environment with nothing else in it."""

import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    [found] = out.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def edge(wheel, tmp_path_factory):
    """The `edge` of an environment that holds the wheel and its base dependencies only."""
    folder = tmp_path_factory.mktemp("empty") / "env"
    uv = os.environ.get("UV") or shutil.which("uv")
    venv.create(folder, with_pip=uv is None)
    python = folder / "bin" / "python"
    install = [uv, "pip", "install", "--python"] if uv else [str(python), "-m", "pip", "install"]
    target = [str(python), str(wheel)] if uv else [str(wheel)]
    subprocess.run([*install, *target], check=True, capture_output=True)

    def run(*words):
        return subprocess.run(
            [str(folder / "bin" / "edge"), *words], capture_output=True, text=True, check=False
        )

    return run


def test_every_asset_is_in_the_wheel(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    packages = ["edge_sdk", "converters", "device_agent", "fleet_server", "hw_profiles"]
    command = ["git", "ls-files", *packages]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    assets = listed.stdout.split()
    assert any(name.endswith(".toml") for name in assets)
    assert sorted(set(assets) - names) == []


def test_edge_tells_what_it_can_do(edge):
    shown = edge("--help")
    assert shown.returncode == 0
    assert "convert" in shown.stdout


def test_the_shipped_profiles_are_found(edge):
    shown = edge("profile", "list")
    assert shown.returncode == 0, shown.stderr
    for name in ("raspberry-pi-4", "raspberry-pi-zero-2-w", "coral-usb", "cortex-m7"):
        assert name in shown.stdout


@pytest.mark.parametrize("command", ["convert", "agent", "server", "simulate", "demo"])
def test_a_missing_extra_is_one_sentence_that_names_it(edge, command):
    shown = edge(command, "--help")
    extra = {"simulate": "agent"}.get(command, command)
    assert shown.returncode == 1
    assert f"pip install 'edge-deployment-sdk[{extra}]'" in shown.stderr
    assert len(shown.stderr.strip().splitlines()) == 1
