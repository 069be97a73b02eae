"""Where answers go, said in one line each.

    stdout  file:answers.jsonl  http://host/path  mqtt://host/topic  homeassistant://host

`?every=1` sends at most one a second, the newest. Each has a thread and a short queue of its own:
one that is slow or away loses its oldest answers, counted, and keeps nobody waiting.
"""

import json
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol
from urllib.parse import parse_qsl, urlsplit
from urllib.request import Request, urlopen

import msgspec
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from device_agent.home_assistant import HomeAssistant
from device_agent.inference import Answered
from edge_sdk.errors import InvalidInputError
from edge_sdk.messages import Running

ROOM = 1024  # answers that may wait
TIMEOUT = 10.0  # seconds
KINDS = ("stdout", "file", "http", "https", "mqtt", "homeassistant")


class Result(msgspec.Struct, frozen=True):
    """One answer, for people and programs on this device.

    Attributes:
        time: Unix seconds by the device's clock.
        label, value: the best class and its probability; or "" and the number that a model gives.
        name: what the source calls the row, if it does.
    """

    time: float
    model: str
    version: str
    label: str
    value: float
    latency_ms: float
    name: str = ""


class State(msgspec.Struct, frozen=True):
    """What runs, what is ordered, and whether it is on its way."""

    running: Running | None = None
    wanted: str = ""
    under_way: bool = False


class Sink(Protocol):
    """One place; `send` and `tell` raise OSError if it is away."""

    def send(self, results: Sequence[Result]) -> None: ...
    def tell(self, state: State) -> None: ...
    def close(self) -> None: ...


class Outlet:
    """A sink with its thread and its queue."""

    def __init__(self, line: str, sink: Sink, every: float, wall: Callable[[], float]) -> None:
        self.line, self._sink, self._every, self._wall = line, sink, every, wall
        self._waiting: deque[tuple[float, Answered]] = deque()
        self._state: State | None = None
        self._rows = self.dropped = 0
        self.trouble = ""
        self._there = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name=f"sink-{line}", daemon=True)
        self._thread.start()

    def put(self, answered: Answered) -> None:
        """Answers to hand on."""
        with self._there:
            self._waiting.append((self._wall(), answered))
            self._rows += len(answered.rows)
            while self._rows > ROOM and len(self._waiting) > 1:
                _, oldest = self._waiting.popleft()
                self._rows -= len(oldest.rows)
                self.dropped += len(oldest.rows)
            self._there.notify()

    def tell(self, state: State) -> None:
        """How the device stands; only the newest matters."""
        with self._there:
            self._state = state
            self._there.notify()

    def close(self) -> None:
        """Hand on what waits, if that is quick."""
        with self._there:
            self._closed = True
            self._there.notify()
        self._thread.join(2.0)

    def _run(self) -> None:
        pause = threading.Event()
        while True:
            with self._there:
                self._there.wait_for(lambda: self._waiting or self._state or self._closed)
                batch, state = list(self._waiting), self._state
                self._waiting.clear()
                self._rows, self._state = 0, None
                closed = self._closed
            try:
                if state:
                    self._sink.tell(state)
                results = [result for at, answered in batch for result in _results(at, answered)]
                if results:
                    self._sink.send(results[-1:] if self._every else results)
                self.trouble = ""
            except OSError as error:
                self.trouble = f"{self.line}: {error}"
                self.dropped += sum(len(answered.rows) for _, answered in batch)
            if closed:
                self._sink.close()
                return
            if self._every or self.trouble:
                pause.wait(max(self._every, 1.0 if self.trouble else 0.0))


class Outlets:
    """All of a device's."""

    def __init__(self, lines: Sequence[str], device: str, wall: Callable[[], float]) -> None:
        self._all = [_open(line, device, wall) for line in lines]

    def __bool__(self) -> bool:
        return bool(self._all)

    def put(self, answered: Answered) -> None:
        """To each."""
        for outlet in self._all:
            outlet.put(answered)

    def tell(self, state: State) -> None:
        """To each."""
        for outlet in self._all:
            outlet.tell(state)

    @property
    def trouble(self) -> str:
        """What is wrong with the first that has something."""
        return next((outlet.trouble for outlet in self._all if outlet.trouble), "")

    @property
    def dropped(self) -> int:
        """Answers that did not get where they should."""
        return sum(outlet.dropped for outlet in self._all)

    def close(self) -> None:
        """Each."""
        for outlet in self._all:
            outlet.close()


def check(line: str) -> None:
    """Raises InvalidInputError for a line that names no sink."""
    kind = line.partition(":")[0].partition("?")[0]
    if kind not in KINDS:
        raise InvalidInputError(f"output {line!r} must begin with one of {', '.join(KINDS)}")
    where, options = _parts(line)
    unknown = options.keys() - {"every"}
    if unknown:
        raise InvalidInputError(f"output {line!r}: unknown option {', '.join(sorted(unknown))}")
    try:
        float(options.get("every", "0"))
    except ValueError as error:
        raise InvalidInputError(f"output {line!r}: every is in seconds") from error
    if kind in ("mqtt", "homeassistant", "http", "https") and not urlsplit(where).hostname:
        raise InvalidInputError(f"output {line!r} names no host")


def rooted(line: str, folder: Path) -> str:
    """The line again, with a relative path starting at `folder`."""
    kind, _, rest = line.partition(":")
    return f"file:{folder / Path(rest).expanduser()}" if kind == "file" else line


def _parts(line: str) -> tuple[str, dict[str, str]]:
    where, _, query = line.partition("?")
    return where, dict(parse_qsl(query, keep_blank_values=True))


def _open(line: str, device: str, wall: Callable[[], float]) -> Outlet:
    check(line)
    where, options = _parts(line)
    every = float(options.get("every", "0"))
    kind, _, rest = where.partition(":")
    sink: Sink
    match kind:
        case "stdout":
            sink = _Lines(None)
        case "file":
            sink = _Lines(Path(rest))
        case "mqtt":
            sink = _Mqtt(where)
        case "homeassistant":
            sink, every = _Assistant(where, device), every or 1.0
        case _:
            sink = _Http(where)
    return Outlet(where, sink, every, wall)


def _results(at: float, answered: Answered) -> list[Result]:
    answers, running = answered.answers, answered.model.running
    labels = answered.model.manifest.labels if answered.of_classes else ()
    names = [*answered.names, *[""] * (len(answers) - len(answered.names))]
    found = []
    for row, took, name in zip(answers, answered.latency_ms, names, strict=True):
        best = int(row.argmax())
        label = labels[best] if best < len(labels) else ""
        value = round(float(row[best if label else 0]), 6)
        found.append(
            Result(at, running.model, running.version, label, value, round(float(took), 4), name)
        )
    return found


class _Lines:
    """A JSON object a line, on stdout or at the end of a file."""

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def send(self, results: Sequence[Result]) -> None:
        text = b"".join(msgspec.json.encode(result) + b"\n" for result in results)
        if self._path is None:
            sys.stdout.write(text.decode())
            sys.stdout.flush()
            return
        with self._path.open("ab") as opened:
            opened.write(text)

    def tell(self, state: State) -> None:
        """It is about answers only."""

    def close(self) -> None:
        """Nothing is open."""


class _Http:
    """A JSON array posted for each batch."""

    def __init__(self, url: str) -> None:
        self._url = url

    def send(self, results: Sequence[Result]) -> None:
        headers = {"Content-Type": "application/json"}
        request = Request(self._url, msgspec.json.encode(results), headers)  # noqa: S310 - checked
        with urlopen(request, timeout=TIMEOUT) as answer:  # noqa: S310 - http or https, see `check`
            answer.read(1024)

    def tell(self, state: State) -> None:
        """It is about answers only."""

    def close(self) -> None:
        """Nothing is open."""


def connected(url: str, client: Client) -> None:
    """Begin to connect to the broker of `mqtt://[user:password@]host[:port]`, for good."""
    parts = urlsplit(url)
    if parts.username:
        client.username_pw_set(parts.username, parts.password)
    client.connect_async(parts.hostname or "", parts.port or 1883, 30)
    client.loop_start()


class _Mqtt:
    """Each answer as JSON to one topic, QoS 0."""

    def __init__(self, url: str) -> None:
        self._topic = urlsplit(url).path.lstrip("/") or "edge/answers"
        self._client = Client(CallbackAPIVersion.VERSION2)
        connected(url, self._client)

    def send(self, results: Sequence[Result]) -> None:
        if not self._client.is_connected():
            raise OSError("the broker is not connected")
        for result in results:
            self._client.publish(self._topic, msgspec.json.encode(result))

    def tell(self, state: State) -> None:
        """It is about answers only."""

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


class _Assistant:
    """Home Assistant's MQTT discovery; what is published is decided in `home_assistant`."""

    def __init__(self, url: str, device: str) -> None:
        self._says = HomeAssistant(device)
        self._told: dict[str, object] = {}
        client = Client(CallbackAPIVersion.VERSION2)
        client.will_set(self._says.availability, "offline", 1, retain=True)
        client.on_connect = lambda *_: self._announce()
        client.on_message = lambda _c, _d, message: (
            self._announce() if message.payload == b"online" else None
        )
        self._client = client
        connected(url, client)

    def _announce(self) -> None:
        """At every connection, and when Home Assistant itself starts anew."""
        self._client.subscribe(self._says.birth, 1)
        for topic, config in self._says.discovery().items():
            self._client.publish(topic, json.dumps(config), 1, retain=True)
        self._client.publish(self._says.availability, "online", 1, retain=True)
        for topic, state in self._told.items():
            self._client.publish(topic, json.dumps(state), 1, retain=True)

    def send(self, results: Sequence[Result]) -> None:
        last = results[-1]
        self._publish(
            self._says.answer_topic, {"label": last.label or last.value, "value": last.value}
        )

    def tell(self, state: State) -> None:
        version = state.running.version if state.running else None
        found = self._says.update_state(version, state.wanted, under_way=state.under_way)
        self._publish(self._says.update_topic, found)

    def _publish(self, topic: str, state: object) -> None:
        self._told[topic] = state
        if self._client.is_connected():
            self._client.publish(topic, json.dumps(state), 1, retain=True)

    def close(self) -> None:
        if self._client.is_connected():
            told = self._client.publish(self._says.availability, "offline", 1, retain=True)
            told.wait_for_publish(1.0)
        self._client.disconnect()
        self._client.loop_stop()
