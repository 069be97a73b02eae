"""MQTT over a WebSocket of the web port, so that devices need no other port.

A WebSocket becomes a transport to the same connection that a socket of the MQTT port gets: limits,
topics and acknowledgements are the same. Where a device's bytes are cut into frames means nothing
(MQTT 5, 6.0).
"""

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

SUBPROTOCOL = "mqtt"


class WebSocketTransport(asyncio.Transport):
    """What an asyncio protocol needs, over one accepted WebSocket; `carry` does the work."""

    def __init__(self, socket: WebSocket, certificate: bytes) -> None:
        """`certificate` is the one that the client proved to hold (DER); b"" if none."""
        client = socket.client
        peer = (client.host, client.port) if client else None
        super().__init__({"peername": peer, "certificate": certificate})
        self._socket = socket
        self._out: deque[bytes] = deque()
        self._unsent, self._high = 0, 64 * 1024
        self._stalled = self._closing = False
        self._to_send, self._may_read = asyncio.Event(), asyncio.Event()
        self._may_read.set()
        self._tasks: list[asyncio.Task[None]] = []

    async def carry(self, protocol: asyncio.Protocol) -> None:
        """Give the protocol what comes and send what it writes, until either side ends."""
        self._protocol = protocol
        protocol.connection_made(self)
        self._tasks = [asyncio.create_task(self._receive()), asyncio.create_task(self._send())]
        if self._closing:  # refused as it came
            self._end()
        try:
            await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._closing = True
            self._end()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            protocol.connection_lost(None)
            if self._socket.client_state is WebSocketState.CONNECTED:
                with suppress(RuntimeError, WebSocketDisconnect, OSError):
                    await self._socket.close()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if data and not self._closing:
            self._out.append(bytes(data))
            self._unsent += len(data)
            self._to_send.set()
            if not self._stalled and self._unsent > self._high:
                self._stalled = True
                self._protocol.pause_writing()

    def close(self) -> None:
        """Send what waits, then end."""
        self._closing = True
        self._to_send.set()

    def abort(self) -> None:
        """End at once."""
        self._closing = True
        self._end()

    def is_closing(self) -> bool:
        return self._closing

    def pause_reading(self) -> None:
        self._may_read.clear()

    def resume_reading(self) -> None:
        self._may_read.set()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        del low  # resumed as soon as nothing waits
        self._high = self._high if high is None else high

    def get_write_buffer_size(self) -> int:
        return self._unsent

    def _end(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def _receive(self) -> None:
        with suppress(WebSocketDisconnect):
            while True:
                await self._may_read.wait()
                data = await self._socket.receive_bytes()
                if not self._closing:
                    self._protocol.data_received(data)

    async def _send(self) -> None:
        while self._out or not self._closing:
            await self._to_send.wait()
            self._to_send.clear()
            while self._out:
                data = self._out.popleft()
                await self._socket.send_bytes(data)  # waits while the client does not read
                self._unsent -= len(data)
            if self._stalled:
                self._stalled = False
                self._protocol.resume_writing()


async def speak_mqtt(
    socket: WebSocket, certificate: bytes, protocol: Callable[[], asyncio.Protocol]
) -> None:
    """Serve one WebSocket until it ends; one that does not offer MQTT is refused."""
    if SUBPROTOCOL not in socket.scope.get("subprotocols", ()):
        await socket.close()
        return
    await socket.accept(subprotocol=SUBPROTOCOL)
    await WebSocketTransport(socket, certificate).carry(protocol())
