"""What system tests share: small models, trained once, and one worker with TensorFlow in it."""

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from converters.protocol import Failed, Open, Reply

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A folder with every model of `tests.micro_models`."""
    made = tmp_path_factory.mktemp("models")
    command = [sys.executable, "-m", "tests.micro_models", str(made)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return made


class Worker:
    """A converter's child process that opens one model after the other: its start costs seconds."""

    def __init__(self, folder):
        self.folder = folder
        self._opened = None
        self._child = subprocess.Popen(
            [sys.executable, "-P", "-m", "converters.worker"], cwd=folder, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "0"},
        )  # fmt: skip

    def open(self, model):
        """The reply to a model that is to be opened."""
        self._opened = model
        return self._exchange(Open(str(model)))

    def ask(self, model, request):
        """The reply to a request about a model."""
        if self._opened != model:
            reply = self.open(model)
            assert not isinstance(reply, Failed), reply
        return self._exchange(request)

    def _exchange(self, request):
        self._child.stdin.write(msgspec.json.encode(request) + b"\n")
        self._child.stdin.flush()
        return msgspec.json.decode(self._child.stdout.readline(), type=Reply)

    def close(self):
        self._child.kill()
        self._child.wait()
        self._child.stdin.close()
        self._child.stdout.close()


@pytest.fixture(scope="session")
def worker(tmp_path_factory):
    """One for all tests; it finds modules in its `folder`."""
    found = Worker(tmp_path_factory.mktemp("worker"))
    yield found
    found.close()
