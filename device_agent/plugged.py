"""What is plugged into the device: cameras, a microphone, a sensor on a serial line.

Each function gives what a `Feed` runs. Libraries are imported when a source begins to work, so a
missing one is told in a sentence and hurts nobody who does not use it.
"""

import json
import threading
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Protocol

import numpy as np

from device_agent.feed import Produce, Put
from device_agent.frames import Deframer
from device_agent.media import Look
from edge_sdk.channels import Array
from edge_sdk.errors import EdgeError, InvalidInputError

MAX_LINE = 64 * 1024  # bytes without a line's end: noise, or a wrong baud rate


def _needs(module: str, what: str, extra: str) -> ModuleType:
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise EdgeError(f"{what} needs {module} ({error}): {extra}") from error
    except OSError as error:  # sounddevice without PortAudio
        raise EdgeError(f"{what} needs a library ({error}): apt install libportaudio2") from error


def camera(where: str, look: Look, fps: float) -> Produce:
    """A camera that OpenCV can open, by number, device or video file; uint8 (height, width, 3)."""

    def produce(put: Put, stop: threading.Event) -> None:
        cv2 = _needs("cv2", "a camera", "pip install 'edge-deployment-sdk[camera]'")
        opened = cv2.VideoCapture(int(where) if where.isdigit() else where)
        try:
            if not opened.isOpened():
                raise InvalidInputError(f"camera {where} can't be opened")
            if fps:
                opened.set(cv2.CAP_PROP_FPS, fps)
            opened.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # an old picture is worth less than none
            code = cv2.COLOR_BGR2GRAY if look.colours == 1 else cv2.COLOR_BGR2RGB
            while not stop.is_set():
                good, frame = opened.read()
                if not good:
                    return
                if look.width:
                    size = (look.width, look.height)
                    frame = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
                pixels = cv2.cvtColor(frame, code)
                put(pixels.reshape(*pixels.shape[:2], look.colours))
        finally:
            opened.release()

    return produce


def picamera(where: str, look: Look) -> Produce:
    """A Raspberry Pi's own camera, by number; uint8 (height, width, colours)."""

    def produce(put: Put, stop: threading.Event) -> None:
        module = _needs("picamera2", "a Pi camera", "apt install python3-picamera2")
        with module.Picamera2(int(where)) as opened:
            size = (look.width or 640, look.height or 480)
            wanted = {"format": "BGR888", "size": size}  # libcamera's name for RGB in memory
            opened.configure(opened.create_video_configuration(main=wanted, buffer_count=2))
            opened.start()
            while not stop.is_set():
                pixels: Array = opened.capture_array("main")[..., :3]
                if look.colours == 1:
                    pixels = pixels.mean(axis=2, keepdims=True).astype(np.uint8)
                put(pixels)

    return produce


def microphone(where: str, rate: int, window: int, hop: int) -> Produce:
    """Windows of sound, float32 (samples,) of -1..1, from a device by name or `default`."""

    def produce(put: Put, stop: threading.Event) -> None:
        sound = _needs("sounddevice", "a microphone", "pip install 'edge-deployment-sdk[audio]'")
        heard = np.zeros(0, np.float32)
        device = None if where == "default" else where
        try:
            with sound.InputStream(rate, hop, device, channels=1, dtype="float32") as opened:
                while not stop.is_set():
                    block, _ = opened.read(hop)
                    heard = np.append(heard, block[:, 0])[-window:]
                    if len(heard) == window:
                        put(heard.copy())
        except (sound.PortAudioError, ValueError) as error:  # none there, taken away, no such name
            raise EdgeError(f"microphone {where} gives nothing: {error}") from error

    return produce


class Reader(Protocol):
    """Takes bytes as they come and gives the rows that they complete."""

    def feed(self, data: bytes) -> list[Array]: ...


class Lines:
    """A row a line; what is no row (a boot message, noise) is left out and counted."""

    def __init__(self, row: Callable[[str], Array | None]) -> None:
        self._row, self._begun = row, b""
        self.damaged = 0

    def feed(self, data: bytes) -> list[Array]:
        """The rows that ended with these bytes."""
        *ended, self._begun = (self._begun + data).split(b"\n")
        if len(self._begun) > MAX_LINE:
            self._begun = b""
            self.damaged += 1
        found = []
        for line in ended:
            text = line.decode(errors="replace").strip()
            row = self._row(text) if text else None
            if row is not None:
                found.append(row)
            elif text:
                self.damaged += 1
        return found


class Frames:
    """A row a COBS frame: little-endian float32 values with a CRC-32."""

    def __init__(self) -> None:
        self._deframer = Deframer()

    def feed(self, data: bytes) -> list[Array]:
        """The rows that ended with these bytes."""
        payloads = self._deframer.feed(data)
        return [np.frombuffer(p, "<f4") for p in payloads if p and len(p) % 4 == 0]


def _json_lines(columns: tuple[str, ...]) -> Reader:
    def row(text: str) -> Array | None:
        try:
            found = json.loads(text)
            values = [found[name] for name in columns] if isinstance(found, dict) else found
            made = np.array(values, np.float32)
        except (ValueError, TypeError, KeyError, RecursionError):
            return None
        return made if made.ndim else None

    return Lines(row)


def _csv_lines(_columns: tuple[str, ...]) -> Reader:
    def row(text: str) -> Array | None:
        try:
            return np.array([float(cell or "nan") for cell in text.split(",")], np.float32)
        except ValueError:
            return None

    return Lines(row)


READERS: dict[str, Callable[[tuple[str, ...]], Reader]] = {
    "json": _json_lines,
    "csv": _csv_lines,
    "cobs": lambda _columns: Frames(),
}


def serial_sensor(port: str, baud: int, reader: Reader) -> Produce:
    """A sensor on a serial line (or a pyserial URL), float32 (columns,) a row."""

    def produce(put: Put, stop: threading.Event) -> None:
        serial = _needs("serial", "a serial line", "pip install 'edge-deployment-sdk[serial]'")
        with serial.serial_for_url(port, baud, timeout=0.2) as opened:
            while not stop.is_set():
                data = opened.read(1)
                for row in reader.feed(data + opened.read(opened.in_waiting)):
                    put(row)

    return produce
