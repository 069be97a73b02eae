"""The tutorials, command by command, in a real shell; and the site that they are part of."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mosquitto import free_port

pytestmark = pytest.mark.system
ROOT = Path(__file__).parents[2]
TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("*.md"))
PORTS = ("8080", "8883")
FENCE = re.compile(r"^```(\w+)(?: title=\"([\w.]+)\")?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
END = "::end-of-command::"


def blocks(text):
    """(language, file name, content) of every fenced block."""
    return [match.groups() for match in FENCE.finditer(text)]


def commands(content):
    """(command, the output that is shown) of a console block; … stands for anything."""
    found = []
    for line in content.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        else:
            found[-1][1].append(line)
    return [(command, "\n".join(shown)) for command, shown in found]


class Shell:
    """One bash that runs a tutorial in a folder of its own."""

    def __init__(self, folder):
        home = {"HOME": str(folder), "XDG_DATA_HOME": "", "XDG_CONFIG_HOME": ""}
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        known = {k: v for k, v in os.environ.items() if not k.startswith("EDGE_")}
        self.process = subprocess.Popen(
            ["bash"], cwd=folder, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, start_new_session=True,
            env=known | home | {"PATH": path, "TF_CPP_MIN_LOG_LEVEL": "3", "COLUMNS": "200"},
        )  # fmt: skip

    def run(self, command):
        self.process.stdin.write(f"{command}\necho {END} $?\n")
        self.process.stdin.flush()
        said = []
        for line in self.process.stdout:
            if line.startswith(END):
                return int(line.split()[1]), "".join(said)
            said.append(line)
        raise AssertionError(f"the shell ended at {command!r}: {''.join(said)}")

    def close(self):
        self.process.communicate("kill $(jobs -p) 2>/dev/null; wait; exit\n", timeout=60)


def fits(shown, said):
    """Whether what was said has what is shown, in its order."""
    wanted = ".*".join(re.escape(part.strip()) for part in re.split(r"[…\n]", shown))
    return re.search(wanted, said, re.DOTALL) is not None


@pytest.mark.timeout(900)  # a whole story; TensorFlow alone takes long on a busy machine
@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_what_a_tutorial_says_is_what_happens(path, tmp_path):
    text = path.read_text()
    for port in PORTS:
        text = text.replace(port, str(free_port()))
    shell = Shell(tmp_path)
    try:
        for language, name, content in blocks(text):
            if name:
                (tmp_path / name).write_text(content)
            if language != "console":
                continue
            for command, shown in commands(content):
                code, said = shell.run(command)
                logs = [log.read_text()[-2000:] for log in tmp_path.glob("*.log")]
                assert code == 0, (command, said, logs)
                assert fits(shown, said), (command, shown, said)
    finally:
        shell.close()


def test_the_reference_has_every_command_and_every_setting():
    from docs.make_reference import pages
    from edge_sdk.cli import COMMANDS

    made = pages()
    for name in COMMANDS:
        assert f"\n## edge {name}\n" in made["cli.md"]
    for words in ("[link]", "| `mqtt` |", "| `oidc-issuer` |", "| `latency_budget_ms` |"):
        assert words in made["configuration.md"], words
    assert "## Assignment" in made["messages.md"]
    assert "## Lineage" in made["bundle.md"]


def test_the_site_is_built_without_a_warning(tmp_path):
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    for program in (["docs/make_reference.py"], ["-m", "zensical", "build", "--strict"]):
        done = subprocess.run(
            [sys.executable, *program], cwd=tmp_path, capture_output=True, text=True,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
    page = (tmp_path / "site" / "reference" / "cli" / "index.html").read_text()
    assert "edge rollout create" in page
    hosts = set(re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="(https?://[^"]+)"', page))
    assert hosts == set()
