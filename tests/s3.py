"""A store that speaks S3, for tests: moto's server in a process of its own, all in memory.

It takes any signature; that a wrong key is refused is a matter between obstore and the real store.
"""

import os
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import httpx2
from obstore.store import S3Store

from tests.mosquitto import free_port

SECRET = "only-the-environment-knows"
BUCKET = "fleet"


class S3:
    """One server with one bucket."""

    def __init__(self, folder: Path):
        self.url = f"http://127.0.0.1:{free_port()}"
        self._log = folder / "s3.log"
        with self._log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "moto.server", "-p", self.url.rpartition(":")[2]],
                stdout=log, stderr=log,
                env=os.environ | {"MOTO_ACCOUNT_ID": "123456789012", "PYTHONPATH": ""},
            )  # fmt: skip
        deadline = time.monotonic() + 60
        while not self._answers():
            assert self.process.poll() is None, self._log.read_text()
            assert time.monotonic() < deadline, "moto does not answer"
            threading.Event().wait(0.05)
        self.environment = {
            "AWS_ACCESS_KEY_ID": "fleet-server",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": self.url,
        }
        httpx2.put(f"{self.url}/{BUCKET}").raise_for_status()
        self._client = S3Store(
            BUCKET,
            endpoint=self.url,
            region="us-east-1",
            access_key_id="a-tester",
            secret_access_key="of no account",
            client_options={"allow_http": True},
        )

    def get(self, name):
        """An object's bytes, as another program reads them."""
        return self._client.get(name).bytes().to_bytes()

    def put(self, name, data):
        """Make an object, or replace it."""
        self._client.put(name, data)

    def kill(self):
        self.process.kill()
        self.process.wait(20)

    def _answers(self):
        try:
            return httpx2.get(f"{self.url}/moto-api/").status_code < 500
        except httpx2.TransportError:
            return False


@contextmanager
def s3(folder: Path):
    made = S3(folder)
    try:
        yield made
    finally:
        made.kill()
