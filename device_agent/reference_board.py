"""A board in software: the other end of `serial_protocol`, with the real TFLite Micro interpreter.

`python -m device_agent.reference_board PORT FOLDER` answers on a serial port or pseudo terminal;
FOLDER is its flash: two slots, and what is active. With a sensor, `PORT FOLDER ROWS.npz SECONDS
SCALE`, it also tells a row every so often and what it answers to that by itself; the model takes
`row * SCALE`. Firmware does the same in C++; needs the `tflite-micro` package (x86-64 Linux).
SIGKILL is its reset button.
"""

import hashlib
import os
import select
import sys
from itertools import cycle
from pathlib import Path
from time import monotonic, perf_counter

import numpy as np

from device_agent.frames import Deframer, encode_frame
from device_agent.serial_protocol import CHUNK, SHORT, VERSION, Counters, Kind, Packet, Result
from device_agent.sources import read_rows
from edge_sdk.channels import Array
from edge_sdk.errors import FormatError

MAX_MODEL = 1024 * 1024
SLOTS = 2


class ReferenceBoard:
    """Answers packets; `flash` keeps what a board keeps over a reset."""

    def __init__(self, flash: Path) -> None:
        self._flash = flash
        flash.mkdir(parents=True, exist_ok=True)
        self._interpreters: dict[bytes, object] = {}
        self._deframer = Deframer()
        self._rows = self._errors = self._sensed = 0
        self._resets = int(self._read("resets") or b"0") + 1
        self._write("resets", str(self._resets).encode())
        self._coming: tuple[bytes, int] | None = None
        self._last = Packet(Kind.FAILED, 0, reply=True)

    def feed(self, data: bytes) -> bytes:
        """Bytes from the line; the bytes to answer with."""
        out = b""
        for payload in self._deframer.feed(data):
            try:
                asked = Packet.decode(payload)
            except FormatError:
                continue
            if not asked.reply:
                if asked.number != self._last.number:
                    self._last = self._answered(asked)
                out += encode_frame(self._last.encode())
        return out

    def wake(self) -> bytes:
        """What it says first."""
        return _unasked(Kind.COUNTERS, self._counters())

    def sense(self, row: Array, scale: float) -> bytes:
        """Its sensor gave a row: what it tells of that."""
        self._sensed += 1
        model, took, output = (self._read("active") or bytes(SHORT))[:SHORT], 0, b""
        if any(model):
            details = self._loaded(model).get_input_details(0)
            given, stored = row.astype(np.float32) * np.float32(scale), details["dtype"]
            if np.dtype(stored).kind == "i":
                parameters = details["quantization_parameters"]
                step, zero = parameters["scales"][0], parameters["zero_points"][0]
                limits = np.iinfo(stored)
                given = np.clip(np.round(given / step) + zero, limits.min, limits.max)
            answer = self._run(model, given.astype(stored).tobytes())
            took, output = int.from_bytes(answer[:4], "little"), answer[4:]
        values = row.astype("<f4").tobytes()
        result = Result(model, self._sensed, took, values, output)
        return _unasked(Kind.RESULT, result.encode())

    def _counters(self) -> bytes:
        active = self._read("active") or bytes(32)
        damaged = self._deframer.damaged
        return Counters(self._rows, self._errors, damaged, self._resets, active).encode()

    def _answered(self, asked: Packet) -> Packet:
        try:
            return Packet(asked.kind, asked.number, self._do(asked.kind, asked.body), reply=True)
        except (ValueError, RuntimeError, OSError) as error:
            words = (str(error).splitlines() or ["it failed"])[0].encode()[:200]
            return Packet(Kind.FAILED, asked.number, words, reply=True)

    def _do(self, kind: Kind, body: bytes) -> bytes:
        match kind:
            case Kind.HELLO:
                return bytes([VERSION, SLOTS]) + CHUNK.to_bytes(2, "little")
            case Kind.BEGIN:
                return self._begin(body[:32], int.from_bytes(body[32:], "little"))
            case Kind.DATA:
                return self._data(int.from_bytes(body[:4], "little"), body[4:])
            case Kind.COMMIT:
                self._model(body)
                self._write("active", body)
                return b""
            case Kind.RUN:
                return self._run(body[:SHORT], body[SHORT:])
            case Kind.COUNTERS:
                return self._counters()
            case Kind.FAILED | Kind.RESULT:
                raise ValueError("that is no request")

    def _begin(self, digest: bytes, length: int) -> bytes:
        if not 0 < length <= MAX_MODEL:
            raise ValueError(f"a model may have {MAX_MODEL} bytes, not {length}")
        self._coming = (digest, length)
        if self._slot(digest).exists():
            return length.to_bytes(4, "little")
        part = self._part(digest)
        for other in self._flash.glob("*.part"):
            if other != part:
                other.unlink()
        return (part.stat().st_size if part.exists() else 0).to_bytes(4, "little")

    def _data(self, offset: int, data: bytes) -> bytes:
        if self._coming is None:  # it was reset: the gateway shall begin again
            return (0).to_bytes(4, "little")
        digest, length = self._coming
        part = self._part(digest)
        here = part.stat().st_size if part.exists() else 0
        if self._slot(digest).exists():
            return length.to_bytes(4, "little")
        if offset == here and offset + len(data) <= length:
            with part.open("ab") as opened:
                opened.write(data)
                opened.flush()
                os.fsync(opened.fileno())
            here += len(data)
        if here == length:
            if hashlib.sha256(part.read_bytes()).digest() != digest:
                part.unlink()
                return (0).to_bytes(4, "little")
            if part.read_bytes()[4:8] != b"TFL3":  # the interpreter would crash, and this board
                part.unlink()
                raise ValueError("that is no TFLite model")
            self._make_room()
            part.replace(self._slot(digest))
        return here.to_bytes(4, "little")

    def _make_room(self) -> None:
        """The oldest model that is not active leaves its slot."""
        active = (self._read("active") or b"").hex()
        models = sorted(self._flash.glob("*.tflite"), key=lambda path: path.stat().st_mtime_ns)
        for path in models[: max(0, len(models) - SLOTS + 2)]:
            if path.stem != active and len(list(self._flash.glob("*.tflite"))) >= SLOTS:
                self._interpreters.pop(bytes.fromhex(path.stem)[:SHORT], None)
                path.unlink()

    def _run(self, short: bytes, given: bytes) -> bytes:
        interpreter = self._loaded(short)
        details = interpreter.get_input_details(0)
        values = np.frombuffer(given, details["dtype"])
        begun = perf_counter()
        try:
            interpreter.set_input(values.reshape(details["shape"]), 0)
            interpreter.invoke()
            output: bytes = interpreter.get_output(0).tobytes()
        except (ValueError, RuntimeError):
            self._errors += 1
            raise
        self._rows += 1
        took = min(int((perf_counter() - begun) * 1e6), 2**32 - 1)
        return took.to_bytes(4, "little") + output

    def _loaded(self, short: bytes):  # type: ignore[no-untyped-def]  # noqa: ANN202 - of tflite-micro
        from tflite_micro import runtime

        if short not in self._interpreters:
            found = [p for p in self._flash.glob("*.tflite") if p.stem.startswith(short.hex())]
            if not found:
                raise ValueError("there is no such model here")
            self._interpreters[short] = runtime.Interpreter.from_bytes(found[0].read_bytes())
        return self._interpreters[short]

    def _model(self, digest: bytes) -> Path:
        if not self._slot(digest).exists():
            raise ValueError("there is no such model here")
        return self._slot(digest)

    def _slot(self, digest: bytes) -> Path:
        return self._flash / f"{digest.hex()}.tflite"

    def _part(self, digest: bytes) -> Path:
        return self._flash / f"{digest.hex()}.part"

    def _read(self, name: str) -> bytes:
        path = self._flash / name
        return path.read_bytes() if path.exists() else b""

    def _write(self, name: str, data: bytes) -> None:
        part = self._flash / f".{name}"
        part.write_bytes(data)
        part.replace(self._flash / name)


def _unasked(kind: Kind, body: bytes) -> bytes:
    return encode_frame(Packet(kind, 0, body, reply=True).encode())


def main(port: str, flash: str, sensor: str = "", seconds: str = "1", scale: str = "1") -> None:
    """Answer until the line is gone."""
    board, line = ReferenceBoard(Path(flash)), os.open(port, os.O_RDWR | os.O_NOCTTY)
    rows = cycle(read_rows(Path(sensor))) if sensor else None
    _say(line, b"\0" + board.wake())
    due = monotonic() + float(seconds)
    while True:
        wait = None if rows is None else max(0.0, due - monotonic())
        if select.select([line], [], [], wait)[0]:
            data = os.read(line, 4096)
            if not data:
                return
            _say(line, board.feed(data))
        if rows is not None and monotonic() >= due:
            due += float(seconds)
            _say(line, board.sense(next(rows), float(scale)))


def _say(line: int, answer: bytes) -> None:
    while answer:
        answer = answer[os.write(line, answer) :]


if __name__ == "__main__":
    main(*sys.argv[1:])
