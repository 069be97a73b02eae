"""Runs a peer in an environment that uv makes for it and throws away; its telemetry is off."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from edge_sdk.channels import Array

QUIET = {"WHYLOGS_NO_ANALYTICS": "True", "DO_NOT_TRACK": "1", "NML_DISABLE_USAGE_LOGGING": "1"}


def peer(packages: list[str], script: str, rows: Array, python: str = "") -> str:
    """What `script` prints when it is given `rows` as an .npy; or why it did not run."""
    uv = shutil.which("uv") or str(Path(__file__).parent.parent / ".tools" / "bin" / "uv")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        np.save(folder / "rows.npy", rows)
        (folder / "peer.py").write_text(script)
        command = [uv, "run", "--no-project", "--isolated", "--quiet"]
        command += [*(["--python", python] if python else []), "--no-build"]
        for package in packages:
            command += ["--with", package]
        done = subprocess.run(
            [*command, "python", str(folder / "peer.py"), str(folder / "rows.npy")],
            capture_output=True,
            text=True,
            cwd=folder,
            env={**os.environ, **QUIET},
            timeout=600,
            check=False,
        )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        return f"not run here ({last[:120]})"
    return done.stdout.strip().splitlines()[-1]
