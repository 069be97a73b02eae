"""A microcontroller on a serial line as an interpreter: models are delivered, tested and run there.

Requests are repeated until they are answered, so that noise, lost bytes and a reset in the middle
of a delivery cost time only; a delivery goes on where the board's own storage ends.
"""

import secrets
import struct
import threading
from collections import deque
from importlib import import_module
from time import monotonic
from typing import Protocol

import numpy as np

from device_agent.frames import Deframer, encode_frame
from device_agent.serial_protocol import (
    CHUNK,
    SHORT,
    VERSION,
    Counters,
    Kind,
    Packet,
    Result,
)
from edge_sdk.bundle import KernelFamily, Manifest
from edge_sdk.channels import Array
from edge_sdk.errors import EdgeError, FormatError, NotConvertibleError, RefusedError
from edge_sdk.files import sha256
from edge_sdk.interpreter import Prepared, Scores, dequantise

TIMEOUT = 0.5  # seconds until a request is repeated; a board may take longer to answer the last one
TRIES = 20
RESTARTS = 20  # of a delivery, by resets of the board
ROOM = 1024  # results of the board's own that may wait


class Port(Protocol):
    """What is needed of pyserial."""

    def read(self, size: int) -> bytes: ...
    def write(self, data: bytes) -> object: ...
    def close(self) -> None: ...
    @property
    def in_waiting(self) -> int: ...


class SilentBoardError(EdgeError):
    """The board does not answer."""


class Board:
    """One board; used by one thread at a time, which it sees to itself."""

    def __init__(self, port: Port) -> None:
        self._port, self._deframer = port, Deframer()
        self._number = secrets.randbelow(0xFFFF)  # not the last one of the process before
        self._active: bytes | None = None
        self._lock = threading.RLock()
        self._heard: deque[Result] = deque()
        self._count = self._missed = 0
        self.counted: Counters | None = None  # as the board said last

    @classmethod
    def open(cls, path: str, baud: int) -> "Board":
        """The board behind a serial port; raises EdgeError if there is none."""
        try:
            serial = import_module("serial")
        except ModuleNotFoundError as error:
            raise EdgeError(
                "a board on a serial line needs pyserial: pip install 'edge-deployment-sdk[serial]'"
            ) from error
        try:
            return cls(serial.Serial(path, baud, timeout=0.05))
        except (OSError, ValueError) as error:
            raise EdgeError(f"the board's port {path} can't be opened: {error}") from error

    def deliver(self, model: bytes) -> bytes:
        """Bring a model onto the board, from where an earlier try ended; its SHA-256.

        Raises:
            RefusedError: the board does not take it, in its words.
            SilentBoardError: it does not answer.
        """
        digest = bytes.fromhex(sha256(model))
        with self._lock:
            chunk = self._hello()
            for _ in range(RESTARTS):
                begin = struct.pack("<32sI", digest, len(model))
                offset = self._offset(self._ask(Kind.BEGIN, begin), len(model))
                while offset < len(model):
                    part = model[offset : offset + chunk]
                    body = self._ask(Kind.DATA, struct.pack("<I", offset) + part)
                    after = self._offset(body, len(model))
                    if after != offset + len(part):
                        break  # it was reset, or found the whole damaged: ask what it has
                    offset = after
                else:
                    return digest
        raise SilentBoardError(f"the board lost the model {RESTARTS} times on its way")

    def run(self, digest: bytes, given: bytes) -> tuple[bytes, int]:
        """One inference of a delivered model: its output and microseconds.

        Raises:
            RefusedError: the board has no such model, or it failed.
            SilentBoardError: it does not answer.
        """
        body = self._ask(Kind.RUN, digest[:SHORT] + given)
        if len(body) < 4:
            raise FormatError("a board's answer is too short")
        return body[4:], int.from_bytes(body[:4], "little")

    def commit(self, digest: bytes) -> None:
        """Let this model answer from now on, also after a reset; nothing if it does already."""
        with self._lock:
            if self._active != digest:
                self._ask(Kind.COMMIT, digest)
                self._active = digest

    def counters(self) -> Counters:
        """What the board counted; raises SilentBoardError, FormatError."""
        self.counted = Counters.decode(self._ask(Kind.COUNTERS, b""))
        return self.counted

    @property
    def resets(self) -> str:
        """How often it was reset, in words, since it last said so; "" if it never did."""
        found = self.counted
        if found is None:
            return ""
        return (
            f"the board was reset, {found.resets} times since it was made; it counts "
            f"{found.rows} rows, {found.errors} errors and {found.damaged} damaged frames"
        )

    def listen(self, *, wait: bool) -> bool:
        """Take in what the board says unasked, unless it is busy with a request.

        Returns whether it listened; if it may `wait`, for no longer than the port's timeout.

        Raises:
            OSError: the port failed.
        """
        if not self._lock.acquire(blocking=False):
            return False
        try:
            for packet in self._packets(wait=wait):
                self._overhear(packet)
        finally:
            self._lock.release()
        return True

    def heard(self, limit: int) -> tuple[list[Result], int]:
        """Results that came unasked, the oldest first, and how many were missed before them."""
        missed, self._missed = self._missed, 0
        found: list[Result] = []
        while self._heard and len(found) < limit:
            found.append(self._heard.popleft())
        return found, missed

    def close(self) -> None:
        """Let go of the port."""
        self._port.close()

    def _hello(self) -> int:
        """The bytes that it takes in one frame."""
        body = self._ask(Kind.HELLO, bytes([VERSION]))
        if len(body) != 4 or body[0] != VERSION:
            raise RefusedError(f"the board speaks another version of the protocol: {body.hex()}")
        return max(1, min(CHUNK, int.from_bytes(body[2:], "little")))

    def _offset(self, body: bytes, length: int) -> int:
        found = int.from_bytes(body, "little")
        if len(body) != 4 or found > length:
            raise FormatError("a board's offset can't be")
        return found

    def _ask(self, kind: Kind, body: bytes) -> bytes:
        with self._lock:
            self._number = self._number % 0xFFFF + 1
            request = encode_frame(Packet(kind, self._number, body).encode())
            for _ in range(TRIES):
                try:
                    self._port.write(b"\0" + request)  # a fresh start, whatever came before
                    answer = self._answer(kind)
                except OSError as error:
                    raise SilentBoardError(f"the board's port failed: {error}") from error
                if answer is not None:
                    if answer.kind is Kind.FAILED:
                        words = answer.body.decode(errors="replace")[:200]
                        raise RefusedError(f"the board says: {words}")
                    return answer.body
        raise SilentBoardError(f"the board did not answer {kind.name} in {TRIES} tries")

    def _answer(self, kind: Kind) -> Packet | None:
        deadline = monotonic() + TIMEOUT
        found: Packet | None = None
        while found is None and monotonic() < deadline:
            for packet in self._packets(wait=True):
                asked = packet.number == self._number and packet.kind in (kind, Kind.FAILED)
                if asked and packet.reply:
                    found = packet
                else:
                    self._overhear(packet)
        return found

    def _packets(self, *, wait: bool) -> list[Packet]:
        """What the line brings now, or else within the port's timeout."""
        data = self._port.read(1) if wait else b""
        found = []
        for payload in self._deframer.feed(data + self._port.read(self._port.in_waiting)):
            try:
                found.append(Packet.decode(payload))
            except FormatError:
                self._deframer.damaged += 1
        return found

    def _overhear(self, packet: Packet) -> None:
        """Keep what nobody asked for, in order; a late reply to an earlier request is let go."""
        if packet.number or not packet.reply:
            return
        try:
            if packet.kind is Kind.COUNTERS:
                self.counted = Counters.decode(packet.body)
            elif packet.kind is Kind.RESULT:
                self._keep(Result.decode(packet.body))
        except FormatError:
            self._deframer.damaged += 1

    def _keep(self, result: Result) -> None:
        after = self._count if result.count > self._count else 0  # it was reset
        self._missed += result.count - after - 1
        self._count = result.count
        if len(self._heard) >= ROOM:
            self._heard.popleft()
            self._missed += 1
        self._heard.append(result)


class OnBoard:
    """A delivered model as the agent's interpreter (`edge_sdk.interpreter.Interpreter`).

    The first row it is given makes it the one that answers: so a switch and the way back are both
    a COMMIT, and the model before stays in the other slot.
    """

    family: KernelFamily = "builtin"  # TFLite Micro's reference kernels
    embedding = None  # what it has inside does not travel over the line

    def __init__(self, board: Board, model: bytes, manifest: Manifest) -> None:
        self._board, self._manifest = board, manifest
        self._prepared = Prepared(manifest.preprocessing, manifest.model_input)
        self._digest = board.deliver(model)
        self.testing = True

    @property
    def description(self) -> str:
        return "tflite-micro/board"

    def prepare(self, rows: Array) -> Array:
        """Input tensors (n, 1, *shape) of raw rows (n, *shape)."""
        return self._prepared(rows)[:, np.newaxis]

    def infer(self, prepared: Array) -> Array:
        """The stored answer (1, classes) of one input tensor (1, *shape).

        Raises:
            RuntimeError: the board is silent, or the model failed there.
        """
        spec = self._manifest.model_output
        try:
            if not self.testing:
                self._board.commit(self._digest)
            output, _ = self._board.run(self._digest, np.ascontiguousarray(prepared).tobytes())
            return np.frombuffer(output, spec.dtype).reshape(1, -1)
        except (EdgeError, ValueError) as error:
            raise RuntimeError(str(error)) from error

    def embedded(self) -> Array:
        """Never asked for: it has no embedding."""
        raise NotConvertibleError("a board's embedding is not read")

    def scores(self, stored: Array) -> Scores:
        """Real scores (n, classes) of stored answers (n, classes)."""
        return dequantise(stored, self._manifest.model_output)


def put_on(board: Board, model: bytes, manifest: Manifest) -> OnBoard:
    """The model on the board, ready for its self-test; raises EdgeError in words."""
    if manifest.reconstructs:
        raise NotConvertibleError("a model that reconstructs its input is not run on a board yet")
    return OnBoard(board, model, manifest)
