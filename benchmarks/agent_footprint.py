"""What an idle agent takes: resident memory, import time, what it imports, and the disk of a Pi.

Over a Python with numpy and the interpreter's library, which any device that runs a model needs.

One window an hour and no rows: what is left is the agent itself. Memory is /proc's VmRSS in MB. The
disk is what `[agent]` installs for 64-bit ARM: the wheels are downloaded and unpacked, not run.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import msgspec
import numpy as np

RUNS, IDLE = 7, 20.0
ROOT = Path(__file__).parent.parent
LARGEST = 5  # packages named
# In the order of need: what each adds to those before it.
TAKE = (
    "numpy", "ai_edge_litert.interpreter", "msgspec", "sqlite3", "ssl",
    "cryptography.hazmat.primitives.asymmetric.ed25519", "cryptography.x509",
    "securesystemslib.signer", "tuf.ngclient", "paho.mqtt.client", "device_agent.agent",
)  # fmt: skip
BARE = """
import time
begun = time.perf_counter()
import numpy, ai_edge_litert.interpreter
print(time.perf_counter() - begun)
"""
AGENT = """
import sys, time
begun = time.perf_counter()
import numpy, ai_edge_litert.interpreter
import device_agent.agent
print(time.perf_counter() - begun)
"""
RSS = """
from pathlib import Path
for line in Path("/proc/self/status").read_text().splitlines():
    if line.startswith("VmRSS:"):
        print(int(line.split()[1]) / 1000)
"""
STEPS = """
import importlib, sys
from pathlib import Path
def rss():
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1000
before = rss()
print(f"Python {before:.0f}", end="")
for name in sys.argv[1:]:
    importlib.import_module(name)
    after = rss()
    print(f", {name.partition('.')[0]} {after - before:.1f}", end="")
    before = after
"""
MODULES = """
import sys
before = set(sys.modules)
import device_agent.agent
print(" ".join(sorted({name.partition(".")[0] for name in set(sys.modules) - before
      if "site-packages" in (getattr(sys.modules[name], "__file__", None) or "")})))
"""


def agent_alone(folder: Path) -> str:
    """The Python of a new environment with `[agent]` and nothing else.

    Libraries look for others beside them: with the tests' own boto3, securesystemslib imports it.
    """
    command = [_uv(), "sync", "--quiet", "--frozen", "--no-dev", "--extra", "agent"]
    command += ["--project", str(ROOT), "--python", sys.executable]
    subprocess.run(command, check=True, env={**os.environ, "UV_PROJECT_ENVIRONMENT": str(folder)})
    return str(folder / "bin" / "python")


def told(python: str, script: str, *arguments: str) -> str:
    """What a fresh Python prints."""
    command = [python, "-c", script, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def _uv() -> str:
    return shutil.which("uv") or str(ROOT / ".tools" / "bin" / "uv")


def installed() -> str:
    """What `[agent]` takes on the disk of a 64-bit ARM board, in words."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        command = [_uv(), "pip", "install", "--quiet", "--target", scratch, "--python-platform"]
        command += ["aarch64-manylinux_2_28", "--python-version", "3.11", "--only-binary", ":all:"]
        command += ["--no-binary", "edge-deployment-sdk", f"{ROOT}[agent]"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            return f"not installed here ({(done.stderr.splitlines() or ['no reason'])[-1][:120]})"
        sizes = {path.name: _bytes(path) for path in folder.iterdir()}
        packages = len(list(folder.glob("*.dist-info")))
    largest = sorted(sizes, key=lambda name: -sizes[name])[:LARGEST]
    named = ", ".join(f"{name} {sizes[name] / 1e6:.0f}" for name in largest)
    return f"{sum(sizes.values()) / 1e6:.0f} MB in {packages} packages ({named})"


def _bytes(path: Path) -> int:
    files = [path] if path.is_file() else [one for one in path.rglob("*") if one.is_file()]
    return sum(one.stat().st_size for one in files)


def idle_agent(python: str) -> tuple[float, float]:
    """MB of a running agent that has a model and nothing to do, and its share of one core."""
    from tests.agent_world import BOARD, FleetServer, eventually, rows, tiny_bundle

    with tempfile.TemporaryDirectory() as scratch, FleetServer() as fleet:
        folder = Path(scratch)
        np.savez(folder / "x.npz", x=rows())
        board = {k: v for k, v in msgspec.to_builtins(BOARD).items() if v is not None}
        (folder / "board.toml").write_text(
            "\n".join(f"{key} = {json.dumps(value)}" for key, value in board.items())
        )
        (folder / "agent.toml").write_text(
            f'[device]\nid = "dev-1"\nprofile = "board.toml"\n[link]\nserver = "{fleet.url}"\n'
            '[input]\nsource = "npz:x.npz"\nrows_per_second = 0.01\n'
            '[telemetry]\nwindow_seconds = 3600\n[state]\ndir = "state"\n'
        )
        command = ["-m", "edge_sdk.cli", "agent", "run", "--config", str(folder / "agent.toml")]
        with subprocess.Popen(
            [python, *command],
            env={**os.environ, "EDGE_ENROL_TOKEN": str(fleet.token)},
            stderr=subprocess.DEVNULL,
        ) as child:
            try:
                eventually(lambda: fleet.last("dev-1"), "it is there", 60)
                fleet.order("dev-1", tiny_bundle(fleet.publisher))
                eventually(lambda: fleet.last("dev-1").phase == "trial", "a model runs", 60)
                begun, cpu = time.monotonic(), _cpu(child.pid)
                threading.Event().wait(IDLE)
                return _rss(child.pid), (_cpu(child.pid) - cpu) / (time.monotonic() - begun)
            finally:
                child.kill()


def _cpu(pid: int) -> float:
    """Seconds of processor time."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _rss(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1000
    return 0.0


def main() -> None:
    """Imports in turn, then one idle agent."""
    with tempfile.TemporaryDirectory() as folder:
        measure(agent_alone(Path(folder) / "venv"))


def measure(python: str) -> None:
    """All of it by this Python, as one line."""
    pairs = [
        [[float(word) for word in told(python, take + RSS).split()] for take in (AGENT, BARE)]
        for _ in range(RUNS)
    ]
    agent_s, bare_s = (
        statistics.median(side[0] for side in column) for column in zip(*pairs, strict=True)
    )
    agent_mb, bare_mb = (
        statistics.median(side[1] for side in column) for column in zip(*pairs, strict=True)
    )
    modules, steps = told(python, MODULES), told(python, STEPS, *TAKE)
    rss, share = idle_agent(python)
    result = {
        "name": "agent-footprint",
        "value": round(rss / bare_mb, 2),
        "unit": "x RSS",
        "better": "lower",
        "against": f"Python that has imported numpy and LiteRT alone ({bare_mb:.0f} MB, "
        f"{1000 * bare_s:.0f} ms)",
        "detail": f"idle agent with a model {rss:.0f} MB and {100 * share:.2f} % of a core over "
        f"{IDLE:.0f} s; its imports {agent_mb:.0f} MB, {1000 * agent_s:.0f} ms (median of {RUNS}); "
        f"imported beside numpy: {modules}; MB that each adds: {steps}; "
        f"installed for aarch64: {installed()}",
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
