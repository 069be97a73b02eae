"""Many devices that publish sealed windows at QoS 1 as fast as they are acknowledged.

A process of its own (`python -m benchmarks._load PORT FILE`), so that it shares no interpreter with
what it loads. MQTT 3.1.1, since its PUBACK has four bytes and can be counted by length.
"""

import asyncio
import struct
import sys
import time
from pathlib import Path

import msgspec

from edge_sdk.topics import topic

IN_FLIGHT = 500  # of each device; far below what both sides take


class Script(msgspec.Struct):
    """What one device sends."""

    device: str
    password: str
    messages: list[bytes]


def text(word: str) -> bytes:
    data = word.encode()
    return struct.pack("!H", len(data)) + data


def packet(kind: int, body: bytes) -> bytes:
    length, head = len(body), bytearray([kind])
    while True:
        length, low = divmod(length, 128)
        head.append(low | (128 if length else 0))
        if not length:
            return bytes(head) + body


def connect(script: Script) -> bytes:
    flags = 0b11000010 if script.password else 0b00000010
    body = text("MQTT") + bytes([4, flags]) + struct.pack("!H", 60) + text(script.device)
    if script.password:
        body += text(script.device) + text(script.password)
    return packet(0x10, body)


def publishes(script: Script, kind: str = "telemetry") -> list[bytes]:
    name = text(topic(script.device, kind))
    return [
        packet(0x32, name + struct.pack("!H", number % 65_535 + 1) + message)
        for number, message in enumerate(script.messages)
    ]


class Publisher(asyncio.Protocol):
    """One device; `done` is set when everything it has was acknowledged."""

    def __init__(self, script: Script) -> None:
        self.script, self.packets = script, publishes(script)
        self.sent = self.acknowledged = 0
        self.heard = b""
        self.ready = asyncio.Event()
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.Transport) -> None:
        self.transport = transport
        transport.write(connect(self.script))

    def data_received(self, data: bytes) -> None:
        self.heard += data
        if not self.ready.is_set():
            if len(self.heard) < 4:
                return
            if self.heard[3]:
                self.done.set_exception(RuntimeError(f"refused: {self.heard[:4].hex()}"))
                return
            self.heard = self.heard[4:]
            self.ready.set()
        self.acknowledged += len(self.heard) // 4
        self.heard = self.heard[len(self.heard) // 4 * 4 :]
        self.push()
        if self.acknowledged == len(self.packets) and not self.done.done():
            self.done.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(RuntimeError(f"{self.script.device} was cut off: {error}"))

    def push(self) -> None:
        room = min(self.acknowledged + IN_FLIGHT, len(self.packets))
        if room > self.sent:
            self.transport.write(b"".join(self.packets[self.sent : room]))
            self.sent = room


async def drive(port: int, scripts: list[Script]) -> tuple[float, float]:
    """Seconds from the first message to the last acknowledgement, and when the first was sent."""
    loop = asyncio.get_running_loop()
    pairs = [
        await loop.create_connection(lambda s=script: Publisher(s), "127.0.0.1", port)
        for script in scripts
    ]
    publishers = [publisher for _, publisher in pairs]
    await asyncio.gather(*(publisher.ready.wait() for publisher in publishers))
    began = time.perf_counter()
    for publisher in publishers:
        publisher.push()
    await asyncio.gather(*(publisher.done for publisher in publishers))
    took = time.perf_counter() - began
    for publisher in publishers:
        publisher.transport.close()
    return took, began


def main() -> None:
    scripts = msgspec.msgpack.decode(Path(sys.argv[2]).read_bytes(), type=list[Script])
    print(*asyncio.run(drive(int(sys.argv[1]), scripts)))


if __name__ == "__main__":
    main()
