"""The door of the MQTT endpoint: messages of devices into the database, many in one commit.

`received` returns when its message is on the disk. What can't be believed is set aside with its
reason; an acknowledgement covers it nevertheless if the device itself made it, since sending it
again would not help. What one commit does is in `batch.py`.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress

import msgspec

from edge_sdk.errors import EdgeError, UntrustedError
from edge_sdk.messages import body, seal_ack, unseal_upward
from edge_sdk.topics import UPWARD, Upward
from fleet_server.batch import Arrived, Key, Seen, commit
from fleet_server.credentials import Credentials
from fleet_server.mqtt.door import Peer
from fleet_server.plausible import why_not_numbered
from fleet_server.records import BundleRecord
from fleet_server.revocation import report_twins
from fleet_server.store import Store
from fleet_server.twins import Lookout

log = logging.getLogger("fleet_server.ingest")

BATCH = 500
QUEUE = 20_000


class _Waiting(msgspec.Struct, frozen=True):
    item: Arrived | Seen
    stored: asyncio.Future[None] | None


class Ingest:
    """Implements `mqtt.door.Door`; `run` must be running for messages to be stored.

    Args:
        acknowledge: sends a device an acknowledgement, if it is connected.
        changed: called on the loop after each commit.
        now: the server's clock, Unix seconds.
    """

    def __init__(
        self,
        store: Store,
        credentials: Credentials,
        *,
        acknowledge: Callable[[str, bytes], object],
        changed: Callable[[], None],
        now: Callable[[], float],
    ) -> None:
        self._store = store
        self._credentials = credentials
        self._acknowledge = acknowledge
        self._changed = changed
        self._now = now
        self._bundles: dict[str, BundleRecord] = {}
        self._lookout = Lookout()
        self.online: set[str] = set()
        self._queue: asyncio.Queue[_Waiting | None] = asyncio.Queue(QUEUE)  # None ends it

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

    async def received(self, device: str, kind: str, payload: bytes) -> None:
        item = self._open(device, _upward(kind), payload)
        stored = asyncio.get_running_loop().create_future()
        await self._queue.put(_Waiting(item, stored))
        await stored

    async def posted(self, device: str, kind: str, payload: bytes) -> bytes:
        """As `received`, for a device without MQTT; the acknowledgement, empty if there is none."""
        await self.received(device, kind, payload)
        return await asyncio.to_thread(self._acknowledgement, device, _upward(kind), payload)

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
        while (first := await self._queue.get()) is not None:
            batch = [first]
            while len(batch) < BATCH and not self._queue.empty():
                another = self._queue.get_nowait()
                if another is None:
                    self._queue.put_nowait(None)
                    break
                batch.append(another)
            await self._store_batch(batch)

    async def close(self) -> None:
        """Let `run` commit what is still waiting, and end; nothing may arrive any more."""
        await self._queue.put(None)

    async def _store_batch(self, batch: Sequence[_Waiting]) -> None:
        try:
            reached = await asyncio.to_thread(
                commit, self._store, [waiting.item for waiting in batch], self._bundle
            )
        except EdgeError as error:
            log.error("%d messages could not be stored: %s", len(batch), error)
            _settle(batch, error)
            return
        except Exception as error:
            # Whatever went wrong, it may be one device's message: the others must not pay for it.
            if len(batch) > 1:
                for waiting in batch:
                    await self._store_batch([waiting])
                return
            log.exception("a message could not be stored")
            _settle(batch, error)
            return
        _settle(batch, None)
        self._confirm(reached)
        for twins in self._lookout.take():
            await asyncio.to_thread(report_twins, self._store, twins, self._now())
        self._changed()

    def _confirm(self, reached: dict[Key, int]) -> None:
        for (device, boot), seq in reached.items():
            secrets = self._credentials.of(device)
            if seq and secrets:
                self._acknowledge(device, seal_ack(boot, seq, device, secrets.mac))

    def _open(self, device: str, kind: Upward, payload: bytes) -> Arrived:
        at, sealed, content, reason = self._now(), None, None, ""
        secrets = self._credentials.of(device)
        try:
            if secrets is None:
                raise UntrustedError("no such device is enrolled")
            found = unseal_upward(payload, kind, device, secrets.mac)
            reason = why_not_numbered(found) or ""
            if not reason:
                sealed = found  # from here on the device itself is to blame, so it is acknowledged
                self._lookout.hears(device, found.boot, found.seq, at)
                content = body(found, kind)
        except EdgeError as error:
            reason = str(error)
        return Arrived(
            at=at,
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
        with suppress(asyncio.QueueFull):  # then so many are waiting that this one adds nothing
            self._queue.put_nowait(_Waiting(Seen(self._now(), device), None))


def _settle(batch: Sequence[_Waiting], error: Exception | None) -> None:
    for waiting in batch:
        if waiting.stored is None or waiting.stored.done():
            continue
        if error is None:
            waiting.stored.set_result(None)
        else:
            waiting.stored.set_exception(error)


def _upward(kind: str) -> Upward:
    return next(known for known in UPWARD if known == kind)
