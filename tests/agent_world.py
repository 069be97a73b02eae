"""What agent tests need around an agent: a real tiny model in signed bundles, and a small fleet
server over real sockets that can be told to misbehave.
"""

import asyncio
import base64
import re
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self

import msgspec
import numpy as np

from device_agent.agent import Agent, Setup
from device_agent.config import (
    AgentConfig,
    DeviceConfig,
    InputConfig,
    LinkConfig,
    StateConfig,
    TelemetryConfig,
    TrialConfig,
)
from device_agent.selftest import in_this_process
from device_agent.sources import NpzReplay, Paced
from device_agent.uplink import Clock
from edge_sdk import messages
from edge_sdk.bundle import Golden
from edge_sdk.channels import Preprocessing
from edge_sdk.files import sha256
from edge_sdk.formats import to_json
from edge_sdk.identity import (
    EnrolAnswer,
    EnrolRequest,
    Secrets,
    Token,
    Trust,
    exchange_public,
    new_exchange_key,
    proven,
    shared_secrets,
)
from edge_sdk.interpreter import LiteRt
from edge_sdk.packing import unpacked
from edge_sdk.profiles import HardwareProfile
from edge_sdk.signed_time import sign_time
from edge_sdk.signing import SigningKey
from fleet_server.mqtt.endpoint import Endpoint
from fleet_server.trust.founding import create
from fleet_server.trust.roles import Target
from tests.bundles import baseline_of, make_bundle

MODEL = Path(__file__).with_name("data") / "tiny_int8.tflite"
LABELS = ("top-left", "top-right", "bottom-left", "bottom-right")
BOARD = HardwareProfile(
    name="test-board",
    title="A board for tests",
    cpu="any",
    architecture="any",
    runtime="litert",
    precisions=("int8",),
    ram_bytes=1_000_000,
    flash_bytes=1_000_000,
    latency_budget_ms=50.0,
)


class SystemClock:
    wall = staticmethod(time.time)  # noqa: TID251 - tests are an edge too
    monotonic = staticmethod(time.monotonic)


def eventually(truth: Callable[[], object], what: str, seconds: float = 20.0) -> None:
    """Poll until `truth()` holds."""
    deadline, nap = time.monotonic() + seconds, threading.Event()
    while not truth():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        nap.wait(0.01)


def rows(count: int = 64, seed: int = 3) -> np.ndarray:
    """Images (count, 8, 8, 1) in 0..16 with one bright quarter."""
    random = np.random.default_rng(seed)
    x = random.uniform(0, 8, (count, 8, 8, 1)).astype(np.float32)
    for image, label in zip(x, random.integers(0, 4, count), strict=True):
        top, left = 4 * (label // 2), 4 * (label % 2)
        image[top : top + 4, left : left + 4] += 6
    return x.clip(0, 16)


def tiny_bundle(
    key: SigningKey,
    *,
    version: str = "1",
    profile: str = BOARD.name,
    spoil: float = 0.0,
    model: bytes | None = None,
) -> bytes:
    """A bundle whose model really runs; `spoil` is added to its golden answers."""
    data = MODEL.read_bytes()
    x = rows()
    real = LiteRt(data, Preprocessing(scale=1 / 16)).run_rows(x[:4])
    golden = Golden(x[:4], {"xnnpack": real + np.float32(spoil)})
    return make_bundle(
        key,
        name="quarters",
        version=version,
        profile=profile,
        labels=LABELS,
        x=x,
        model=model or data,
        golden=golden,
    )


class Faults(msgspec.Struct):
    """How the HTTP side misbehaves."""

    cut_after: int = 0  # body bytes of an answer, then the connection is closed
    rate: int = 0  # bytes a second
    status: int = 0  # every bundle request is answered with this
    longer: bytes = b""  # sent after the bundle, without a Content-Length
    ignore_range: bool = False
    enrol_status: int = 0


class FleetServer:
    """Enrolment, bundles and MQTT for tests; keeps what it was sent and acknowledges it."""

    def __init__(self) -> None:
        self.publisher, self.director = SigningKey.generate(), SigningKey.generate()
        self._exchange = new_exchange_key()
        self._folder = tempfile.TemporaryDirectory()
        folder = Path(self._folder.name)
        self.repository = create(
            folder / "trust",
            folder / "keys",
            profiles=[BOARD.name],
            root_keys=1,
            threshold=1,
            now=SystemClock.wall(),
        )
        self.signs_at = SystemClock.wall  # the repository's clock
        # what is sent, a status alone, or None: the head of the answer and not a byte more
        self.relay: Callable[[str, bytes], bytes | int | None] = lambda _path, data: data
        trust = Trust(
            (self.publisher.public.hex,),
            self.director.public.hex,
            exchange_public(self._exchange),
            root=self.repository.root_digest,
        )
        self._trust = to_json(trust)
        self.token = Token.new(self._trust)
        self.faults = Faults()
        self.bundles: dict[str, bytes] = {}
        self.deltas: dict[str, bytes] = {}  # by the path after /device/v1/
        self.ranges: list[int] = []  # first byte of every bundle request
        self.secrets: dict[str, Secrets] = {}
        self.enrolled: list[EnrolRequest] = []
        self.desired: dict[str, bytes] = {}
        self.commands: dict[str, bytes] = {}
        self.stored: dict[tuple[str, str], dict[int, messages.Sealed]] = defaultdict(dict)
        self.inbox: list[tuple[str, messages.Body]] = []
        self.links: list[tuple[str, str, messages.Body]] = []  # births and last wills
        self.received_count = self.posts = 0
        self.refusing = False  # every device's messages over HTTP
        self.gone = False  # the HTTP side hangs up on everybody
        self.online: set[str] = set()  # on MQTT
        self.acknowledging = True
        self._generation = 0

    # --- life

    def __enter__(self) -> Self:
        outer = self

        class Handler(_Handler):
            fleet = outer

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self._threads = [threading.Thread(target=self._http.serve_forever, args=(0.02,))]
        self._loop = asyncio.new_event_loop()
        self._threads.append(threading.Thread(target=self._loop.run_forever))
        for thread in self._threads:
            thread.start()
        self.start_mqtt(0)
        return self

    def hang_up(self) -> None:
        """Nobody listens at the HTTP address any more."""
        self._http.shutdown()
        self._http.server_close()

    def __exit__(self, *_: object) -> None:
        self.hang_up()
        self.stop_mqtt()
        self._loop.call_soon_threadsafe(self._loop.stop)
        for thread in self._threads:
            thread.join()
        self._loop.close()
        self._folder.cleanup()

    def start_mqtt(self, port: int) -> None:
        self._mqtt = Endpoint(self, port=port)
        asyncio.run_coroutine_threadsafe(self._mqtt.start(), self._loop).result()
        self.mqtt_port = self._mqtt.port

    def stop_mqtt(self) -> None:
        asyncio.run_coroutine_threadsafe(self._mqtt.stop(), self._loop).result()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_port}"

    # --- orders

    def publish(self, bundle: bytes) -> str:
        self.bundles[sha256(bundle)] = bundle
        return sha256(bundle)

    def assignment(self, device: str, bundle: bytes, **changes: object) -> messages.Assignment:
        """The next order for this bundle (published before or not)."""
        self._generation += 1
        order = messages.Assignment(
            device=device,
            generation=self._generation,
            model="quarters",
            version="1",
            profile=BOARD.name,
            digest=sha256(bundle),
            length=len(bundle),
            rollout="r1",
            not_before=0.0,
        )
        order = msgspec.structs.replace(order, **changes)
        self.list_target(order, bundle)
        return order

    def list_target(self, order: messages.Assignment, bundle: bytes) -> None:
        """Let the repository vouch for what is ordered, if it is for a board that it knows."""
        if order.profile == BOARD.name:
            source = Path(self._folder.name) / f"{sha256(bundle)}.edge"
            source.write_bytes(bundle)
            target = Target(
                name=order.model,
                version=order.version,
                profile=order.profile,
                digest=order.digest,
                length=order.length,
            )
            self.repository.publish(target, source, self.signs_at())

    def trust_file(self, path: str, query: str) -> bytes | None:
        """What the trust routes of a server answer; None is 404."""
        if path == "time":
            nonce = query.removeprefix("nonce=")
            return sign_time(nonce, SystemClock.wall(), self.director)
        place = self.repository.folder.path / path.removeprefix("tuf/")
        return place.read_bytes() if place.is_file() else None

    def order(self, device: str, bundle: bytes, **changes: object) -> messages.Assignment:
        """Publish the bundle and order it."""
        self.publish(bundle)
        order = self.assignment(device, bundle, **changes)
        self.send(device, messages.sign_assignment(order, self.director))
        return order

    def send(self, device: str, payload: bytes) -> None:
        """Retain and send a `desired` message, whatever it is."""
        self.desired[device] = payload
        self._on_loop(device, "desired", payload)

    def command(self, device: str, payload: bytes) -> None:
        """Retain and send a `command` message, whatever it is."""
        self.commands[device] = payload
        self._on_loop(device, "command", payload)

    # --- what came

    def bodies(self, device: str, kind: type) -> list:
        found = [body for name, body in list(self.inbox) if name == device and type(body) is kind]
        if kind is messages.Window:
            return [unpacked(window, baseline_of(rows(), LABELS)) for window in found]
        return found

    def phases(self, device: str) -> list[tuple[int, str]]:
        return [(r.generation, r.phase) for r in self.bodies(device, messages.Report)]

    def last(self, device: str) -> messages.Report | None:
        reports = self.bodies(device, messages.Report)
        return reports[-1] if reports else None

    # --- the MQTT door

    def authenticate(self, username: str, password: bytes) -> str | None:
        known = self.secrets.get(username)
        return username if known and known.mqtt_password.encode() == password else None

    def connected(self, device: str) -> None:
        self.online.add(device)

    def disconnected(self, device: str) -> None:
        self.online.discard(device)

    def retained(self, device: str, kind: str) -> bytes | None:
        return {"desired": self.desired, "command": self.commands}.get(kind, {}).get(device)

    async def received(self, device: str, given: Sequence[tuple[str, bytes]]) -> None:
        for kind, payload in given:
            self.take(device, kind, payload)

    def take(self, device: str, kind: str, payload: bytes) -> bytes:
        """One message; the acknowledgement, empty if there is none."""
        key = self.secrets[device].mac
        sealed = messages.unseal_upward(payload, kind, device, key)
        if kind == "link":
            self.links.append((device, sealed.boot, messages.body(sealed, kind)))
            return b""
        self.received_count += 1
        stored = self.stored[device, sealed.boot]
        if sealed.seq not in stored:
            stored[sealed.seq] = sealed
            self.inbox.append((device, messages.body(sealed, kind)))
        contiguous = 0
        while contiguous + 1 in stored:
            contiguous += 1
        if not (contiguous and self.acknowledging):
            return b""
        ack = messages.seal_ack(sealed.boot, contiguous, device, key)
        self._on_loop(device, "ack", ack)
        return ack

    def _on_loop(self, device: str, kind: str, payload: bytes) -> None:
        self._loop.call_soon_threadsafe(self._mqtt.publish, device, kind, payload)

    # --- the HTTP side

    def enrol(self, request: EnrolRequest) -> tuple[int, bytes]:
        if request.token_id != self.token.id or not proven(request, self.token.key):
            return 401, b'{"detail": "the token is unknown or used up"}'
        private = self._exchange
        self.secrets[request.device] = shared_secrets(private, request.public, request.device)
        self.enrolled.append(request)
        trust = base64.b64encode(self._trust).decode()
        answer = EnrolAnswer(device=request.device, trust=trust, mqtt_port=self.mqtt_port)
        return 200, msgspec.json.encode(answer)

    def posted(self, headers, kind: str, payload: bytes) -> tuple[int, bytes]:
        """A message of a device that can't reach MQTT; the answer is its acknowledgement."""
        if self.refusing or not self.may_fetch(headers.get("Authorization", "")):
            return 401, b""
        device = headers["Authorization"].removeprefix("Bearer ").partition(":")[0]
        self.posts += 1
        ack = self.take(device, kind, payload)
        return (200, ack) if ack else (204, b"")

    def may_fetch(self, authorization: str) -> bool:
        device, _, token = authorization.removeprefix("Bearer ").partition(":")
        return device in self.secrets and self.secrets[device].http_token == token


class _Handler(BaseHTTPRequestHandler):
    fleet: FleetServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None: ...

    def handle_one_request(self) -> None:
        if self.fleet.gone:
            self.close_connection = True
            return
        super().handle_one_request()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if "/device/v1/messages/" in self.path:
            self._answer(*self.fleet.posted(self.headers, self.path.rsplit("/", 1)[-1], body))
            return
        if status := self.fleet.faults.enrol_status:
            self._answer(status, b"{}")
            return
        self._answer(*self.fleet.enrol(msgspec.json.decode(body, type=EnrolRequest)))

    def do_GET(self) -> None:
        path, _, query = self.path.removeprefix("/device/v1/").partition("?")
        if path == "time" or path.startswith("tuf/"):
            found = self.fleet.trust_file(path, query)
            answer = self.fleet.relay(path, b"" if found is None else found)
            with suppress(OSError):  # the agent waits no longer
                if answer is None:
                    self._answer(200, found or b"?", cut=True)
                elif isinstance(answer, int):
                    self._answer(answer, b"")
                else:
                    self._answer(404 if found is None and not answer else 200, answer)
            return
        faults, digest = self.fleet.faults, self.path.rsplit("/", 1)[-1]
        found = re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(found[1]) if found and not faults.ignore_range else 0
        if path in ("desired", "command"):
            self._retained(path)
            return
        if path.startswith("deltas/"):
            made = self.fleet.deltas.get(path)
            self._answer(404 if made is None else 200, made or b"")
            return
        self.fleet.ranges.append(int(found[1]) if found else 0)
        data = self.fleet.bundles.get(digest)
        if faults.status:
            self._answer(faults.status, b"")
        elif not self.fleet.may_fetch(self.headers.get("Authorization", "")):
            self._answer(401, b"")
        elif data is None:
            self._answer(404, b"")
        else:
            self._send(data, start, digest)

    def _retained(self, kind: str) -> None:
        device = self.headers["Authorization"].removeprefix("Bearer ").partition(":")[0]
        found = self.fleet.retained(device, kind) or b""
        self._answer(200 if found else 204, found)

    def _send(self, data: bytes, start: int, digest: str) -> None:
        faults = self.fleet.faults
        self.send_response(206 if start else 200)
        self.send_header("ETag", f'"{digest}"')
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        if faults.longer:
            self.send_header("Connection", "close")
        else:
            self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        self.close_connection = True
        body = data[start:] + faults.longer
        if faults.cut_after:
            body = body[: faults.cut_after]
        step = max(1, faults.rate // 50) if faults.rate else len(body)
        nap = threading.Event()
        try:
            for at in range(0, len(body), step):
                self.wfile.write(body[at : at + step])
                if faults.rate:
                    nap.wait(1 / 50)
        except OSError:
            pass  # the agent was killed or hung up

    def _answer(self, status: int, body: bytes, *, cut: bool = False) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(b"" if cut else body)
        self.close_connection |= cut


def config(folder: Path, server: str, **changes: object) -> AgentConfig:
    """An agent at 200 rows a second with windows of 0.1 s."""
    parts = {
        "device": DeviceConfig(id="dev-1", profile=BOARD.name, labels={"site": "north"}),
        "link": LinkConfig(server=server),
        "input": InputConfig(source=f"npz:{folder / 'x.npz'}", rows_per_second=200),
        "telemetry": TelemetryConfig(window_seconds=0.1),
        "trial": TrialConfig(windows=2),
        "state": StateConfig(dir=folder / "state"),
    }
    return AgentConfig(**{**parts, **changes})


def setup(
    given: AgentConfig,
    token: Token,
    source_rows: np.ndarray | None = None,
    clock: Clock | None = None,
) -> Setup:
    """As `edge agent run` has it, but without the child that tries a new model first."""
    replay = NpzReplay(rows() if source_rows is None else source_rows, 0)
    clock = clock or SystemClock()
    return Setup(
        trial=in_this_process,
        config=given,
        profile=BOARD,
        source=Paced(replay, given.input.rows_per_second, clock.monotonic),
        clock=clock,
        token=lambda: token,
    )


@contextmanager
def running(
    given: AgentConfig,
    token: Token,
    source_rows: np.ndarray | None = None,
    clock: Clock | None = None,
):
    """A real agent on its own thread, as configured."""
    with at_work(setup(given, token, source_rows, clock)) as agent:
        yield agent


@contextmanager
def at_work(prepared: Setup):
    """An agent on its own thread, stopped at the end; what ended it early is raised there."""
    stop, errors = threading.Event(), []
    agent = Agent(prepared)

    def work() -> None:
        try:
            agent.run(stop)
        except BaseException as error:  # noqa: BLE001 - raised again below
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield agent
    finally:
        stop.set()
        thread.join(20)
    assert not thread.is_alive()
    if errors:
        raise errors[0]
