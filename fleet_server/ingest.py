"""The door of the MQTT endpoint: messages of devices into the database, many in one commit.

`received` returns when its message is on the disk. What can't be believed is set aside with its
reason; an acknowledgement covers it nevertheless if the device itself made it, since sending it
again would not help. What one commit does is in `batch.py`.
"""

import asyncio
import gc
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from edge_sdk.errors import EdgeError, UntrustedError
from edge_sdk.identity import Secrets
from edge_sdk.messages import body, seal_ack, unseal_upward
from edge_sdk.topics import UPWARD, Upward
from fleet_server.batch import Arrived, Key, Seen, commit
from fleet_server.credentials import Credentials
from fleet_server.decay.accuracy import Fitted
from fleet_server.logs import Outage
from fleet_server.metrics import Meters
from fleet_server.mqtt.door import Message, Peer
from fleet_server.plausible import why_not_numbered
from fleet_server.records import BundleRecord
from fleet_server.revocation import report_twins
from fleet_server.store import Store
from fleet_server.twins import Lookout

log = logging.getLogger("fleet_server.ingest")

_KINDS: dict[str, Upward] = {kind: kind for kind in UPWARD}
BATCH = 2000  # far above what a commit costs by itself
QUEUE = 20_000


class _Delivery(msgspec.Struct, frozen=True):
    """What one device sent at once, or with no messages that it was seen."""

    at: float
    device: str
    messages: Sequence[Message]
    stored: asyncio.Future[None] | None = None


class Ingest:
    """Implements `mqtt.door.Door`; `run` must be running for messages to be stored.

    Args:
        acknowledge: sends a device an acknowledgement, if it is connected.
        changed: called on the loop after each commit.
        now: the server's clock, Unix seconds.
        meters: count for Prometheus.
    """

    def __init__(
        self,
        store: Store,
        credentials: Credentials,
        *,
        acknowledge: Callable[[str, bytes], object],
        changed: Callable[[], None],
        now: Callable[[], float],
        meters: Meters | None = None,
    ) -> None:
        self._meters = meters or Meters()
        self._store = store
        self._credentials = credentials
        self._acknowledge = acknowledge
        self._changed = changed
        self._now = now
        self._bundles: dict[str, BundleRecord] = {}
        self._fitted = Fitted()
        self._lookout = Lookout()
        self.online: set[str] = set()
        self._queue: deque[_Delivery] = deque()
        self._waiting = 0  # messages in the queue
        self._filled = asyncio.Event()
        self._room = asyncio.Condition()
        self._closed = False
        self._outage = Outage(log, "messages are stored")

    def authenticate(self, username: str, password: bytes) -> str | None:
        return username if self._credentials.password_holds(username, password) else None

    def vet(self, device: str, peer: Peer) -> str:
        """Why a device, whose password holds, may not connect from there (`mqtt.door.Vet`)."""
        if peer.certificate and not self._credentials.certificate_holds(device, peer.certificate):
            return "the certificate is not this device's present one"
        self._lookout.connects(device, peer.address)
        return ""

    def forget(self, device: str) -> None:
        """The device was revoked or has another key."""
        self._lookout.forget(device)

    def connected(self, device: str) -> None:
        self.online.add(device)
        self._saw(device)

    def disconnected(self, device: str) -> None:
        self.online.discard(device)
        self._saw(device)

    def retained(self, device: str, kind: str) -> bytes | None:
        if kind == "command":
            return self._store.command(device)
        order = self._store.assignment(device) if kind == "desired" else None
        return order.envelope if order else None

    def received(self, device: str, messages: Sequence[Message]) -> Awaitable[None]:
        """Done when they are on the disk; a task for each would cost as much as storing it."""
        stored: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        delivery = _Delivery(self._now(), device, messages, stored)
        if self._waiting >= QUEUE:
            return self._received_later(delivery, stored)
        self._enqueue(delivery)
        return stored

    async def _received_later(self, delivery: _Delivery, stored: asyncio.Future[None]) -> None:
        async with self._room:
            await self._room.wait_for(lambda: self._waiting < QUEUE)
        self._enqueue(delivery)
        await stored

    def _enqueue(self, delivery: _Delivery) -> None:
        self._queue.append(delivery)
        self._waiting += len(delivery.messages)
        self._filled.set()

    def _next_batch(self) -> list[_Delivery]:
        batch: list[_Delivery] = []
        taken = 0
        while self._queue and taken < BATCH:
            batch.append(self._queue.popleft())
            taken += max(1, len(batch[-1].messages))
        self._waiting -= sum(len(delivery.messages) for delivery in batch)
        return batch

    async def posted(self, device: str, kind: str, payload: bytes) -> bytes:
        """As `received`, for a device without MQTT; the acknowledgement, empty if there is none."""
        await self.received(device, [(kind, payload)])
        return await asyncio.to_thread(self._acknowledgement, device, _KINDS[kind], payload)

    def _acknowledgement(self, device: str, kind: Upward, payload: bytes) -> bytes:
        secrets = self._credentials.of(device)
        if secrets is None:
            return b""
        try:
            key = device, unseal_upward(payload, kind, device, secrets.mac).boot
        except EdgeError:
            return b""  # nobody can be told: it is set aside with its reason
        _, stream = self._store.streams([key])[key]
        reached = stream.contiguous
        return seal_ack(key[1], reached, device, secrets.mac) if reached else b""

    async def run(self) -> None:
        """Commit what arrives, batch by batch, until `close`.

        While one batch is written the next one gathers, so a batch is as long as the disk is slow.
        """
        while not (self._closed and not self._queue):
            await self._filled.wait()
            batch = self._next_batch()
            if not self._queue and not self._closed:
                self._filled.clear()
            async with self._room:
                self._room.notify_all()
            if batch:
                await self._store_batch(batch)

    async def close(self) -> None:
        """Let `run` commit what is still waiting, and end; nothing may arrive any more."""
        self._closed = True
        self._filled.set()

    async def _store_batch(self, batch: Sequence[_Delivery]) -> None:
        try:
            with self._meters.commit_seconds.time():
                items, reached = await asyncio.to_thread(self._commit, batch)
        except EdgeError as error:
            count = sum(len(delivery.messages) for delivery in batch)
            self._meters.failed.inc(count)
            self._outage.failed(error, self._now(), count)
            _settle(batch, error)
            return
        except Exception as error:
            # Whatever went wrong, it may be one device's message: the others must not pay for it.
            if len(batch) > 1:
                for delivery in batch:
                    await self._store_batch([delivery])
                return
            if len(batch[0].messages) > 1:
                await self._store_apart(batch[0])
                return
            log.exception("a message could not be stored")
            _settle(batch, error)
            return
        self._outage.over(self._now())
        self._meters.stored.inc(sum(len(delivery.messages) for delivery in batch))
        self._meters.waiting.set(self._waiting)
        self._meters.online.set(len(self.online))
        _settle(batch, None)
        for item in items:
            if isinstance(item, Arrived) and item.sealed and item.sealed.seq:
                self._lookout.hears(item.device, item.sealed.boot, item.sealed.seq, item.at)
        self._confirm(reached)
        for twins in self._lookout.take():
            await asyncio.to_thread(report_twins, self._store, twins, self._now())
        self._changed()

    async def _store_apart(self, delivery: _Delivery) -> None:
        """One by one, so that what is sound in it is stored; it counts as failed if one is not."""
        loop = asyncio.get_running_loop()
        errors: list[BaseException] = []
        for message in delivery.messages:
            stored: asyncio.Future[None] = loop.create_future()
            await self._store_batch([_Delivery(delivery.at, delivery.device, (message,), stored)])
            if (error := stored.exception()) is not None:
                errors.append(error)
        _settle([delivery], errors[0] if errors else None)

    def _commit(self, batch: Sequence[_Delivery]) -> tuple[list[Arrived | Seen], dict[Key, int]]:
        items: list[Arrived | Seen] = []
        for delivery in batch:
            items += self._open(delivery) or [Seen(delivery.at, delivery.device)]
        return items, commit(self._store, items, self._bundle, self._fitted)

    def _confirm(self, reached: dict[Key, int]) -> None:
        for (device, boot), seq in reached.items():
            secrets = self._credentials.of(device)
            if seq and secrets:
                self._acknowledge(device, seal_ack(boot, seq, device, secrets.mac))

    def _open(self, delivery: _Delivery) -> list[Arrived]:
        secrets = self._credentials.of(delivery.device)
        return [
            self._opened(delivery, secrets, _KINDS[kind], payload)
            for kind, payload in delivery.messages
        ]

    def _opened(
        self, delivery: _Delivery, secrets: Secrets | None, kind: Upward, payload: bytes
    ) -> Arrived:
        device, sealed, content, reason = delivery.device, None, None, ""
        try:
            if secrets is None:
                raise UntrustedError("no such device is enrolled")
            found = unseal_upward(payload, kind, device, secrets.mac)
            reason = why_not_numbered(found) or ""
            if not reason:
                sealed = found  # from here on the device itself is to blame, so it is acknowledged
                content = body(found, kind)
        except EdgeError as error:
            reason = str(error)
        return Arrived(
            at=delivery.at,
            device=device,
            kind=kind,
            payload=payload,
            sealed=sealed,
            body=content,
            reason=reason,
        )

    def _bundle(self, digest: str) -> BundleRecord | None:
        found = self._bundles.get(digest) or self._store.bundle(digest)
        if found is not None:
            self._bundles[digest] = found
        return found

    def _saw(self, device: str) -> None:
        if len(self._queue) < QUEUE:  # else so many are waiting that this one adds nothing
            self._enqueue(_Delivery(self._now(), device, ()))


def collect_seldom() -> None:
    """For a process that ingests.

    A batch makes some ten thousand objects, in no cycles: looking for some takes half of its time.
    """
    gc.freeze()
    gc.set_threshold(100_000, 50, 50)


def _settle(batch: Sequence[_Delivery], error: BaseException | None) -> None:
    for delivery in batch:
        if delivery.stored is None or delivery.stored.done():
            continue
        if error is None:
            delivery.stored.set_result(None)
        else:
            delivery.stored.set_exception(error)
