"""Processes that run `edge`, forked from one that has imported the server.

Its imports cost 2 s of a core, every start; what comes after them is as in a process of its own.
"""

import multiprocessing
import os
import signal
import sys

import fleet_server.cli.server  # noqa: F401 - what takes the time
from edge_sdk.cli import main

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload([__name__])


class Forked:
    """`edge` with arguments and an environment, its output at the end of a file; as a Popen."""

    def __init__(self, arguments, environment, output):
        given = (arguments, environment, str(output))
        self._process = _CONTEXT.Process(target=_run, args=given, daemon=True)
        self._process.start()
        self.pid = self._process.pid

    def poll(self):
        return self._process.exitcode

    def wait(self, seconds):
        self._process.join(seconds)
        assert self.poll() is not None, f"it goes on after {seconds} s"
        return self.poll()

    def send_signal(self, number):
        os.kill(self.pid, number)

    def terminate(self):
        self.send_signal(signal.SIGTERM)

    def kill(self):
        if self.poll() is None:
            self.send_signal(signal.SIGKILL)


def _run(arguments, environment, output):
    os.environ.clear()
    os.environ.update(environment)
    told = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(told, 1)
    os.dup2(told, 2)
    sys.stdout.reconfigure(line_buffering=True)
    main(arguments)
