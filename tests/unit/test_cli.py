"""The command line as a whole: light, listed, and its errors in one sentence."""

import subprocess
import sys
from pathlib import Path

import pytest

from edge_sdk.cli import COMMANDS

ROOT = Path(__file__).parents[2]


def run(*words):
    command = [sys.executable, "-m", "edge_sdk.cli", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_help_is_as_it_was():
    assert run("--help").stdout == (ROOT / "tests/contract/golden/help.txt").read_text()


def test_help_imports_nothing_heavy():
    code = "import sys, edge_sdk.cli; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"numpy", "msgspec", "rich", "tensorflow", "fastapi", "cryptography", "paho"}
    assert heavy.isdisjoint(done.stdout.split())


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_explains_itself(command):
    shown = run(command, "--help")
    assert shown.returncode == 0, shown.stderr
    assert "Usage: edge" in shown.stdout


def test_every_command_is_in_the_readme():
    readme = (ROOT / "README.md").read_text()
    assert [c for c in COMMANDS if f"edge {c}" not in readme] == []


def test_an_unknown_command_is_a_wrong_use():
    shown = run("conver")
    assert shown.returncode == 2
    assert "No such command 'conver'" in shown.stderr


def test_doctor_looks_and_says():
    shown = run("doctor")
    assert shown.returncode == 0, shown.stdout
    assert "python" in shown.stdout
    assert "extra convert" in shown.stdout


def test_the_demo_never_empties_a_folder_that_is_not_its_own(tmp_path):
    (tmp_path / "precious.txt").write_text("mine")
    shown = run("demo", "--ci", "--out", str(tmp_path))
    assert shown.returncode == 2
    assert "not empty and not from a demo" in shown.stderr
    assert (tmp_path / "precious.txt").read_text() == "mine"
