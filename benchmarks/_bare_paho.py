"""The peer of `ingest`: a bare paho subscriber that decodes, inserts, and then acknowledges.

`python -m benchmarks._bare_paho PORT DATABASE COUNT` prints `ready`, then the seconds from the
first message to the commit that made COUNT rows. SQLite with synchronous FULL and a unique key,
nothing else: no HMAC, no check, no roll-up.
"""

import sqlite3
import sys
import threading
import time

import msgspec
import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from edge_sdk.messages import Sealed, Window

BATCH = 500
IN_FLIGHT = 5000
QUIET = 0.05


def main() -> None:
    port, path, wanted = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA synchronous=FULL")
    database.execute(
        "CREATE TABLE w (device TEXT, boot TEXT, seq INT, at REAL, model TEXT, version TEXT, "
        "rows INT, body BLOB, UNIQUE (device, boot, seq))"
    )
    sealed, window = msgspec.msgpack.Decoder(Sealed), msgspec.msgpack.Decoder(Window)
    lock, waiting, began = threading.Lock(), [], []

    def message(_client: object, _data: object, found: mqtt.MQTTMessage) -> None:
        if not began:
            began.append(time.perf_counter())
        with lock:
            waiting.append(found)

    properties = Properties(PacketTypes.CONNECT)
    properties.ReceiveMaximum = IN_FLIGHT
    client = mqtt.Client(
        mqtt.CallbackAPIVersion.VERSION2, "bare", protocol=mqtt.MQTTv5, manual_ack=True
    )
    client.max_inflight_messages_set(IN_FLIGHT)
    client.on_message = message
    client.on_subscribe = lambda *_: print("ready", flush=True)
    client.connect("127.0.0.1", port, properties=properties)
    client.subscribe("edge/1/+/telemetry", 1)
    client.loop_start()
    stored = 0
    while stored < wanted:
        with lock:
            batch, waiting[:] = waiting[:BATCH], waiting[BATCH:]
        if not batch:
            time.sleep(QUIET / 50)
            continue
        rows = []
        for found in batch:
            outer = sealed.decode(found.payload)
            inner = window.decode(outer.body)
            rows.append(
                (outer.device, outer.boot, outer.seq, outer.wall, inner.model, inner.version,
                 inner.rows, outer.body)
            )  # fmt: skip
        database.execute("BEGIN IMMEDIATE")
        database.executemany("INSERT OR IGNORE INTO w VALUES (?,?,?,?,?,?,?,?)", rows)
        database.execute("COMMIT")
        for found in batch:
            client.ack(found.mid, found.qos)
        stored += len(batch)
    print(time.perf_counter() - began[0], flush=True)
    client.loop_stop()
    client.disconnect()


if __name__ == "__main__":
    main()
