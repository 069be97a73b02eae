"""The MQTT endpoint with real clients on real sockets: paho in both versions, mosquitto_pub."""

import asyncio
import contextlib
import shutil
import socket
import subprocess
import threading
import time

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from edge_sdk.errors import EdgeError
from edge_sdk.topics import topic
from fleet_server.mqtt.connection import Limits
from fleet_server.mqtt.endpoint import Endpoint

pytestmark = pytest.mark.system

VERSIONS = pytest.mark.parametrize("version", [paho.MQTTv311, paho.MQTTv5], ids=["3.1.1", "5"])
TAKEN_OVER = 0x8E
SECRET = "secret"
MOSQUITTO_PUB = shutil.which("mosquitto_pub")


def until(what, seconds=10.0):
    """Wait for something to become true, not for ever."""
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while not (value := what()):
        assert time.monotonic() < deadline, "it did not come true"
        pause.wait(0.01)
    return value


class FakeDoor:
    """A server that keeps everything in lists; `hold` delays storing."""

    def __init__(self):
        self.log = []
        self.messages = []
        self.documents = {}
        self.stored = asyncio.Event()
        self.stored.set()
        self.failing = False

    def authenticate(self, username, password):
        return username if password == b"secret" else None

    def connected(self, device):
        self.log.append(("connected", device))

    def disconnected(self, device):
        self.log.append(("disconnected", device))

    def retained(self, device, kind):
        return self.documents.get((device, kind))

    async def received(self, device, messages):
        self.messages += [(device, kind, payload) for kind, payload in messages]
        await self.stored.wait()
        if self.failing:
            raise OSError("disk full")


class Server:
    """An endpoint on a loop of its own, in a thread."""

    def __init__(self, **limits):
        self.loop = asyncio.new_event_loop()
        self.door = FakeDoor()
        self.endpoint = Endpoint(self.door, limits=Limits(**limits))
        self._thread = threading.Thread(target=self.loop.run_forever)

    def __enter__(self):
        self._thread.start()
        self.run(self.endpoint.start())
        return self

    def __exit__(self, *_):
        self.call(self.door.stored.set)
        self.run(self.endpoint.stop())
        self.call(self.loop.stop)
        self._thread.join()
        self.loop.close()

    @property
    def port(self):
        return self.endpoint.port

    def run(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(20)

    def call(self, function, *arguments):
        self.loop.call_soon_threadsafe(function, *arguments)

    def publish(self, device, kind, payload):
        async def publish():
            return self.endpoint.publish(device, kind, payload)

        return self.run(publish())

    def hold(self):
        self.call(self.door.stored.clear)
        until(lambda: not self.door.stored.is_set())


@pytest.fixture
def server():
    with Server() as running:
        yield running


class Device:
    """A paho client that notes what happens to it."""

    def __init__(self, server, device, version=paho.MQTTv5, password=SECRET):
        self.client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id=f"{device}-x", protocol=version
        )
        self.client.username_pw_set(device, password)
        self.answers, self.ends, self.messages, self.published, self.granted = [], [], [], [], []
        self.client.on_connect = lambda c, u, f, reason, p: self.answers.append(reason)
        self.client.on_disconnect = lambda c, u, f, reason, p: self.ends.append(reason)
        self.client.on_message = lambda c, u, message: self.messages.append(message)
        self.client.on_publish = lambda c, u, number, reason, p: self.published.append(number)
        self.client.on_subscribe = lambda c, u, number, reasons, p: self.granted.extend(reasons)
        self._server = server
        self.device = device

    def __enter__(self):
        self.client.connect("127.0.0.1", self._server.port)
        self.client.loop_start()
        until(lambda: self.answers)
        return self

    def __exit__(self, *_):
        self.client.disconnect()
        self.client.loop_stop()

    def publish(self, kind, payload):
        return self.client.publish(topic(self.device, kind), payload, qos=1)

    def subscribe(self, name):
        self.client.subscribe(name, qos=1)
        until(lambda: self.granted)


@VERSIONS
def test_a_device_connects_and_disconnects(server, version):
    with Device(server, "pi-7", version) as device:
        assert not device.answers[0].is_failure
    until(lambda: server.door.log == [("connected", "pi-7"), ("disconnected", "pi-7")])


@VERSIONS
def test_a_wrong_password_is_refused_as_such(server, version):
    with Device(server, "pi-7", version, password="guess") as device:
        assert str(device.answers[0]) == "Bad user name or password"
    assert server.door.log == []


@VERSIONS
def test_the_acknowledgement_waits_until_the_message_is_stored(server, version):
    server.hold()
    with Device(server, "pi-7", version) as device:
        infos = [device.publish("telemetry", b"%d" % i) for i in range(20)]
        until(lambda: len(server.door.messages) == 20)
        assert not any(info.is_published() for info in infos)
        server.call(server.door.stored.set)
        until(lambda: len(device.published) == 20)
    assert [payload for _, _, payload in server.door.messages] == [b"%d" % i for i in range(20)]


@VERSIONS
def test_a_subscriber_gets_its_order_at_once_and_later_ones_as_they_come(server, version):
    server.door.documents["pi-7", "desired"] = b"first"
    assert not server.publish("pi-7", "desired", b"nobody there")
    with Device(server, "pi-7", version) as device:
        assert not server.publish("pi-7", "desired", b"not subscribed")
        device.subscribe("edge/1/pi-7/+")
        until(lambda: len(device.messages) == 1)
        assert server.publish("pi-7", "desired", b"second")
        assert server.publish("pi-7", "ack", b"third")
        until(lambda: len(device.messages) == 3)
        got = [(m.topic.rsplit("/", 1)[1], m.payload, m.retain, m.qos) for m in device.messages]
    assert got == [
        ("desired", b"first", True, 1),
        ("desired", b"second", False, 1),
        ("ack", b"third", False, 1),
    ]


@VERSIONS
def test_a_second_connection_of_a_device_takes_over(server, version):
    with Device(server, "pi-7", version) as first, Device(server, "pi-7", version) as second:
        second.subscribe("edge/1/pi-7/+")
        until(lambda: first.ends)
        if version == paho.MQTTv5:
            assert first.ends[0].value == TAKEN_OVER
        first.client.loop_stop()  # or paho would come back and take over in its turn
        assert server.publish("pi-7", "ack", b"x")
        until(lambda: second.messages)
    assert server.door.log[:3] == [
        ("connected", "pi-7"),
        ("disconnected", "pi-7"),
        ("connected", "pi-7"),
    ]


@VERSIONS
def test_publishing_in_another_device_s_name_ends_the_connection(server, version):
    with Device(server, "pi-7", version) as device:
        device.client.publish("edge/1/pi-8/report", b"I am not pi-8", qos=1)
        until(lambda: device.ends)
        if version == paho.MQTTv5:
            assert str(device.ends[0]) == "Not authorized"
    assert server.door.messages == []


@VERSIONS
def test_subscribing_to_another_device_is_refused(server, version):
    server.door.documents["pi-8", "desired"] = b"secret"
    with Device(server, "pi-7", version) as device:
        device.subscribe("edge/1/pi-8/desired")
        assert device.granted[0].is_failure
        assert device.messages == []


@VERSIONS
def test_the_will_of_a_device_whose_socket_dies_is_received(server, version):
    device = Device(server, "pi-7", version)
    device.client.will_set(topic("pi-7", "link"), b"gone", qos=1)
    device.client.connect("127.0.0.1", server.port)
    device.client.loop()
    until(lambda: device.client.loop() == 0 and device.answers)
    device.client.socket().shutdown(socket.SHUT_RDWR)
    until(lambda: server.door.messages == [("pi-7", "link", b"gone")])
    until(lambda: ("disconnected", "pi-7") in server.door.log)
    device.client.loop_misc()
    device.client.socket().close()


def test_a_message_that_can_t_be_stored_is_not_acknowledged(server):
    server.door.failing = True
    with Device(server, "pi-7") as device:
        info = device.publish("telemetry", b"x")
        until(lambda: device.ends)
        assert not info.is_published()
        server.door.failing = False
        until(info.is_published)  # paho came back and sent it again


def test_a_port_in_use_is_one_sentence():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        endpoint = Endpoint(FakeDoor(), port=port)
        with pytest.raises(EdgeError, match=f"port {port} on 127.0.0.1, which is in use"):
            asyncio.run(endpoint.start())


def stranger_at(server):
    return socket.create_connection(("127.0.0.1", server.port), timeout=5)


def closed_by_peer(connection):
    """Whether the server has closed it, within its timeout."""
    with contextlib.suppress(ConnectionResetError):
        while connection.recv(65536):
            pass
    return True


def test_a_connection_that_says_nothing_is_closed():
    with Server(connect_seconds=0.2) as server, stranger_at(server) as stranger:
        assert closed_by_peer(stranger)


def test_one_connection_too_many_is_closed():
    with Server(connections=1) as server, Device(server, "pi-7"), stranger_at(server) as second:
        assert closed_by_peer(second)


def test_junk_is_closed_and_the_others_go_on(server):
    with Device(server, "pi-7") as device:
        with stranger_at(server) as stranger:
            stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
            assert closed_by_peer(stranger)
        device.publish("report", b"fine").wait_for_publish(5)
    assert server.door.messages == [("pi-7", "report", b"fine")]


HELLO = b"\0\4MQTT\4\xc2\0\x3c\0\1x\0\4pi-7\0\6secret"
SUBSCRIBE = b"\0\1\0\x0dedge/1/pi-7/+\1"
MESSAGE = b"\0\x15edge/1/pi-7/telemetry"


def framed(first, body):
    assert len(body) < 128
    return bytes([first, len(body)]) + body


def raw_device(server, name=b"pi-7", keep_alive=60):
    connection = stranger_at(server)
    hello = HELLO.replace(b"pi-7", name).replace(b"\0\x3c", keep_alive.to_bytes(2, "big"))
    connection.sendall(framed(0x10, hello))
    assert connection.recv(4) == bytes.fromhex("20020000")
    return connection


def messages(count, name=b"pi-7"):
    """QoS 1 messages with a payload of 7 bytes, in one piece."""
    head = MESSAGE.replace(b"pi-7", name)
    numbers = range(1, count + 1)
    return b"".join(framed(0x32, head + n.to_bytes(2, "big") + b"payload") for n in numbers)


def test_no_more_is_read_than_can_be_stored():
    with Server(receive_maximum=10) as server:
        server.hold()
        with raw_device(server) as connection:
            connection.sendall(messages(100))
            until(lambda: len(server.door.messages) == 10)
            server.call(server.door.stored.set)
            until(lambda: len(server.door.messages) == 100)
            acks = b""
            while len(acks) < 400:
                acks += connection.recv(4096)
    assert acks == b"".join(b"\x40\x02" + n.to_bytes(2, "big") for n in range(1, 101))


def test_all_devices_together_are_held_to_one_limit():
    with Server(all_unstored_bytes=5 * 7) as server:
        server.hold()
        with raw_device(server) as one, raw_device(server, b"pi-8") as two:
            one.sendall(messages(20))
            until(lambda: len(server.door.messages) == 5)
            two.sendall(messages(20, b"pi-8"))
            server.run(asyncio.sleep(0.1))
            assert len(server.door.messages) == 5
            server.call(server.door.stored.set)
            until(lambda: len(server.door.messages) == 40)


def test_a_device_is_not_called_silent_while_the_server_does_not_read():
    with Server(receive_maximum=1) as server:
        server.hold()
        with raw_device(server, keep_alive=1) as connection:
            connection.sendall(messages(2))
            server.run(asyncio.sleep(3))  # twice what it may be silent
            server.call(server.door.stored.set)
            until(lambda: len(server.door.messages) == 2)


def test_a_device_that_does_not_read_is_cut_off():
    with Server(unsent_bytes=1_000_000) as server, raw_device(server) as connection:
        connection.sendall(framed(0x82, SUBSCRIBE))
        until(lambda: server.publish("pi-7", "ack", bytes(10)))
        payload = bytes(500_000)
        until(lambda: not server.publish("pi-7", "ack", payload))
        until(lambda: ("disconnected", "pi-7") in server.door.log)


def test_at_the_end_devices_are_told_and_what_came_in_is_stored():
    with Server() as server, Device(server, "pi-7") as device:
        server.hold()
        device.publish("telemetry", b"x")
        until(lambda: server.door.messages)
        stopping = asyncio.run_coroutine_threadsafe(server.endpoint.stop(), server.loop)
        until(lambda: device.ends)
        assert str(device.ends[0]) == "Server shutting down"
        assert not stopping.done()
        server.call(server.door.stored.set)
        stopping.result(10)


def test_limits_of_the_client_s_own_are_kept(server):
    device = Device(server, "pi-7")
    wanted = Properties(PacketTypes.CONNECT)
    wanted.ReceiveMaximum = 1
    wanted.MaximumPacketSize = 500
    device.client.connect("127.0.0.1", server.port, properties=wanted)
    device.client.loop_start()
    until(lambda: device.answers)
    device.subscribe("edge/1/pi-7/ack")
    assert not server.publish("pi-7", "ack", bytes(500))
    for number in range(20):
        assert server.publish("pi-7", "ack", b"%d" % number)
    until(lambda: len(device.messages) == 20)
    device.client.disconnect()
    device.client.loop_stop()


@pytest.mark.skipif(MOSQUITTO_PUB is None, reason="mosquitto_pub is not on PATH")
@pytest.mark.parametrize("version", ["mqttv311", "mqttv5"])
def test_mosquitto_s_own_client_gets_its_message_through(server, version):
    command = [MOSQUITTO_PUB, "-h", "127.0.0.1", "-p", str(server.port), "-V", version]
    command += ["-u", "pi-7", "-P", "secret", "-q", "1", "-t", "edge/1/pi-7/event", "-m", "hi"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stderr) == (0, "")
    assert server.door.messages == [("pi-7", "event", b"hi")]
