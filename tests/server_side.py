"""What tests of the server share: a clock, devices that sign like real ones, a server process."""

import functools
import os
import shutil
import socket
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import msgspec
import uvicorn
from argon2 import PasswordHasher

from edge_sdk.bundle import unpack
from edge_sdk.formats import to_msgpack
from edge_sdk.identity import (
    EnrolAnswer,
    EnrolRequest,
    Token,
    accept_trust,
    exchange_public,
    new_exchange_key,
    prove,
    shared_secrets,
)
from edge_sdk.messages import KIND_OF, Report, Running, Sealed, Window, seal
from edge_sdk.signing import SigningKey
from edge_sdk.sketch import sketch
from fleet_server.asgi import make_app
from fleet_server.changes import Changes
from fleet_server.client import Client
from fleet_server.controller import Controller
from fleet_server.credentials import Credentials
from fleet_server.data_dir import ca_file, read_admin_token, read_running
from fleet_server.decay import DAY
from fleet_server.fleet import device_rows, overview
from fleet_server.guard import Guard
from fleet_server.keyring import open_keyring
from fleet_server.metrics import Meters
from fleet_server.parts import Parts
from fleet_server.records import DeviceRecord
from fleet_server.registry import Registry
from fleet_server.store import Store
from fleet_server.store.listing import EVERY_ALERT
from fleet_server.trust.founding import create
from fleet_server.trust.keeper import open_repository
from fleet_server.trust.repository import Repository
from tests.bundles import DIGITS, make_bundle, pictures, scores
from tests.forked import Forked

NOW = 1_800_000_000.0
PROFILE = "raspberry-pi-4"
QUICK = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


class Clock:
    """A clock that stands until it is told to move."""

    def __init__(self, now=NOW):
        self.now = now

    def __call__(self):
        return self.now


class Device:
    """A device as the server sees it: a key, and messages numbered and authenticated with it."""

    def __init__(self, name, exchange_key, *, boot="boot-1"):
        self.name = name
        self.private = new_exchange_key()
        self.boot, self.seq = boot, 0
        self.learn(exchange_key)

    def learn(self, exchange_key):
        """Derive the secrets shared with the server that has this public key (hex)."""
        self.secrets = shared_secrets(self.private, exchange_key, self.name)

    @property
    def public(self):
        return exchange_public(self.private)

    def restarted(self, boot):
        self.boot, self.seq = boot, 0

    def message(self, body, *, seq=None, key=None, **changes):
        """(kind, payload) of a body, with the next number if none is given."""
        if seq is None:
            self.seq += 1
            seq = self.seq
        kind = KIND_OF[type(body)]
        sealed = Sealed(
            device=self.name,
            boot=self.boot,
            seq=seq,
            wall=NOW,
            uptime=float(seq),
            body=to_msgpack(body),
        )
        sealed = msgspec.structs.replace(sealed, **changes)
        return kind, seal(sealed, kind, key or self.secrets.mac)

    def enrolment(self, token: Token, **changes):
        request = EnrolRequest(
            token_id=token.id,
            device=self.name,
            public=self.public,
            profile=PROFILE,
            labels={"site": "north"},
        )
        return prove(msgspec.structs.replace(request, **changes), token.key)


def join(http, token_text, name):
    """Enrol as an agent does; the device, whom it trusts, and the MQTT port."""
    token = Token.parse(token_text)
    device = Device(name, exchange_public(new_exchange_key()))
    answer = http.post("/device/v1/enrol", content=msgspec.json.encode(device.enrolment(token)))
    assert answer.status_code == 200, answer.text
    given = msgspec.json.decode(answer.content, type=EnrolAnswer)
    trust = accept_trust(given, token)
    device.learn(trust.exchange)
    return device, trust, given.mqtt_port


@functools.cache
def _first_server():
    """A publisher, and a folder as a server's first start leaves it: making one costs 0.2 s."""
    kept = tempfile.TemporaryDirectory(prefix="edge-founded-")
    publisher, folder = SigningKey.generate(), Path(kept.name)
    create(folder / "trust", folder / "keys", profiles=[PROFILE], root_keys=1, threshold=1, now=NOW)
    _keyring(folder, publisher)
    return publisher, kept


def _keyring(folder, publisher):
    repository = Repository(folder / "trust", folder / "keys")
    return open_keyring(
        folder / "keys",
        [publisher.public],
        folder / "none.pub",
        lambda: open_repository(repository, "", NOW),
    )


def founded(folder):
    """A publisher's key, and the keyring and TUF repository of a new server that trusts it."""
    publisher, first = _first_server()
    shutil.copytree(first.name, folder, dirs_exist_ok=True)
    return publisher, _keyring(folder, publisher), Repository(folder / "trust", folder / "keys")


@functools.cache
def _first_bundle(publisher):
    return make_bundle(publisher)


def every_alert(store):
    """Those that are open, newest first, then those that are over."""
    return [*store.open_alerts(), *store.past_alerts(EVERY_ALERT, None, 1000)]


class Backend:
    """A data folder with keys, a store and a published bundle, without any network."""

    def __init__(self, folder: Path, database, bucket=None):
        self.publisher, self.keyring, self.repository = founded(folder)
        self.store = Store(database)
        self.registry = Registry(
            self.store, folder / "bundles", [self.publisher.public], self.repository, bucket
        )
        bundle = _first_bundle(self.publisher)
        self.bundle = unpack(bundle, [self.publisher.public])
        self.registry.publish(bundle, NOW)

    def device(self, name="pi-1", site="north", **more):
        """An enrolled device."""
        device = Device(name, self.keyring.trust.exchange)
        self.store.add_device(
            DeviceRecord(
                id=name,
                public=device.public,
                profile=PROFILE,
                enrolled_at=NOW,
                **{"labels": {"site": site}, **more},
            )
        )
        return device

    def window(self, **changes):
        return window_of(self.bundle, **changes)

    def report(self, generation=1, phase="confirmed", **changes):
        manifest = self.bundle.manifest
        running = Running(manifest.name, manifest.version, self.bundle.digest)
        return msgspec.structs.replace(
            Report(generation=generation, phase=phase, running=running), **changes
        )

    def application(self, now=None, oidc=None, *, mails=False, drift_past=DAY):
        """The HTTP side over this, and its parts; no MQTT."""
        clock = now or Clock()
        self.commands = []
        controller = Controller(
            self.store, self.keyring.director, lambda _device, _order: None, drift_past=drift_past
        )

        async def posted(_device, _kind, _payload):
            return b""

        parts = Parts(
            store=self.store,
            keyring=self.keyring,
            credentials=Credentials(self.store, self.keyring.exchange),
            registry=self.registry,
            controls=controller,
            look=lambda: overview(
                self.store, describe=controller.describe, online=(), drifting={}, now=clock()
            ),
            rows=lambda devices: device_rows(
                self.store, devices, online=(), drifting={}, now=clock()
            ),
            describe=controller.describe,
            command=lambda device, envelope: self.commands.append((device, envelope)),
            mqtt_port=lambda: 1883,
            mails=mails,
            dismiss=lambda _device: None,
            changed=lambda: None,
            meters=Meters(),
            guard=Guard(self.store, self.keyring.admin_token, clock, QUICK),
            oidc=oidc,
            posted=posted,
            now=clock,
        )
        changes = Changes()
        changes.close()  # a stream tells what there is, and ends
        return make_app(parts, changes), parts


@contextmanager
def backend(folder: Path, database, bucket=None):
    made = Backend(folder, database, bucket)
    try:
        yield made
    finally:
        made.store.close()


def window_of(bundle, *, rows=10, seed=3, **changes):
    """A window as a device makes it: real rows binned on the bundle's own edges."""
    x = pictures(rows, seed)
    columns = {
        "output.confidence": scores(x, DIGITS).max(axis=1).astype(float),
        "input.brightness": x.mean(axis=(1, 2)).astype(float) / 16,
    }
    baseline = bundle.baseline
    window = Window(
        model=bundle.manifest.name,
        version=bundle.manifest.version,
        digest=bundle.digest,
        edges_id=baseline.edges_id,
        seconds=5.0,
        rows=rows,
        channels={n: sketch(baseline.channels[n], values) for n, values in columns.items()},
    )
    return msgspec.structs.replace(window, **changes)


class ServerProcess:
    """A real `edge server run` on free ports."""

    def __init__(self, data_dir: Path, *arguments: str, database: Path | str = ""):
        self.data_dir = data_dir
        data_dir.parent.mkdir(parents=True, exist_ok=True)
        log, name = tempfile.mkstemp(".log", f"{data_dir.name}-", data_dir.parent)
        os.close(log)
        self._log = Path(name)
        url = database if isinstance(database, str) else ""
        self.process = Forked(
            ["server", "run", "--port", "0", "--data-dir", str(data_dir), *arguments],
            os.environ | {"EDGE_DATABASE": url},
            self._log,
        )
        until(lambda: self._up() or self.process.poll() is not None, 90)
        self.where = read_running(data_dir)
        assert self.where is not None, self.output

    @property
    def output(self):
        """All that it said so far."""
        return self._log.read_text()

    def _up(self):
        where = read_running(self.data_dir)
        return where is not None and where.pid == self.process.pid

    def client(self):
        ca = ca_file(self.data_dir) if self.where.tls else None
        return Client(self.where.url, read_admin_token(self.data_dir), ca)

    def stop(self):
        """SIGTERM and wait; the exit code."""
        self.process.terminate()
        return self.process.wait(20)

    def kill(self):
        """SIGKILL: as a power cut, but for what the kernel holds."""
        self.process.kill()
        return self.process.wait(20)


@contextmanager
def server_process(data_dir: Path, *arguments: str, database: Path | str = ""):
    server = ServerProcess(data_dir, *arguments, database=database)
    try:
        yield server
    finally:
        server.kill()


@contextmanager
def trusting_server(folder: Path, key: SigningKey, new_database):
    """A server in `folder` that trusts this publisher, on a database of the kind in turn."""
    key.save(folder / "signing.key")
    trusted = ("--publisher", str(folder / "signing.pub"))
    with (
        new_database(folder) as database,
        server_process(folder / "data", *trusted, database=database) as running,
    ):
        yield running


@contextmanager
def serving(app):
    """The address of an application that is served in this process."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
        thread = threading.Thread(target=lambda: server.run([listening]))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(20)


def until(true, seconds=30.0):
    """Wait until `true()`; fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"not true within {seconds} s"
        threading.Event().wait(0.02)
