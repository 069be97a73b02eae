"""`make test-arm`: the agent with its real aarch64 wheels on an emulated Raspberry Pi.

Makes a Debian userland for arm64 (mmdebstrap), installs the wheel of this tree with `[agent]` into
it, and runs `edge agent run` there under qemu against a fleet server on this machine, until the
model's golden samples were answered bit by bit as signed, by XNNPACK, and the model is confirmed.
Needs root, qemu-user-static, mmdebstrap and binfmt_misc; says so, and does nothing, without them.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import msgspec
import numpy as np

from edge_sdk.bundle import Golden
from edge_sdk.channels import Preprocessing
from edge_sdk.interpreter import LiteRt
from edge_sdk.messages import Report, Window
from tests.agent_world import BOARD, LABELS, MODEL, FleetServer, rows
from tests.bundles import make_bundle

ROOT = Path(__file__).parent.parent
CACHE = ROOT / ".arm"
SUITE = "bookworm"
CPU = "cortex-a53"  # never qemu's default: XNNPACK's answers are wrong on it
BINFMT = Path("/proc/sys/fs/binfmt_misc")
SECONDS = 240
CPUINFO = """processor\t: {n}
BogoMIPS\t: 38.40
Features\t: fp asimd evtstrm crc32 cpuid
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: 0xd03
CPU revision\t: 4

"""
IMPORTS = """
import json, sys, time
from pathlib import Path
begun = time.perf_counter()
import device_agent.agent
took = time.perf_counter() - begun
mine = {name.partition(".")[0] for name, module in sys.modules.items()
        if (getattr(module, "__file__", None) or "").startswith("/opt/agent")}
print(json.dumps([took, sorted(mine)]))
"""


def why_not() -> str:
    """What is missing on this machine, in words."""
    if os.geteuid():
        return "needs root, to mount and to change its root directory"
    missing = [name for name in ("qemu-aarch64-static", "mmdebstrap") if not shutil.which(name)]
    if missing:
        return f"needs {' and '.join(missing)}: apt-get install qemu-user-static mmdebstrap"
    return ""


def run(*command: object, **more: object) -> None:
    print("+", *command, flush=True)
    subprocess.run([str(word) for word in command], check=True, **more)


def register() -> None:
    """Let this kernel start aarch64 programs by qemu."""
    if not (BINFMT / "register").exists():
        run("mount", "-t", "binfmt_misc", "binfmt_misc", BINFMT)
    if not (BINFMT / "qemu-aarch64").exists():
        rule = Path("/usr/lib/binfmt.d/qemu-aarch64.conf").read_text()
        (BINFMT / "register").write_text(rule.strip())


def userland(root: Path) -> None:
    """A Debian for arm64 with Python, and this tree's agent in /opt/agent."""
    if not (root / "usr/bin/python3").exists():
        shutil.rmtree(root, ignore_errors=True)
        root.parent.mkdir(exist_ok=True)
        run("mmdebstrap", "--variant=extract", "--architectures=arm64", "--quiet",
            "--include=python3,libstdc++6,ca-certificates", SUITE, root)  # fmt: skip
    uv = shutil.which("uv") or str(ROOT / ".tools" / "bin" / "uv")
    with tempfile.TemporaryDirectory() as dist:
        run(uv, "build", "--wheel", "--quiet", "--out-dir", dist, cwd=ROOT)
        [wheel] = Path(dist).glob("*.whl")
        shutil.rmtree(root / "opt/agent", ignore_errors=True)
        run(uv, "pip", "install", "--quiet", "--python", sys.executable,
            "--python-platform", "aarch64-manylinux_2_31", "--python-version", "3.11",
            "--only-binary", ":all:", "--target", root / "opt/agent",
            f"{wheel}[agent]")  # fmt: skip


def fake_pi(root: Path) -> None:
    """XNNPACK asks /proc/cpuinfo and /sys for the cores; this machine's would mislead it."""
    cpus = root / "fake/cpu"
    cpus.mkdir(parents=True, exist_ok=True)
    for name in ("possible", "present", "online"):
        (cpus / name).write_text("0-3\n")
    for n in range(4):
        (cpus / f"cpu{n}/topology").mkdir(parents=True, exist_ok=True)
        (cpus / f"cpu{n}/topology/core_id").write_text(f"{n}\n")
    (root / "fake/cpuinfo").write_text("".join(CPUINFO.format(n=n) for n in range(4)))


INSIDE = """
set -e
root="$1"; shift
mkdir -p "$root/proc" "$root/dev" "$root/tmp" "$root/root" "$root/sys/devices/system/cpu"
mount -t proc proc "$root/proc"
mount --bind "$root/fake/cpuinfo" "$root/proc/cpuinfo"
mount --bind "$root/fake/cpu" "$root/sys/devices/system/cpu"
mount --bind /dev "$root/dev"
exec env -i PYTHONPATH=/opt/agent QEMU_CPU="$QEMU_CPU" EDGE_ENROL_TOKEN="$EDGE_ENROL_TOKEN" \
  HOME=/root PATH=/usr/sbin:/usr/bin:/bin chroot "$root" "$@"
"""


def inside(root: Path, *command: str, **environment: str) -> subprocess.Popen[str]:
    """A program in the userland, in mounts and a process table of its own."""
    return subprocess.Popen(
        ["unshare", "-m", "-p", "-f", "--kill-child", "bash", "-c", INSIDE, "bash", str(root),
         *command],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "QEMU_CPU": CPU, "EDGE_ENROL_TOKEN": "", **environment},
    )  # fmt: skip


def exact_bundle(key) -> bytes:
    """Golden samples answered on this machine by XNNPACK; not one bit may differ there."""
    x = rows()[:4]
    here = LiteRt(MODEL.read_bytes(), Preprocessing(scale=1 / 16)).run_rows(x)
    return make_bundle(
        key, name="quarters", profile=BOARD.name, labels=LABELS, x=rows(),
        model=MODEL.read_bytes(), golden=Golden(x, {"xnnpack": here}), tolerance=0.0,
    )  # fmt: skip


def agent_confirms(root: Path) -> tuple[Report, list[Window]]:
    """The agent in the userland takes an order and confirms it; its report and its windows."""
    home = root / "srv/agent"
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    np.savez(home / "x.npz", x=rows())
    profile = msgspec.to_builtins(msgspec.structs.replace(BOARD, latency_budget_ms=10_000.0))
    lines = [f"{k} = {json.dumps(v)}" for k, v in profile.items() if v is not None]
    (home / "test-board.toml").write_text("\n".join(lines))
    with FleetServer() as fleet:
        (home / "agent.toml").write_text(
            f'[device]\nid = "pi-1"\nprofile = "test-board.toml"\n[link]\nserver = "{fleet.url}"\n'
            '[input]\nsource = "npz:x.npz"\n[telemetry]\nwindow_seconds = 2\n'
            '[trial]\nwindows = 1\n[state]\ndir = "state"\n'
        )
        command = ("/usr/bin/python3", "-m", "edge_sdk.cli", "agent", "run", "--config",
                   "/srv/agent/agent.toml")  # fmt: skip
        child = inside(root, *command, EDGE_ENROL_TOKEN=str(fleet.token))
        deadline, nap = time.monotonic() + SECONDS, threading.Event()
        try:
            order = None
            while time.monotonic() < deadline and child.poll() is None:
                if order is None and fleet.last("pi-1"):
                    order = fleet.order("pi-1", exact_bundle(fleet.publisher))
                last = fleet.last("pi-1")
                if order and last and last.phase in ("confirmed", "refused", "failed", "reverted"):
                    windows = fleet.bodies("pi-1", Window)
                    if last.phase != "confirmed" or len(windows) > 1:
                        return last, windows
                nap.wait(0.2)
        finally:
            child.kill()
            child.wait(30)
    raise SystemExit(f"the agent on ARM did not come to an end in {SECONDS} s")


def main() -> int:
    """0 if all held."""
    if reason := why_not():
        print(f"skipped: make test-arm {reason}")
        return 0
    begun, root = time.monotonic(), CACHE / "root"
    register()
    userland(root)
    fake_pi(root)
    sizes = {
        path.name: sum(f.stat().st_size for f in path.rglob("*") if f.is_file()) / 1e6
        for path in (root / "opt/agent").iterdir()
        if path.is_dir() and path.suffix != ".dist-info"
    }
    child = inside(root, "/usr/bin/python3", "-c", IMPORTS)
    took, imported = json.loads((child.communicate(timeout=SECONDS)[0] or "").splitlines()[-1])
    report, windows = agent_confirms(root)
    largest = sorted(sizes.items(), key=lambda item: -item[1])[:5]
    print(f"installed: {sum(sizes.values()):.0f} MB, of it " +
          ", ".join(f"{name} {size:.0f}" for name, size in largest))  # fmt: skip
    print(f"imported by the agent ({took:.1f} s emulated): {', '.join(imported)}")
    print(f"runtime: {report.runtime}; phase: {report.phase} {report.reason}")
    print(f"windows: {[w.rows for w in windows]} rows; took {time.monotonic() - begun:.0f} s")
    good = report.phase == "confirmed" and report.runtime == "litert/xnnpack/cpu" and windows
    print("golden samples bit-exact with XNNPACK on aarch64" if good else "FAILED")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
