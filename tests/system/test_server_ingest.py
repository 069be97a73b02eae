"""Real MQTT clients against a real server process, also one that is killed in the middle."""

import threading
from contextlib import contextmanager

import httpx2
import paho.mqtt.client as mqtt
import pytest

from edge_sdk.bundle import unpack
from edge_sdk.messages import Event, open_assignment, unseal_ack
from edge_sdk.packing import packed
from edge_sdk.signing import SigningKey
from edge_sdk.topics import topic
from fleet_server.backup import backup, restore
from fleet_server.store import Store
from tests.bundles import make_bundle
from tests.server_side import NOW, join, server_process, until, window_of

pytestmark = pytest.mark.system

KEY = SigningKey.generate()
BUNDLE = unpack(make_bundle(KEY), [KEY.public])


class Link:
    """A device's MQTT connection; keeps what was confirmed by PUBACK and by Ack."""

    def __init__(self, device, port):
        self.device, self.port = device, port
        self.orders, self.acks = [], []
        self.seq_of, self.mids = {}, []
        self.client = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2,
            client_id=device.name,
            protocol=mqtt.MQTTv5,
            reconnect_on_failure=False,
        )
        self.client.max_inflight_messages_set(1000)
        self.client.username_pw_set(device.name, device.secrets.mqtt_password)
        self.client.on_message = self._message
        self.client.on_publish = self._published

    def open(self):
        self.client.connect("127.0.0.1", self.port)
        self.client.loop_start()
        until(self.client.is_connected)
        self.client.subscribe([(topic(self.device.name, kind), 1) for kind in ("desired", "ack")])

    def close(self):
        self.client.disconnect()
        self.client.loop_stop()

    def send(self, kind, payload, seq=0):
        info = self.client.publish(topic(self.device.name, kind), payload, qos=1)
        self.seq_of[info.mid] = seq

    @property
    def pubacked(self):
        return {self.seq_of[mid] for mid in self.mids}

    def _published(self, _client, _data, mid, _reason, _properties):
        self.mids.append(mid)

    def _message(self, _client, _data, message):
        if message.topic.endswith("/desired"):
            self.orders.append(message.payload)
        else:
            ack = unseal_ack(message.payload, self.device.name, self.device.secrets.mac)
            self.acks.append((ack.boot, ack.seq))


@contextmanager
def linked(device, port):
    link = Link(device, port)
    link.open()
    try:
        yield link
    finally:
        link.close()


@pytest.fixture
def folder(tmp_path):
    KEY.save(tmp_path / "signing.key")
    return tmp_path


def started(folder, database):
    publisher = str(folder / "signing.pub")
    return server_process(folder / "data", "--publisher", publisher, database=database)


def opened(folder, database):
    return Store(database if isinstance(database, str) else folder / "data" / "fleet.db")


def joined(server, name):
    with server.client() as fleet, httpx2.Client(base_url=server.where.url) as http:
        device, trust, _ = join(http, fleet.new_enrolment_key().token, name)
    return device, trust


def test_what_devices_publish_is_stored_once_and_acknowledged(folder, database):
    with started(folder, database) as server:
        with server.client() as fleet:
            fleet.publish(make_bundle(KEY))
        links = [Link(joined(server, f"pi-{n}")[0], server.where.mqtt_port) for n in range(3)]
        for link in links:
            link.open()
        for _ in range(200):
            for link in links:
                kind, payload = link.device.message(window_of(BUNDLE))
                link.send(kind, payload, link.device.seq)
        kind, payload = links[0].device.message(Event(name="twice"))
        links[0].send(kind, payload, 201)
        links[0].send(kind, payload, 201)
        until(lambda: links[0].acks[-1:] == [("boot-1", 201)])
        until(lambda: all(link.acks[-1:] == [("boot-1", 200)] for link in links[1:]))
        for link in links:  # an Ack may overtake the PUBACKs of its own batch
            until(lambda link=link: link.pubacked == set(range(1, link.device.seq + 1)))
            link.close()
        assert server.stop() == 0
    with opened(folder, database) as store:
        stored = [(w.device, w.seq) for w in store.windows("digits", 0)]
        assert sorted(stored) == [(f"pi-{n}", seq) for n in range(3) for seq in range(1, 201)]
        assert [e.name for e in store.events() if e.device and e.name == "twice"] == ["twice"]
        assert {d.rows for d in store.devices()} == {2000}


def test_an_order_reaches_a_connected_device_at_once_and_a_later_one_when_it_subscribes(
    folder, database
):
    with started(folder, database) as server:
        device, trust = joined(server, "pi-1")
        with server.client() as fleet, linked(device, server.where.mqtt_port) as link:
            fleet.publish(make_bundle(KEY))
            until(lambda: fleet.devices()[0].health == "live")
            fleet.create_rollout("digits", "1", {"name": "all-at-once"})
            until(lambda: link.orders)
        with linked(device, server.where.mqtt_port) as again:
            until(lambda: again.orders)
        first, second = (
            open_assignment(found.orders[0], "pi-1", trust.director_key) for found in (link, again)
        )
        assert first == second
        assert first.digest == BUNDLE.digest


def test_everything_confirmed_is_in_the_database_after_a_kill(folder, database):
    with started(folder, database) as server:
        with server.client() as fleet:
            fleet.publish(make_bundle(KEY))
        device, _ = joined(server, "pi-1")
        link = Link(device, server.where.mqtt_port)
        link.open()
        window = window_of(BUNDLE)
        while len(link.mids) < 2000:
            for _ in range(50):
                kind, payload = device.message(window)
                link.send(kind, payload, device.seq)
            until(lambda: device.seq - len(link.mids) < 500)
        for _ in range(2000):  # more than is stored before the kill
            kind, payload = device.message(window)
            link.send(kind, payload, device.seq)
        server.kill()
        link.close()
        confirmed, acked = link.pubacked, link.acks[-1]
        assert device.seq > max(confirmed)
    with opened(folder, database) as store:
        stored = [w.seq for w in store.windows("digits", 0)]
        assert len(stored) == len(set(stored))
        assert confirmed <= set(stored)
        with store.transaction():
            [(_, stream)] = store.streams([("pi-1", "boot-1")]).values()
        assert acked[1] <= stream.contiguous == max(stored)
    with started(folder, database) as server, linked(device, server.where.mqtt_port) as link:
        device.seq = max(stored) - 10  # what was not confirmed comes again
        for _ in range(30):
            kind, payload = device.message(window)
            link.send(kind, payload, device.seq)
        until(lambda: link.acks[-1:] == [("boot-1", device.seq)])
        assert server.stop() == 0
    with opened(folder, database) as store:
        assert [w.seq for w in store.windows("digits", 0)] == list(range(1, device.seq + 1))


def test_a_backup_under_load_holds_all_that_was_confirmed_before_it(folder, database, request):
    in_postgres = request.getfixturevalue("postgres") if isinstance(database, str) else None
    stop, window = threading.Event(), packed(window_of(BUNDLE), BUNDLE.baseline)
    with started(folder, database) as server:
        with server.client() as fleet:
            fleet.publish(make_bundle(KEY))
        device, _ = joined(server, "pi-1")
        with linked(device, server.where.mqtt_port) as link:

            def load():
                while not stop.is_set():
                    for _ in range(20):
                        kind, payload = device.message(window)
                        link.send(kind, payload, device.seq)
                    until(lambda: device.seq - len(link.mids) < 200)

            loading = threading.Thread(target=load)
            loading.start()
            try:
                until(lambda: link.acks and link.acks[-1][1] > 300)
                _, confirmed = link.acks[-1]
                dump = in_postgres.dump(database) if in_postgres else ""
                backup(folder / "data", folder / "b.tar")
                count = len(link.mids)
                until(lambda: len(link.mids) > count)  # nothing had to stop for it
            finally:
                stop.set()
                loading.join()
        restore(folder / "b.tar", folder / "again" / "data", NOW)
    again = in_postgres.restored(dump) if in_postgres else ""
    with opened(folder / "again", again or database) as store:
        stored = [w.seq for w in store.windows("digits", 0)]
        assert stored[:confirmed] == list(range(1, confirmed + 1))
        assert len(stored) == len(set(stored)) < device.seq
        sums = store.rollups("digits", "day", 0)
        assert sum(day.sums.windows for day in sums) == len(stored)
    if in_postgres:
        in_postgres.drop(again)
