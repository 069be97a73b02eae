"""A real Mosquitto for tests and benchmarks: a process on a free port, with the settings given."""

import shutil
import socket
import subprocess
import threading
import time
from contextlib import contextmanager
from pathlib import Path

OPEN = """\
listener {port} 127.0.0.1
allow_anonymous true
max_inflight_messages 0
max_queued_messages 0
persistence false
"""


def program():
    return shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")


def missing():
    """Why there is no Mosquitto here; empty if there is."""
    return "" if program() else "Mosquitto is not installed: apt-get install mosquitto"


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


class Mosquitto:
    """A broker; `config` may name {port}."""

    def __init__(self, folder: Path, config=OPEN, port=0):
        self.folder, self.port = folder, port or free_port()
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "mosquitto-test.conf"
        self.path.write_text(config.format(port=self.port))
        self.start()

    def start(self):
        with (self.folder / "mosquitto.log").open("a") as log:
            self.process = subprocess.Popen(
                [program(), "-c", str(self.path)], stdout=log, stderr=log, cwd=self.folder
            )
        deadline = time.monotonic() + 30
        while not self._answers():
            assert self.process.poll() is None, (self.folder / "mosquitto.log").read_text()
            assert time.monotonic() < deadline, "Mosquitto does not answer"
            threading.Event().wait(0.02)

    def kill(self):
        self.process.kill()
        self.process.wait(20)

    def _answers(self):
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True


@contextmanager
def mosquitto(folder: Path, config=OPEN, port=0):
    made = Mosquitto(folder, config, port)
    try:
        yield made
    finally:
        made.kill()
