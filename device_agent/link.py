"""The MQTT connection: the one import of paho.

Its callbacks only post to the agent's queue: an exception in one would kill paho's network thread.
Nothing is kept here over a reconnect: what is not confirmed is in the outbox.
"""

import random
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

import msgspec
from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from device_agent.config import LinkConfig
from device_agent.endpoint import backoff, parse_websocket
from device_agent.enrol import Identity
from edge_sdk.topics import DOWNWARD, Downward, Upward, topic

KEEPALIVE = 30
SESSION = 86_400  # seconds
IN_FLIGHT = 256  # well above the outbox's, so that acknowledging late never throttles
FIRST_WAIT = 1.0


class Up(msgspec.Struct, frozen=True):
    """Connected and subscribed.

    Attributes:
        number: of the connection; 0 if it is none that could break.
    """

    number: int = 0


class Down(msgspec.Struct, frozen=True):
    """Not connected, for this reason; the link tries again by itself."""

    reason: str


class Arrived(msgspec.Struct, frozen=True):
    """A downward message."""

    kind: Downward
    payload: bytes


LinkEvent = Up | Down | Arrived


class Link(Protocol):
    """What the agent needs of a connection; it posts LinkEvents."""

    def start(self) -> None: ...
    def publish(self, kind: Upward, payload: bytes) -> None: ...
    def stop(self) -> None: ...


class Address(msgspec.Struct, frozen=True):
    """Where to connect, and as whom; with `tls` by mutual TLS, with `path` over a WebSocket.

    Attributes:
        will: of the next connection: its number, and what the server is told should it break.
    """

    host: str
    port: int
    device: str
    password: str
    tls: ssl.SSLContext | None = None
    path: str = ""
    will: Callable[[], tuple[int, bytes]] | None = None

    def client(self, *, again: bool = True) -> Client:
        """Paho's client for there, not yet connected; `again` to reconnect by itself."""
        made = Client(
            CallbackAPIVersion.VERSION2,
            client_id=self.device,
            protocol=MQTTProtocolVersion.MQTTv5,
            transport="websockets" if self.path else "tcp",
            reconnect_on_failure=again,
        )
        made.username_pw_set(self.device, self.password)
        if self.path:
            made.ws_set_options(self.path)
        if self.tls is not None:
            made.tls_set_context(self.tls)
        return made


def address_of(
    who: Identity,
    link: LinkConfig,
    tls: ssl.SSLContext | None,
    will: Callable[[], tuple[int, bytes]] | None = None,
) -> Address:
    """Where a device that joined reaches MQTT."""
    place = parse_websocket(link.mqtt, link.server)
    password = who.secrets.mqtt_password
    host, port, path = who.server.host, who.mqtt_port, ""
    if place is not None:
        host, port, path = place.host, place.port, place.path
    return Address(host, port, who.device, password, tls, path, will)


class MqttLink:
    """MQTT 5 over TCP or a WebSocket, with reconnects at jittered, growing distances."""

    def __init__(
        self, address: Address, post: Callable[[LinkEvent], None], chance: random.Random
    ) -> None:
        self._address, self._post, self._chance = address, post, chance
        self._failures = self._number = 0
        self._kinds = {topic(address.device, kind): kind for kind in DOWNWARD}
        client = address.client()
        client.max_inflight_messages_set(IN_FLIGHT)
        client.on_pre_connect = self._on_pre_connect
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_connect_fail = self._on_connect_fail
        client.on_message = self._on_message
        self._client = client

    def start(self) -> None:
        """Connect in the background, and stay connected."""
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.ReceiveMaximum = IN_FLIGHT
        properties.SessionExpiryInterval = SESSION  # a broker then keeps orders for a short absence
        self._client.connect_async(
            self._address.host,
            self._address.port,
            KEEPALIVE,
            clean_start=False,
            properties=properties,
        )
        self._client.loop_start()

    def publish(self, kind: Upward, payload: bytes) -> None:
        """Send at QoS 1; lost if there is no connection."""
        self._client.publish(topic(self._address.device, kind), payload, qos=1)

    def drop(self) -> None:
        """Cut the connection as a bad network would; it comes back by itself."""
        with suppress(OSError):
            if isinstance(found := self._client.socket(), socket.socket):
                found.shutdown(socket.SHUT_RDWR)

    def stop(self) -> None:
        """Disconnect for good; the will is carried out too, as a stopped device is gone as well."""
        goodbye = ReasonCode(PacketTypes.DISCONNECT, "Disconnect with will message")
        self._client.disconnect(reasoncode=goodbye)
        self._client.loop_stop()
        self._client.reinitialise()  # closes its wake-up sockets, which the two above leave open

    def _on_pre_connect(self, client: Client, _data: object) -> None:
        if self._address.will is not None:
            self._number, will = self._address.will()
            client.will_set(topic(self._address.device, "link"), will, qos=1)

    def _on_connect(
        self, client: Client, _: object, _flags: ConnectFlags, code: ReasonCode, _more: object
    ) -> None:
        if code.is_failure:
            self._wait_longer()
            self._post(Down(f"the server refused the connection: {code}"))
            return
        self._failures = 0
        client.drop_out_messages()  # the outbox sends them again; paho would too
        client.subscribe([(name, 1) for name in self._kinds])
        self._post(Up(self._number))

    def _on_disconnect(
        self,
        client: Client,
        _data: object,
        flags: DisconnectFlags,
        code: ReasonCode,
        _more: object,
    ) -> None:
        client.drop_out_messages()
        self._wait_longer()
        told = flags.is_disconnect_packet_from_server
        self._post(Down(f"the server ended it: {code}" if told else "the connection was lost"))

    def _on_connect_fail(self, _client: Client, _data: object) -> None:
        self._wait_longer()
        self._post(Down("the server can't be reached"))

    def _on_message(self, _client: Client, _data: object, message: MQTTMessage) -> None:
        kind = self._kinds.get(message.topic)
        if kind is not None:
            self._post(Arrived(kind, bytes(message.payload)))

    def _wait_longer(self) -> None:
        """Paho doubles its wait from the first to the second value: both are ours, jittered."""
        self._failures += 1
        wait = max(0.1, backoff(self._failures + 1, FIRST_WAIT / 2, self._chance))
        self._client.reconnect_delay_set(wait, wait)  # type: ignore[arg-type]
