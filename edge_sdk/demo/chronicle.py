"""Writes down, second by second, what the fleet looks like, for the pictures of the report."""

import threading
import time
from collections.abc import Callable, Sequence

import msgspec

from edge_sdk.errors import EdgeError
from fleet_server.client import Client
from fleet_server.views import Overview


class Mark(msgspec.Struct, frozen=True):
    """When a step of the story began, in seconds since the fleet was up."""

    at: float
    label: str


class Chronicle:
    """Polls the server once a second in a thread of its own; `tell` gets every look."""

    def __init__(self, client: Client, tell: Callable[[Overview], None]) -> None:
        self._client = client
        self._tell = tell
        self._begun = time.monotonic()
        self._stop = threading.Event()
        self.looks: list[tuple[float, Overview]] = []
        self.marks: list[Mark] = []
        self._thread = threading.Thread(target=self._follow, name="chronicle", daemon=True)
        self._thread.start()

    def mark(self, label: str) -> None:
        """A step begins."""
        self.marks.append(Mark(time.monotonic() - self._begun, label))

    def close(self) -> None:
        """Stop looking."""
        self._stop.set()
        self._thread.join(10)

    def ran(self, version: str) -> set[str]:
        """The devices that were ever seen to run a version, as they reported it."""
        return {
            device.id
            for _, overview in list(self.looks)
            for device in overview.devices
            if device.running == version
        }

    def running(self) -> dict[str, list[tuple[float, float]]]:
        """Devices by running version over time."""
        versions = sorted({d.running for _, o in self.looks for d in o.devices if d.running})
        return {
            f"v{version}": [
                (at, float(sum(d.running == version for d in o.devices))) for at, o in self.looks
            ]
            for version in versions
        }

    def confidence(self, groups: dict[str, Sequence[str]]) -> dict[str, list[tuple[float, float]]]:
        """Mean confidence of named groups of devices over time."""
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in groups}
        for at, overview in self.looks:
            known = {d.id: d.confidence for d in overview.devices if d.confidence is not None}
            for name, members in groups.items():
                values = [known[m] for m in members if m in known]
                if values:
                    found[name].append((at, sum(values) / len(values)))
        return found

    def _follow(self) -> None:
        while not self._stop.wait(1.0):
            try:
                overview = self._client.overview()
            except EdgeError:
                continue  # the story's own look says what is wrong with the server
            self.looks.append((time.monotonic() - self._begun, overview))
            self._tell(overview)
