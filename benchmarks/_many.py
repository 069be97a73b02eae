"""Thousands of devices in one process, each with an MQTT connection and an outbox of its own.

A device sends a sealed window every so often, and keeps it until the server says that it is stored;
when its connection breaks it comes back after a random while and sends what it kept.
"""

import asyncio
import random
import struct
import time
from collections.abc import Callable

import msgspec

from benchmarks._load import Script, connect, packet, text
from edge_sdk.messages import Window, unseal_ack
from edge_sdk.topics import topic
from tests.server_side import Device

BACK_SECONDS = 20.0  # within which a device that lost its broker comes back
AGAIN_SECONDS = 30.0  # after which a window that is not confirmed is sent again


class Told(msgspec.Struct):
    """What all devices saw, in seconds.

    Attributes:
        took: from sending a window to hearing that it is stored, of those that no outage touched.
        late: the same of the others.
    """

    took: list[float] = []
    late: list[float] = []
    sent: int = 0
    connects: int = 0


class Waiting(msgspec.Struct):
    payload: bytes
    made: float
    sent: float = 0.0
    tries: int = 0


class Simulated(asyncio.Protocol):
    """One device."""

    def __init__(
        self,
        device: Device,
        window: Window,
        port: int,
        told: Told,
        *,
        password: str = "",
        back: float = BACK_SECONDS,
    ) -> None:
        self.device, self.window, self.port, self.told = device, window, port, told
        self.password, self.back = password, back
        self.waiting: dict[int, Waiting] = {}
        self.transport: asyncio.Transport | None = None
        self.heard = bytearray()
        self.up = self.over = False
        self.number = 0

    async def come(self, within: float) -> None:
        """Connect, once or as often as it takes."""
        while True:
            await asyncio.sleep(random.uniform(0, within))  # noqa: S311 - jitter
            try:
                loop = asyncio.get_running_loop()
                await loop.create_connection(lambda: self, "127.0.0.1", self.port)
            except OSError:
                within = self.back
            else:
                return

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.heard.clear()
        transport.write(connect(Script(self.device.name, self.password, [])))

    def connection_lost(self, _error: Exception | None) -> None:
        self.up, self.transport = False, None
        if self.over:
            return
        self.coming = asyncio.ensure_future(self.come(self.back))

    def data_received(self, data: bytes) -> None:
        self.heard += data
        while len(self.heard) >= 2:
            length, at, shift = 0, 1, 0
            while True:
                if at >= len(self.heard):
                    return
                length |= (self.heard[at] & 127) << shift
                at, shift = at + 1, shift + 7
                if not self.heard[at - 1] & 128:
                    break
            if len(self.heard) < at + length:
                return
            kind, body = self.heard[0], bytes(self.heard[at : at + length])
            del self.heard[: at + length]
            self.take(kind, body)

    def take(self, kind: int, body: bytes) -> None:
        if kind >> 4 == 2:  # CONNACK
            self.up = True
            self.told.connects += 1
            wish = b"\0\1" + text(topic(self.device.name, "ack")) + b"\1"
            self.transport.write(packet(0x82, wish))
            self.send(lambda _: True)
        elif kind >> 4 == 3:  # PUBLISH: the server's confirmation
            after = 2 + int.from_bytes(body[:2], "big")
            if kind & 0x06:
                self.transport.write(b"\x40\x02" + body[after : after + 2])
                after += 2
            self.confirmed(body[after:])

    def confirmed(self, payload: bytes) -> None:
        ack, now = unseal_ack(payload, self.device.name, self.device.secrets.mac), time.monotonic()
        for seq in [seq for seq in self.waiting if seq <= ack.seq]:
            one = self.waiting.pop(seq)
            calm = one.tries == 1 and one.sent - one.made < 1.0
            (self.told.took if calm else self.told.late).append(now - one.made)

    def report(self) -> None:
        """The window of this minute, and what was not confirmed for too long."""
        _, payload = self.device.message(self.window, wall=time.time())
        self.waiting[self.device.seq] = Waiting(payload, time.monotonic())
        self.told.sent += 1
        self.send_old(AGAIN_SECONDS)

    def leave(self) -> None:
        """Close the connection for good."""
        self.over = True
        if self.transport:
            self.transport.close()

    def send_old(self, seconds: float) -> None:
        """What was never sent, or so long ago."""
        old = time.monotonic() - seconds
        self.send(lambda one: not one.tries or one.sent < old)

    def send(self, due: Callable[[Waiting], bool]) -> None:
        if not self.up:
            return
        name = text(topic(self.device.name, "telemetry"))
        for one in self.waiting.values():
            if due(one):
                one.tries, one.sent = one.tries + 1, time.monotonic()
                self.number = self.number % 65_535 + 1
                head = name + struct.pack("!H", self.number)
                self.transport.write(packet(0x32, head + one.payload))


async def live(devices: list[Simulated], period: float, seconds: float) -> None:
    """Every device reports once a period, each at a moment of its own, for so long."""
    ends = time.monotonic() + seconds

    async def one(device: Simulated) -> None:
        await asyncio.sleep(random.uniform(0, period))  # noqa: S311
        while time.monotonic() < ends:
            device.report()
            await asyncio.sleep(period)

    await asyncio.gather(*(one(device) for device in devices))
