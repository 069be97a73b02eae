"""An external broker (Mosquitto, EMQX) in place of our own endpoint; the one import of gmqtt.

Workers share one subscription. A message is acknowledged to the broker once it is committed, and
not before: its receive maximum is far above a batch, or a batch could never fill. What the broker
loses, devices send again, since they wait for the server's own confirmation.
"""

import asyncio
import logging
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

import msgspec

from edge_sdk.errors import EdgeError, InvalidInputError
from edge_sdk.topics import PREFIX, UPWARD, Downward, parse_upward, topic
from fleet_server.broker_config import client_context
from fleet_server.ingest import Ingest
from fleet_server.logs import Outage
from fleet_server.mqtt.door import Message
from fleet_server.mqtt.encoding import encode
from fleet_server.mqtt.packets import V5, Puback

log = logging.getLogger("fleet_server.broker")

GROUP = "edge-ingest"
RECEIVE_MAXIMUM = 5000
SESSION_SECONDS = 24 * 3600
TRY_AGAIN_SECONDS = 1.0
MQTT, MQTTS = 1883, 8883


def _in_a_sentence(record: logging.LogRecord) -> bool:
    """A link that broke: gmqtt tells it with a traceback, though it is no bug but the network."""
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, (OSError, EOFError)):  # anything else is a bug, and keeps its traceback
        record.msg, record.args = "the link to the broker broke: %s", (error,)
        record.exc_info = None
    return True


logging.getLogger("gmqtt.mqtt.protocol").addFilter(_in_a_sentence)


class Address(msgspec.Struct, frozen=True):
    """Where the broker is."""

    host: str
    port: int
    tls: bool


def parse_broker(url: str) -> Address:
    """A broker's URL; raises InvalidInputError.

    >>> parse_broker("mqtts://broker.lan")
    Address(host='broker.lan', port=8883, tls=True)
    """
    parts = urlsplit(url)
    if parts.scheme not in ("mqtt", "mqtts") or not parts.hostname or parts.password:
        raise InvalidInputError(
            f"{url.partition('@')[2] or url!r} is no broker: give mqtts://HOST[:PORT]; "
            "the server shows its certificate there, no password"
        )
    tls = parts.scheme == "mqtts"
    return Address(parts.hostname, parts.port or (MQTTS if tls else MQTT), tls)


class Uplink(Protocol):
    """What the server has of its devices: its own endpoint, or a broker."""

    @property
    def port(self) -> int: ...
    async def start(self) -> None: ...
    async def stop(self) -> None: ...
    def publish(self, device: str, kind: Downward, payload: bytes) -> bool: ...
    def cut(self, device: str) -> None: ...


class BrokerLink:
    """One worker's connection: takes a share of all upward messages, sends documents down."""

    def __init__(self, ingest: Ingest, address: Address, keys: Path, *, worker: str) -> None:
        """`worker` names it for the broker, which keeps its unacknowledged messages under it.

        Raises:
            EdgeError: gmqtt is missing.
        """
        try:
            from gmqtt import Client
        except ImportError as error:
            raise EdgeError(
                "an external broker needs gmqtt: pip install 'edge-deployment-sdk[server,broker]'"
            ) from error
        self._ingest, self._address = ingest, address
        self._arrived: dict[str, tuple[list[Message], list[int]]] = {}
        self._context = client_context(keys) if address.tls else False
        self._client = Client(
            worker,
            clean_session=False,
            optimistic_acknowledgement=False,
            session_expiry_interval=SESSION_SECONDS,
            receive_maximum=RECEIVE_MAXIMUM,
        )
        self._client.set_config({"reconnect_retries": -1, "reconnect_delay": TRY_AGAIN_SECONDS})
        self._client.on_connect = self._connected
        # Past its own way of a task, a callback and a write for each message, which take as long as
        # storing it. Both names are private to it, hence its bounds in pyproject.toml.
        self._client._package_handler._handle_qos_1_publish_packet = self._message
        self._client.on_message = self._message_of_qos_0

    async def start(self) -> None:
        """Begin to connect; the broker may come later, then the link waits for it."""
        self._connecting = asyncio.create_task(self._connect())

    async def _connect(self) -> None:
        outage, clock = Outage(log, "the broker is reached"), asyncio.get_running_loop().time
        while True:
            try:
                await self._client.connect(
                    self._address.host, self._address.port, ssl=self._context, keepalive=30
                )
            except (OSError, ssl.SSLError) as error:
                outage.failed(error, clock())
                await asyncio.sleep(TRY_AGAIN_SECONDS)
            else:
                outage.over(clock())
                return

    @property
    def port(self) -> int:
        """Where devices connect too."""
        return self._address.port

    def cut(self, device: str) -> None:
        """The broker keeps the connection; what a revoked device says is not believed any more."""

    async def stop(self) -> None:
        self._connecting.cancel()
        if self._client.is_connected:
            await self._client.disconnect()

    def publish(self, device: str, kind: Downward, payload: bytes) -> bool:
        """Send with QoS 1; orders are retained, for the device that is not there now."""
        if not self._client.is_connected:
            return False
        self._client.publish(topic(device, kind), payload, qos=1, retain=kind == "desired")
        return True

    def _connected(self, client: object, _flags: int, _code: int, _properties: object) -> None:
        del client
        for kind in UPWARD:
            self._client.subscribe(f"$share/{GROUP}/{PREFIX}/+/{kind}", qos=1)
        log.info("connected to %s:%d", self._address.host, self._address.port)

    def _message(self, number: int, payload: bytes, name: str, _properties: object) -> None:
        """A QoS 1 message; it goes on with what else came of the device in one turn of the loop."""
        device, kind = parse_upward(name)
        if not self._arrived:
            asyncio.get_running_loop().call_soon(self._hand_over)
        messages, numbers = self._arrived.setdefault(device, ([], []))
        messages.append((kind, payload))
        numbers.append(number)

    def _message_of_qos_0(
        self, _client: object, name: str, payload: bytes, _qos: int, properties: object
    ) -> None:
        self._message(0, payload, name, properties)

    def _hand_over(self) -> None:
        arrived, self._arrived = self._arrived, {}
        for device, (messages, numbers) in arrived.items():
            self._store(device, messages, numbers)

    def _store(self, device: str, messages: list[Message], numbers: list[int]) -> None:
        storing = asyncio.ensure_future(self._ingest.received(device, messages))

        def stored(done: asyncio.Future[None]) -> None:
            if done.cancelled():
                return
            error = done.exception()
            if isinstance(error, EdgeError):  # told by the ingest; it keeps its place
                again = asyncio.get_running_loop().call_later
                again(TRY_AGAIN_SECONDS, self._store, device, messages, numbers)
            elif error:  # a bug: unacknowledged, the broker gives it again at the next connection
                log.error("%d messages of %s were not stored", len(numbers), device, exc_info=error)
            else:
                self._acknowledge(numbers)

        storing.add_done_callback(stored)

    def _acknowledge(self, numbers: Sequence[int]) -> None:
        """One write for all; after a reconnection they still have their numbers in the session."""
        if self._client.is_connected:
            pubacks = b"".join(encode(Puback(number), V5) for number in numbers if number)
            self._client._connection.send_package(pubacks)
