"""The demo's processes: `edge` commands as anybody would start them, each with its own log."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from edge_sdk.errors import EdgeError

T = TypeVar("T")
EDGE = (sys.executable, "-m", "edge_sdk.cli")


class Stage:
    """Starts and ends every process of the demo; logs lie in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self.environment = {
            **os.environ,
            "XDG_CONFIG_HOME": str(folder / "config"),  # the demo's signing key is its own
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "PYTHONUNBUFFERED": "1",
        }

    def start(self, name: str, command: Sequence[str], **environment: str) -> None:
        """Start a process that goes on beside the story; a name is started once at a time."""
        with (self.folder / f"{name}.log").open("ab") as log:
            self._running[name] = subprocess.Popen(  # noqa: S603 - our own command, no shell
                list(command),
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env={**self.environment, **environment},
                start_new_session=True,
            )

    def finish(self, name: str, timeout: float) -> None:
        """Wait for a process to end well.

        Raises:
            EdgeError: it took too long, or failed; with the end of its log.
        """
        process = self._running.pop(name)
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired as error:
            self._stop(process)
            raise EdgeError(f"{name} did not end within {timeout:.0f} s") from error
        if code:
            raise EdgeError(f"{name} ended with exit code {code}: {self.tail(name)}")

    def kill(self, name: str) -> None:
        """SIGKILL: what a power cut is to a process."""
        process = self._running.pop(name)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def alive(self, name: str) -> bool:
        """Whether the process still runs."""
        process = self._running.get(name)
        return process is not None and process.poll() is None

    def tail(self, name: str) -> str:
        """The last lines of a process's log."""
        text = (self.folder / f"{name}.log").read_text(errors="replace")
        return " | ".join(text.strip().splitlines()[-4:])

    def run(self, command: Sequence[str], timeout: float) -> tuple[int, str, str]:
        """Run a command to its end: exit code, standard output, standard error."""
        done = subprocess.run(  # noqa: S603 - our own command, no shell
            list(command),
            capture_output=True,
            text=True,
            timeout=timeout,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr

    def ask(self, command: Sequence[str], timeout: float) -> Mapping[str, Any]:
        """Run an `edge ... --json` command that must succeed; its JSON object."""
        code, out, err = self.run(command, timeout)
        if code:
            raise EdgeError(f"{' '.join(command[3:6])} ended with {code}: {err.strip()[-400:]}")
        return msgspec.json.decode(out, type=dict[str, Any])

    def close(self) -> None:
        """End everything that still runs, the last started first."""
        for name in reversed(list(self._running)):
            self._stop(self._running.pop(name))

    def _stop(self, process: subprocess.Popen[bytes]) -> None:
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
                return


def wait_for(what: str, look: Callable[[], T | None], timeout: float, every: float = 0.25) -> T:
    """Ask `look` until it has an answer.

    Raises:
        EdgeError: none within `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    while (found := look()) is None:
        if time.monotonic() > deadline:
            raise EdgeError(f"waited {timeout:.0f} s for {what}, in vain")
        time.sleep(every)
    return found
