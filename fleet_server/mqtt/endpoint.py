"""The listening socket and the table of devices that are connected."""

import asyncio
import errno
import ssl
from collections.abc import Iterable

from edge_sdk.errors import EdgeError
from edge_sdk.topics import Downward
from fleet_server.mqtt.connection import Connection, Limits
from fleet_server.mqtt.door import Door, Vet, anyone

SWEEP_SECONDS = 1.0
STOP_SECONDS = 5.0


class Endpoint:
    """MQTT for the devices of one server.

    Start, publish and stop on one event loop; `door` is called on it.
    """

    def __init__(
        self,
        door: Door,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        limits: Limits | None = None,
        vet: Vet = anyone,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.door = door
        self.vet = vet
        self._tls = tls
        self.limits = limits or Limits()
        self._host = host
        self._port = port
        self._server: asyncio.Server | None = None
        self._sweeper: asyncio.TimerHandle | None = None
        self._connections: set[Connection] = set()
        self._devices: dict[str, Connection] = {}
        self._tasks: set[asyncio.Future[None]] = set()
        self._unstored_bytes = 0
        self._waiting: dict[Connection, None] = {}  # for room, the longest first

    async def start(self) -> None:
        """Listen; raises EdgeError if that can't be."""
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(
                self.connection,
                self._host,
                self._port,
                backlog=1024,
                ssl=self._tls,
                ssl_handshake_timeout=self.limits.connect_seconds if self._tls else None,
            )
        except OSError as error:
            where = f"port {self._port} on {self._host}"
            if error.errno == errno.EADDRINUSE:
                raise EdgeError(
                    f"MQTT can't listen on {where}, which is in use: "
                    "stop the program that holds it, or choose another port"
                ) from error
            raise EdgeError(
                f"MQTT can't listen on {where} ({error.strerror or error}): "
                "choose another host or port"
            ) from error
        self._port = self._server.sockets[0].getsockname()[1]
        self._sweep(loop)

    @property
    def port(self) -> int:
        """The port listened on; before `start` the one asked for."""
        return self._port

    def connection(self) -> Connection:
        """A connection that has no transport yet: for one that came in by another port."""
        return Connection(self)

    async def stop(self) -> None:
        """Close every connection and wait, not for ever, until what was received is stored."""
        if self._server is None:
            return
        self._server.close()
        if self._sweeper is not None:
            self._sweeper.cancel()
        for connection in list(self._connections):
            connection.shut_down()
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=STOP_SECONDS)
        for connection in list(self._connections):
            connection.abort()  # those that did not read their DISCONNECT
        loop = asyncio.get_running_loop()
        enough = loop.time() + STOP_SECONDS
        while self._connections and loop.time() < enough:
            await asyncio.sleep(0)  # the loop tells each connection that it is lost
        await self._server.wait_closed()
        self._server = None

    def publish(self, device: str, kind: Downward, payload: bytes) -> bool:
        """Send with QoS 1; False if the device is not connected or did not subscribe."""
        connection = self._devices.get(device)
        return connection is not None and connection.publish(kind, payload)

    def cut(self, device: str) -> None:
        """End the session of a device that was revoked."""
        connection = self._devices.get(device)
        if connection is not None:
            connection.revoke()

    # what connections ask for (connection.Room)

    def reserve(self, size: int) -> None:
        self._unstored_bytes += size

    def release(self, size: int) -> None:
        self._unstored_bytes -= size
        while self._waiting and self._unstored_bytes < self.limits.all_unstored_bytes:
            connection = next(iter(self._waiting))
            del self._waiting[connection]
            connection.resume()

    def full(self, waiter: Connection) -> bool:
        if self._unstored_bytes < self.limits.all_unstored_bytes:
            return False
        self._waiting[waiter] = None
        return True

    def joined(self, connection: Connection) -> bool:
        self._connections.add(connection)
        return len(self._connections) <= self.limits.connections

    def opened(self, connection: Connection, device: str) -> None:
        older = self._devices.get(device)
        if older is not None:
            older.displace()
            self.door.disconnected(device)
        self._devices[device] = connection
        self.door.connected(device)

    def left(self, connection: Connection) -> None:
        self._connections.discard(connection)
        self._waiting.pop(connection, None)
        device = connection.device
        if self._devices.get(device) is connection:
            del self._devices[device]
            self.door.disconnected(device)

    def working(self, task: asyncio.Future[None]) -> None:
        self._tasks.add(task)  # the loop itself keeps only weak references
        task.add_done_callback(self._tasks.discard)

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        _tick(list(self._connections))
        self._sweeper = loop.call_later(SWEEP_SECONDS, self._sweep, loop)


def _tick(connections: Iterable[Connection]) -> None:
    for connection in connections:
        connection.tick()
