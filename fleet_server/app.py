"""One process: web and API, the MQTT endpoint, the ingest writer and the controller's tick.

Everything runs on one event loop; database work and the tick run in threads beside it. Stopping
goes outside in: no more requests, no more messages, the last commits, the database.
"""

import asyncio
import errno
import fcntl
import logging
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec
import uvicorn
from fastapi import FastAPI

from edge_sdk.errors import EdgeError
from edge_sdk.signing import PublicKey
from edge_sdk.tracing import tracer
from fleet_server.asgi import make_app
from fleet_server.broker import BrokerLink, Uplink, parse_broker
from fleet_server.bucket import Bucket
from fleet_server.changes import Changes
from fleet_server.controller import Controller
from fleet_server.credentials import Credentials
from fleet_server.data_dir import DATABASE, KEYS, TRUST, Running, announce, retract
from fleet_server.decay import DAY
from fleet_server.fleet import device_rows, overview
from fleet_server.founding import take_first_link
from fleet_server.guard import Guard
from fleet_server.ingest import Ingest, collect_seldom
from fleet_server.keyring import Keyring, open_keyring, pinned_root
from fleet_server.logs import Outage
from fleet_server.mail import Mailer, Relay
from fleet_server.metrics import Meters
from fleet_server.mqtt.endpoint import Endpoint
from fleet_server.oidc import Oidc, OidcSettings
from fleet_server.parts import Parts
from fleet_server.proven import ProvenH11, ProvenWebSocket
from fleet_server.registry import Registry
from fleet_server.store import Store
from fleet_server.tls import Tls, refuse_plain_to_others, server_names
from fleet_server.traces import Traces
from fleet_server.trust.keeper import Keeper, open_repository
from fleet_server.trust.repository import Repository
from fleet_server.views import Overview
from fleet_server.webhooks import Messenger

log = logging.getLogger("fleet_server")

TICK_SECONDS = 1.0
QUIET_TICKS = 5
KEEP_SECONDS = 60.0
TEND_SECONDS = 2.0
PRUNE_SECONDS = 600.0
GRACE_SECONDS = 3
BACKLOG = 1024
MAX_FRAME = 1024 * 1024


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What `edge server run` was told.

    Attributes:
        port, mqtt_port: 0 takes a free one.
        tls: HTTPS and MQTTS; without it only this machine may connect, unless `plain` allows it.
        names: host names and addresses that devices use, for the certificate.
        oidc: where people may log in beside their passwords.
        database: `postgresql://…`; empty for SQLite in the data folder.
        bundles: `s3://…`, where they lie; empty for the data folder.
        broker: `mqtts://…`, where devices and server meet; empty for the server's own endpoint.
        publishers: whose bundles are taken; empty for those of the last start.
        default_publisher: the key to trust at a first start without `publishers`.
        keep_windows, keep_hours, keep_events: seconds that windows, their sums by hour, and the
            history stay; sums by day stay for ever.
        drift_past: seconds that a device's own past lasts, by which its drift is measured.
        relay: the SMTP server that e-mail goes by.
    """

    data_dir: Path
    host: str
    port: int
    mqtt_port: int
    publishers: Sequence[PublicKey]
    default_publisher: Path
    tls: bool = False
    plain: bool = False
    names: Sequence[str] = ()
    oidc: OidcSettings | None = None
    database: str = ""
    drift_past: float = DAY
    bundles: str = ""
    broker: str = ""
    relay: Relay | None = None
    keep_windows: float = 30 * DAY
    keep_hours: float = 90 * DAY
    keep_events: float = 365 * DAY


class Server:
    """The fleet server; `serve` returns after `stop`.

    Args:
        settings: what was asked for.
        now: the clock, Unix seconds.
        ready: told once everything listens, with the path of a link that opens the pages once.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        now: Callable[[], float],
        ready: Callable[[Running, Keyring, str], None],
    ) -> None:
        self._settings = settings
        self._now = now
        self._ready = ready
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """End `serve`; call it on the event loop, from a signal handler for one."""
        self._stopping.set()

    async def serve(self) -> None:
        """Run until `stop`.

        Raises:
            EdgeError: the data folder is in use or too new, a port is taken, nobody is trusted.
        """
        collect_seldom()
        data = self._settings.data_dir
        if not (self._settings.tls or self._settings.plain):
            refuse_plain_to_others(self._settings.host)
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _only_one(data):
            retract(data)  # what a killed server left
            repository = Repository(data / TRUST, data / KEYS)
            keyring = open_keyring(
                data / KEYS,
                self._settings.publishers,
                self._settings.default_publisher,
                lambda: open_repository(repository, pinned_root(data / KEYS), self._now()),
            )
            with Store(self._settings.database or data / DATABASE) as store:
                if keyring.renewed:
                    store.void_enrolment_keys()
                await self._serve(store, keyring, repository)

    async def _serve(self, store: Store, keyring: Keyring, repository: Repository) -> None:
        loop = asyncio.get_running_loop()
        settings, changes = self._settings, Changes()
        tls = self._tls(keyring)
        credentials = Credentials(store, keyring.exchange)
        meters = Meters()
        meters.watch(store)
        ingest = Ingest(
            store,
            credentials,
            meters=meters,
            acknowledge=lambda device, payload: endpoint.publish(device, "ack", payload),
            changed=changes.notify,
            now=self._now,
        )
        endpoint = self._uplink(ingest, tls)

        def dismiss(device: str) -> None:
            credentials.forget(device)
            ingest.forget(device)
            endpoint.cut(device)

        def order(device: str, envelope: bytes) -> None:  # the tick calls this in its thread
            loop.call_soon_threadsafe(endpoint.publish, device, "desired", envelope)

        def command(device: str, envelope: bytes) -> None:  # from any thread
            loop.call_soon_threadsafe(endpoint.publish, device, "command", envelope)

        holder = f"{socket.gethostname()}:{settings.data_dir.resolve()}"
        controller = Controller(store, keyring.director, order, settings.drift_past, holder)
        parts = Parts(
            store=store,
            keyring=keyring,
            credentials=credentials,
            command=command,
            registry=Registry(
                store,
                settings.data_dir / "bundles",
                keyring.trust.publisher_keys,
                repository,
                Bucket(settings.bundles) if settings.bundles else None,
            ),
            controls=controller,
            look=lambda: self._look(store, ingest, controller),
            rows=lambda devices: device_rows(
                store,
                devices,
                online=ingest.online,
                drifting=controller.drifting(),
                now=self._now(),
            ),
            describe=controller.describe,
            mqtt_port=lambda: endpoint.port,
            mqtt=endpoint.connection if isinstance(endpoint, Endpoint) else None,
            mutual=tls is not None,
            mails=settings.relay is not None,
            dismiss=dismiss,
            posted=ingest.posted,
            meters=meters,
            guard=Guard(
                store,
                keyring.admin_token,
                self._now,
                first_link=lambda given: take_first_link(
                    settings.data_dir / KEYS, given, self._now()
                ),
            ),
            oidc=Oidc(settings.oidc, self._now) if settings.oidc else None,
            changed=changes.notify,
            now=self._now,
        )
        with _listen(settings.host, settings.port) as listening:
            await endpoint.start()
            web = _Web(_config(make_app(parts, changes), tls))
            ingesting = asyncio.create_task(ingest.run())
            serving = asyncio.create_task(web.serve([listening]))
            ticking = asyncio.create_task(self._tick_forever(controller, changes, tls))
            keeping = asyncio.create_task(self._keep_forever(Keeper(repository, store), changes))
            tending = asyncio.create_task(self._tend_forever(store))
            with self._announced(listening, endpoint, parts):
                await self._until_stopped([ingesting, serving, ticking, keeping, tending])
            changes.close()
            web.should_exit = True
            await asyncio.wait([serving, ticking, keeping, tending])
            await endpoint.stop()
            await ingest.close()
            await asyncio.gather(ingesting, serving, ticking, keeping, tending)

    def _look(self, store: Store, ingest: Ingest, controller: Controller) -> Overview:
        return overview(
            store,
            describe=controller.describe,
            online=set(ingest.online),
            drifting=controller.drifting(),
            now=self._now(),
        )

    def _uplink(self, ingest: Ingest, tls: Tls | None) -> Uplink:
        settings = self._settings
        if settings.broker:
            keys = settings.data_dir / KEYS
            return BrokerLink(ingest, parse_broker(settings.broker), keys, worker="edge-server")
        return Endpoint(
            ingest,
            host=settings.host,
            port=settings.mqtt_port,
            vet=ingest.vet,
            tls=tls.mqtt if tls else None,
        )

    def _tls(self, keyring: Keyring) -> Tls | None:
        settings = self._settings
        if not settings.tls:
            return None
        names = server_names(settings.host, settings.names)
        return Tls(settings.data_dir / KEYS, keyring.ca, names, self._now())

    async def _tick_forever(
        self, controller: Controller, changes: Changes, tls: Tls | None
    ) -> None:
        quiet, outage = 0, Outage(log, "the controller looks at the fleet")
        while not self._stopping.is_set():
            try:
                if tls is not None:
                    await asyncio.to_thread(tls.tend, self._now())
                changed = await asyncio.to_thread(controller.tick, self._now())
                outage.over(self._now())
            except EdgeError as error:  # in words: a database that is gone is no bug of ours
                outage.failed(error, self._now())
                changed = False
            except Exception:
                log.exception("the controller failed at this tick; it tries again at the next")
                changed = False
            quiet = 0 if changed else quiet + 1
            if quiet % QUIET_TICKS == 0:  # time alone changes things too: a device gets late
                changes.notify()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), TICK_SECONDS)

    async def _keep_forever(self, keeper: Keeper, changes: Changes) -> None:
        """Keep the signed metadata fresh."""
        outage = Outage(log, "the trust repository is kept")
        while not self._stopping.is_set():
            try:
                if await asyncio.to_thread(keeper.look, self._now()):
                    changes.notify()
                outage.over(self._now())
            except EdgeError as error:
                outage.failed(error, self._now())
            except Exception:
                log.exception("the keeper of the trust repository failed; it tries again")
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), KEEP_SECONDS)

    async def _tend_forever(self, store: Store) -> None:
        """Tell webhooks and traces what happened; forget what is too old."""
        settings, due = self._settings, 0.0
        outage = Outage(log, "webhooks are told and what is old is forgotten")
        mailer = Mailer(settings.relay) if settings.relay else None
        messenger = Messenger(store, mailer=mailer)
        telling = tracer("edge-server")
        traces = Traces(store, telling) if telling else None
        try:
            while not self._stopping.is_set():
                try:
                    now = self._now()
                    await asyncio.to_thread(messenger.look, now)
                    if traces is not None:
                        await asyncio.to_thread(traces.look)
                    if now >= due:
                        gone = await asyncio.to_thread(
                            store.prune,
                            windows=now - settings.keep_windows,
                            hours=now - settings.keep_hours,
                            events=now - settings.keep_events,
                        )
                        due = now if gone else now + PRUNE_SECONDS
                    outage.over(now)
                except EdgeError as error:
                    outage.failed(error, self._now())
                except Exception:
                    log.exception("webhooks and retention failed; they try again")
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), TEND_SECONDS)
        finally:
            messenger.close()
            if traces is not None:
                await asyncio.to_thread(traces.close)

    async def _until_stopped(self, tasks: Sequence[asyncio.Task[None]]) -> None:
        """Also returns when one of `tasks` ends by itself, which is a bug of it."""
        stopping = asyncio.create_task(self._stopping.wait())
        await asyncio.wait([stopping, *tasks], return_when=asyncio.FIRST_COMPLETED)
        self._stopping.set()
        await stopping

    @contextmanager
    def _announced(
        self, listening: socket.socket, endpoint: Uplink, parts: Parts
    ) -> Iterator[None]:
        where = Running(
            host=self._settings.host,
            port=listening.getsockname()[1],
            mqtt_port=endpoint.port,
            pid=os.getpid(),
            tls=self._settings.tls,
        )
        announce(self._settings.data_dir, where)
        try:
            self._ready(where, parts.keyring, parts.guard.new_link())
            yield
        finally:
            retract(self._settings.data_dir)


class _Web(uvicorn.Server):
    """uvicorn without its signal handlers: the whole server stops as one, in its order."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _config(app: FastAPI, tls: Tls | None) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=ProvenH11,
        ws=ProvenWebSocket,
        ws_max_size=MAX_FRAME,
        ws_per_message_deflate=False,
        ws_ping_interval=None,  # MQTT has its own
        ssl_context_factory=(lambda _config, _default: tls.web) if tls else None,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )


@contextmanager
def _only_one(data_dir: Path) -> Iterator[None]:
    """Hold the data folder; the lock goes with the process, however that ends."""
    with (data_dir / "server.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise EdgeError(
                f"another server runs on {data_dir}: stop it, or give another --data-dir"
            ) from error
        yield


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise EdgeError(
                f"port {port} on {host} is in use: stop the program that holds it, "
                "or choose another with --port"
            ) from error
        raise EdgeError(
            f"can't listen on port {port} of {host} ({error.strerror or error}): "
            "choose another with --host and --port"
        ) from error
