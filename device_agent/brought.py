"""Rows that others bring: an MQTT topic, HTTP posts, a Python callable.

A row is a JSON array of numbers (or an object with one under `values`), or the bytes of an .npy.
"""

import io
import json
import sys
import threading
from collections.abc import Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion

from device_agent.feed import Produce, Put
from edge_sdk.channels import Array
from edge_sdk.errors import InvalidInputError

MAX_ROW = 16 * 1024 * 1024  # bytes


def read_row(payload: bytes) -> Array:
    """A row from its bytes; raises InvalidInputError."""
    try:
        if payload.startswith(b"\x93NUMPY"):
            found: Array = np.load(io.BytesIO(payload), allow_pickle=False)
            return found
        values = json.loads(payload)
        values = values["values"] if isinstance(values, dict) else values
        row = np.array(values, np.float32)
    except (ValueError, TypeError, KeyError, EOFError, OSError, RecursionError) as error:
        raise InvalidInputError(f"a row must be a JSON array or an .npy: {error}") from error
    if not row.ndim:
        raise InvalidInputError("a row must be an array, not one number")
    return row


def mqtt_topic(url: str) -> Produce:
    """Rows published to `mqtt://[user:password@]host[:port]/topic`."""
    parts = urlsplit(url)
    topic = parts.path.lstrip("/")
    if not parts.hostname or not topic:
        raise InvalidInputError(f"source {url!r} must be mqtt://host/topic")

    def produce(put: Put, stop: threading.Event) -> None:
        def came(_client: Client, _data: object, message: MQTTMessage) -> None:
            if len(message.payload) > MAX_ROW:
                return
            try:
                put(read_row(bytes(message.payload)), message.topic)
            except InvalidInputError:  # counted as a row that fits no schema
                put(np.zeros((), np.float32), message.topic)

        lost = threading.Event()
        client = Client(CallbackAPIVersion.VERSION2)
        if parts.username:
            client.username_pw_set(parts.username, parts.password)
        client.on_connect = lambda c, *_: c.subscribe(topic)
        client.on_disconnect = lambda *_: lost.set()
        client.on_message = came
        client.connect(parts.hostname or "", parts.port or 1883)
        client.loop_start()
        try:
            while not stop.wait(0.1):
                if lost.is_set():
                    raise OSError(f"the broker {parts.hostname} is gone")
        finally:
            client.disconnect()
            client.loop_stop()

    return produce


def http_posts(url: str) -> Produce:
    """Rows posted to `http://address:port`, where this device then listens."""
    parts = urlsplit(url)
    if not parts.hostname or parts.port is None:
        raise InvalidInputError(f"source {url!r} must be http://127.0.0.1:PORT, to listen there")
    where = (parts.hostname, parts.port)

    def produce(put: Put, stop: threading.Event) -> None:
        class Answer(BaseHTTPRequestHandler):
            timeout = 10.0

            def do_POST(self) -> None:
                length = self.headers.get("Content-Length", "")
                if not length.isdigit() or int(length) > MAX_ROW:
                    self.send_error(413, f"a row may have {MAX_ROW} bytes")
                    return
                try:
                    put(read_row(self.rfile.read(int(length))), self.headers.get("X-Name", ""))
                except InvalidInputError as error:
                    self.send_error(400, str(error))
                    return
                self.send_response(202)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Nobody reads a line a row."""

        with ThreadingHTTPServer(where, Answer) as server:
            server.daemon_threads = True
            thread = threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True)
            thread.start()
            stop.wait()
            server.shutdown()

    return produce


def python_rows(where: str) -> Produce:
    """Rows that `module:name` gives: an iterable of them, or a function called again and again."""
    module, colon, name = where.partition(":")
    if not colon or not module or not name:
        raise InvalidInputError(f"source python:{where} must be python:module:name")

    def produce(put: Put, stop: threading.Event) -> None:
        if str(Path.cwd()) not in sys.path:
            sys.path.insert(0, str(Path.cwd()))
        try:
            found = getattr(import_module(module), name)
        except (ImportError, AttributeError) as error:
            raise InvalidInputError(f"{module}:{name} can't be imported: {error}") from error
        made = found() if callable(found) else found
        if isinstance(made, Iterable) and not isinstance(made, np.ndarray):
            for row in made:
                if stop.is_set():
                    return
                put(np.asarray(row))
            return
        while not stop.is_set():
            put(np.asarray(made))
            made = found()

    return produce
