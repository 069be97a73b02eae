"""One device's socket: bytes to the session, the session's actions to the socket and the door.

Reads no further while too much waits for the door or while the device does not take its answers;
so what is held per connection is bounded.
"""

import asyncio
import logging
from functools import partial
from typing import Protocol

import msgspec

from edge_sdk.errors import EdgeError
from edge_sdk.messages import MAX_MESSAGE
from edge_sdk.topics import Downward
from fleet_server.mqtt.actions import Action, Close, Opened, Send, Store
from fleet_server.mqtt.admission import Offer
from fleet_server.mqtt.decoding import Decoder
from fleet_server.mqtt.door import Door, Peer, Vet
from fleet_server.mqtt.encoding import encode
from fleet_server.mqtt.reasons import MqttError
from fleet_server.mqtt.session import Session

log = logging.getLogger("fleet_server.mqtt")

MEGABYTE = 1024 * 1024


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What is held for devices, so that none can take the server's memory.

    Attributes:
        connections: at once; one more is closed as it comes.
        connect_seconds: a connection has this long to authenticate itself.
        receive_maximum: unstored messages of one device; far above the server's batch, or the
            batch can never fill.
        unstored_bytes: of one device's unstored messages, and `all_unstored_bytes` of everyone's.
        unsent_bytes: that a device may leave unread before it is cut off.
        stalled_seconds: that it may leave any unread above a quarter of that.
        max_packet: bytes of the longest packet taken.
    """

    connections: int = 10_000
    connect_seconds: float = 10.0
    receive_maximum: int = 5_000
    unstored_bytes: int = 8 * MEGABYTE
    all_unstored_bytes: int = 256 * MEGABYTE
    unsent_bytes: int = 4 * MEGABYTE
    stalled_seconds: float = 20.0
    max_packet: int = MAX_MESSAGE + 4096

    @property
    def offer(self) -> Offer:
        return Offer(receive_maximum=self.receive_maximum, max_packet=self.max_packet)


class Room(Protocol):
    """What a connection asks of the endpoint that holds it."""

    door: Door
    vet: Vet
    limits: Limits

    def reserve(self, size: int) -> None: ...
    def release(self, size: int) -> None: ...
    def full(self, waiter: "Connection") -> bool:
        """Whether all devices' unstored bytes are at the limit; if so, `waiter` is resumed."""

    def joined(self, connection: "Connection") -> bool:
        """A new connection; False if there are too many."""

    def opened(self, connection: "Connection", device: str) -> None: ...
    def left(self, connection: "Connection") -> None: ...
    def working(self, task: asyncio.Future[None]) -> None: ...


class Connection(asyncio.Protocol):
    """The asyncio side of one session."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._loop = asyncio.get_running_loop()
        self._decoder = Decoder(room.limits.max_packet)
        self.device = ""
        self._unstored = 0
        self._unstored_bytes = 0
        self._reading = True
        self._stalled_since: float | None = None
        self._out: list[bytes] = []
        self._arrived: list[Store] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if not isinstance(transport, asyncio.Transport):
            raise TypeError(f"MQTT needs a stream, not {transport!r}")
        self._transport = transport
        self._session = Session(
            self._room.door,
            self._room.limits.offer,
            deadline=self._loop.time() + self._room.limits.connect_seconds,
            vet=self._room.vet,
            peer=Peer(self._address(), _certificate(transport)),
        )
        transport.set_write_buffer_limits(high=self._room.limits.unsent_bytes // 4)
        if not self._room.joined(self):
            log.warning("refused %s: too many connections", self._peer())
            transport.abort()

    def connection_lost(self, _exc: Exception | None) -> None:
        self._do(self._session.gone())
        self._hand_over()
        self._room.left(self)

    def data_received(self, data: bytes) -> None:
        self._decoder.feed(data)
        self._pump()

    def pause_writing(self) -> None:
        self._stalled_since = self._loop.time()

    def resume_writing(self) -> None:
        self._stalled_since = None
        self.resume()

    def resume(self) -> None:
        """There may be room again."""
        if not self._reading:
            self._pump()

    def publish(self, kind: Downward, payload: bytes) -> bool:
        actions = self._session.publish(kind, payload)
        self._do(actions or [])
        return actions is not None

    def displace(self) -> None:
        self._do(self._session.displaced())

    def shut_down(self) -> None:
        self._do(self._session.shut_down())

    def revoke(self) -> None:
        self._do(self._session.revoked())

    def abort(self) -> None:
        self._transport.abort()

    def tick(self) -> None:
        """Called about once a second."""
        now = self._loop.time()
        if not self._reading:
            self._session.unheard(now)
        self._do(self._session.tick(now))
        stalled = self._stalled_since
        if stalled is not None and now - stalled > self._room.limits.stalled_seconds:
            log.warning("cut off %s: it does not read", self._peer())
            self._transport.abort()

    def _pump(self) -> None:
        self._take_packets()
        self._hand_over()

    def _take_packets(self) -> None:
        """As long as there is room for what they bring."""
        while not self._crowded():
            try:
                packet = self._decoder.next_packet()
            except MqttError as error:
                self._do(self._session.failed(error, self._decoder.version))
                return
            if packet is None:
                self._reading = True
                self._transport.resume_reading()
                return
            self._do(self._session.received(packet, self._loop.time()))
            if self._transport.is_closing():
                return
        self._reading = False
        self._transport.pause_reading()

    def _crowded(self) -> bool:
        limits = self._room.limits
        return (
            self._stalled_since is not None
            or self._unstored >= limits.receive_maximum
            or self._unstored_bytes >= limits.unstored_bytes
            or (bool(self.device) and self._room.full(self))
        )

    def _do(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Store():
                    self._arrived.append(action)
                    self._count(len(action.payload))
                case Send():
                    self._send(encode(action.packet, self._decoder.version))
                case Opened(device):
                    self.device = device
                    self._room.opened(self, device)
                case Close(why):
                    self._close(why)

    def _count(self, size: int) -> None:
        self._unstored += 1
        self._unstored_bytes += size
        self._room.reserve(size)

    def _hand_over(self) -> None:
        """Give the door what the last packets brought, as one."""
        if not self._arrived:
            return
        arrived, self._arrived = self._arrived, []
        size = sum(len(one.payload) for one in arrived)
        messages = [(one.kind, one.payload) for one in arrived]
        stored = self._room.door.received(self.device, messages)
        task = asyncio.ensure_future(stored, loop=self._loop)
        task.add_done_callback(partial(self._stored, [one.packet_id for one in arrived], size))
        self._room.working(task)

    def _stored(self, packet_ids: list[int], size: int, task: asyncio.Future[None]) -> None:
        self._unstored -= len(packet_ids)
        self._unstored_bytes -= size
        self._room.release(size)
        if task.cancelled():
            return
        error = task.exception()
        if error is None:
            self._do(self._session.stored(packet_ids))
        else:
            if not isinstance(error, EdgeError):  # those the door told
                log.error("messages of %s could not be stored", self.device, exc_info=error)
            self._do(self._session.broken("a message could not be stored"))
        self.resume()

    def _send(self, data: bytes) -> None:
        """Gather what one turn of the loop sends into one write: a batch of PUBACKs is one."""
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(data)

    def _flush(self) -> None:
        data = b"".join(self._out)
        self._out.clear()
        if self._transport.is_closing():
            return
        self._transport.write(data)
        if self._transport.get_write_buffer_size() > self._room.limits.unsent_bytes:
            log.warning("cut off %s: it does not read", self._peer())
            self._transport.abort()

    def _close(self, why: str) -> None:
        if why:
            log.info("closed %s: %s", self._peer(), why)
        self._flush()
        self._transport.close()
        self._stalled_since = self._loop.time()  # nor may it stay by not reading its last packet

    def _peer(self) -> str:
        return f"{self.device or 'a stranger'} at {self._address()}"

    def _address(self) -> str:
        address = self._transport.get_extra_info("peername") or ("?", 0)
        return f"{address[0]}:{address[1]}"


def _certificate(transport: asyncio.Transport) -> bytes:
    """What the client's handshake proved, if there was one (with TLS it is over by now)."""
    shown = transport.get_extra_info("certificate")  # of a WebSocket
    if shown is not None:
        return bytes(shown)
    tls = transport.get_extra_info("ssl_object")
    return (tls.getpeercert(binary_form=True) or b"") if tls else b""
