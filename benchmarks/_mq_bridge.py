"""A peer of `ingest-broker`: mq-bridge (Rust), from MQTT into SQLite, payloads as they come.

`python _mq_bridge.py PORT DATABASE`, in an environment of its own, prints `ready` and runs until
its standard input ends. It acknowledges after the commit; it looks at nothing and knows no key.
"""

import sys

from mq_bridge import Route


def main() -> None:
    port, database = sys.argv[1:]
    source = {
        "url": f"mqtt://127.0.0.1:{port}",
        "topic": "edge/1/+/telemetry",
        "client_id": "mq-bridge",
        "protocol": "v5",
        "qos": 1,
        "delayed_ack": True,
        "max_inflight": 5000,
        "queue_capacity": 5000,
    }
    table = {"url": f"sqlite://{database}?mode=rwc", "table": "messages", "auto_create_table": True}
    route = Route.from_config(
        {"input": {"mqtt": source}, "output": {"sqlx": table}, "batch_size": 2000}
    )
    route.start()
    print("ready", flush=True)
    sys.stdin.read()
    route.stop()


if __name__ == "__main__":
    main()
