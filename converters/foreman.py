"""The worker that converts, seen from outside: a child process that may die.

Converting can end in a native abort or by the kernel's out-of-memory killer. That costs the request
in hand: the next one starts a new worker, which opens the model again.
"""

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from converters.dialogue import MEMORY
from converters.protocol import Done, Failed, Open, Opened, Reply, Request
from edge_sdk.errors import InvalidInputError

WORKER = (sys.executable, "-P", "-m", "converters.worker")
TFLITE_WORKER = (sys.executable, "-P", "-m", "converters.tflite_worker")
_SETTINGS = {
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TF_ENABLE_ONEDNN_OPTS": "0",  # one order of summation: same input, same bytes
    "CUDA_VISIBLE_DEVICES": "-1",
}
_LAST_WORDS = 300
_MEMORY = 0.8
_NO_MEMORY = re.compile(r"bad_alloc|MemoryError|Cannot allocate memory|out of memory|OOM")
_CHATTER = re.compile(r"[IW]\d{4} |INFO|WARNING")  # logged, not a reason to die


class WorkerDiedError(Exception):
    """The worker ended in the middle of a request; the message says how."""


class CannotConvertError(Exception):
    """The worker lives and says why a request can't be carried out."""


class Foreman:
    """Keeps one worker alive for as long as there is something to ask it.

    The worker starts at once, so that its imports run while the caller reads its data.
    """

    def __init__(
        self, model: Path, log: Path, command: Sequence[str] = WORKER, *, memory: int = 0
    ) -> None:
        self._memory = memory or most_memory()
        self._model = model
        self._log = log
        self._command = command
        self._child = self._start()
        self._opened: Opened | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._child.kill()
        self._child.wait()
        self._close_pipes()

    def open(self) -> Opened:
        """Open the model, in a new worker if the last one died.

        Raises:
            InvalidInputError: the worker can't load it, or dies of it.
        """
        if self._child.poll() is not None:  # it died, at work or idle
            self._close_pipes()
            self._child = self._start()
            self._opened = None
        if self._opened is not None:
            return self._opened
        try:
            reply = self._exchange(Open(str(self._model)))
        except WorkerDiedError as died:
            raise InvalidInputError(f"loading {self._model} ended the converter: {died}") from died
        if not isinstance(reply, Opened):
            reason = reply.reason if isinstance(reply, Failed) else "it was not opened"
            raise InvalidInputError(f"model {self._model} can't be read: {reason}")
        self._opened = reply
        return reply

    def ask(self, request: Request) -> Done:
        """Have one request carried out.

        Raises:
            WorkerDiedError: it ended in the middle of it.
            CannotConvertError: it says why it can't.
        """
        self.open()
        reply = self._exchange(request)
        if isinstance(reply, Failed):
            raise CannotConvertError(reply.reason)
        if not isinstance(reply, Done):
            raise TypeError(f"the worker answered {type(reply).__name__}")
        return reply

    def _exchange(self, request: Request) -> Reply:
        if self._child.stdin is None or self._child.stdout is None:
            raise RuntimeError("the worker was started without pipes")
        with contextlib.suppress(BrokenPipeError):
            self._child.stdin.write(msgspec.json.encode(request) + b"\n")
            self._child.stdin.flush()
        line = self._child.stdout.readline()
        if not line.endswith(b"\n"):
            how, said = _how(self._child.wait()), self._last_words()
            if _NO_MEMORY.search(said):
                how = f"was over its memory limit of {self._memory / 2**20:,.0f} MiB and {how}"
            raise WorkerDiedError(f"{how}{said}")
        reply: Reply = msgspec.json.decode(line, type=Reply)
        return reply

    def _start(self) -> subprocess.Popen[bytes]:
        with self._log.open("wb") as log:
            return subprocess.Popen(  # noqa: S603 - our own module
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
                env={**os.environ, **_SETTINGS, MEMORY: str(self._memory)},
            )  # fmt: skip

    def _close_pipes(self) -> None:
        for pipe in (self._child.stdin, self._child.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()

    def _last_words(self) -> str:
        lines = self._log.read_text(errors="replace").strip().splitlines()
        said = [line for line in lines if not _CHATTER.match(line)]
        return f" ({said[-1][-_LAST_WORDS:]})" if said else ""


def most_memory() -> int:
    """Bytes that a worker may take unless told otherwise: most of the machine's memory."""
    pages: int = os.sysconf("SC_PHYS_PAGES")
    return int(pages * os.sysconf("SC_PAGE_SIZE") * _MEMORY)


def _how(code: int) -> str:
    if code == -signal.SIGKILL:
        return "killed by SIGKILL (out of memory, or by hand)"
    if code < 0:
        return f"died of {signal.Signals(-code).name}"
    return f"ended with code {code}"
