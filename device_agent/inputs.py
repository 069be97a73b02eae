"""Where a model's rows come from, said in one line: `KIND:WHERE?option=value&…`.

npz:rows.npz  csv:rows.csv  folder:pictures  wav:noise.wav     recordings, at rows_per_second
camera:0  picamera:0  microphone:default  serial:/dev/ttyUSB0  what is plugged in
board:results                                                  what the board on [device] port says
mqtt://host/topic  http://127.0.0.1:8090  python:module:name   what others bring
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypeVar
from urllib.parse import parse_qsl, urlencode

import msgspec

from device_agent import brought, media, plugged
from device_agent.board import Board
from device_agent.feed import ROOM, Feed, Produce
from device_agent.sources import NpzReplay, Paced, Replay, Source, read_rows
from device_agent.told import BoardSource
from edge_sdk.errors import InvalidInputError

Kind = TypeVar("Kind", bound=msgspec.Struct)
BOARD = "board"
FILES = ("npz", "csv", "folder", "wav")  # `where` is a path


class _Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What every kind takes: rows that may wait, of a source that comes when it comes."""

    queue: int = ROOM


class _Seeded(_Options, frozen=True):
    """A recording is shuffled by `seed`."""

    seed: int = 0


class Pictures(_Options, frozen=True):
    """`size` as WIDTHxHEIGHT; pictures of another size are scaled."""

    size: str = ""
    colour: Literal["rgb", "grey"] = "rgb"
    fps: float = 0.0

    @property
    def look(self) -> media.Look:
        return media.Look.parse(self.size, self.colour)


class Sound(_Options, frozen=True):
    """Windows of so many samples, a new one every `hop`; 0 is no overlap."""

    window: int = 16_000
    hop: int = 0
    rate: int = 16_000


class _Serial(_Options, frozen=True):
    """A line of JSON or CSV is a row, or a COBS frame of little-endian float32 with a CRC."""

    baud: int = 115_200
    format: Literal["json", "csv", "cobs"] = "json"
    columns: str = ""  # of a JSON object, with commas between


class Spec(msgspec.Struct, frozen=True):
    """The line, taken apart."""

    kind: str
    where: str
    options: dict[str, str] = {}

    @classmethod
    def parse(cls, line: str) -> "Spec":
        """Raises InvalidInputError.

        >>> Spec.parse("serial:/dev/ttyUSB0?baud=9600")
        Spec(kind='serial', where='/dev/ttyUSB0', options={'baud': '9600'})
        """
        kind, colon, rest = line.partition(":")
        where, _, query = rest.partition("?")
        if not colon or not where or kind not in (BOARD, *KINDS):
            raise InvalidInputError(
                f"source {line!r} must look like KIND:WHERE, where KIND is one of "
                f"{', '.join(sorted([BOARD, *KINDS]))}"
            )
        return cls(kind, where, dict(parse_qsl(query, keep_blank_values=True)))

    def options_as(self, kind: type[Kind]) -> Kind:
        """Raises InvalidInputError for an option that is unknown or of a wrong type."""
        try:
            return msgspec.convert(self.options, kind, strict=False)
        except msgspec.ValidationError as error:
            raise InvalidInputError(f"source {self.kind}:{self.where}: {error}") from error

    def rooted(self, folder: Path) -> str:
        """The line again, with a relative path starting at `folder`."""
        where = str(folder / self.path) if self.path else self.where
        return f"{self.kind}:{where}" + (f"?{urlencode(self.options)}" if self.options else "")

    @property
    def path(self) -> Path | None:
        """The file or folder it reads, if that is what `where` is."""
        return Path(self.where).expanduser() if self.kind in FILES else None


def open_source(
    line: str,
    rows_per_second: float,
    now: Callable[[], float] = time.monotonic,
    board: Board | None = None,
) -> Source:
    """The source that a line describes, at work.

    Raises:
        InvalidInputError: not such a line, an unknown option, a file that can't be read, results of
            a board where there is none.
        EdgeError: a library that it needs is not installed.
    """
    spec = Spec.parse(line)
    if spec.kind == BOARD:
        if board is None:
            raise InvalidInputError(f"source {line!r} needs a board: give [device] port")
        return BoardSource(board)
    found = KINDS[spec.kind](spec)
    if isinstance(found, _Live):
        return Feed(line, found.produce, found.room)
    return Paced(found, rows_per_second, now)


class _Live(msgspec.Struct, frozen=True):
    produce: Produce
    room: int


def _npz(spec: Spec) -> Replay:
    return NpzReplay(read_rows(Path(spec.where)), spec.options_as(_Seeded).seed)


def _csv(spec: Spec) -> Replay:
    return NpzReplay(media.read_csv(Path(spec.where)), spec.options_as(_Seeded).seed)


def _folder(spec: Spec) -> Replay:
    return media.Pictures(Path(spec.where), spec.options_as(Pictures).look)


def _wav(spec: Spec) -> Replay:
    options = spec.options_as(Sound)
    return media.Recording(Path(spec.where), options.window, options.hop or options.window)


def _camera(spec: Spec) -> _Live:
    options = spec.options_as(Pictures)
    return _Live(plugged.camera(spec.where, options.look, options.fps), options.queue)


def _picamera(spec: Spec) -> _Live:
    options = spec.options_as(Pictures)
    return _Live(plugged.picamera(spec.where, options.look), options.queue)


def _microphone(spec: Spec) -> _Live:
    options = spec.options_as(Sound)
    hop = options.hop or options.window
    heard = plugged.microphone(spec.where, options.rate, options.window, hop)
    return _Live(heard, options.queue)


def _serial(spec: Spec) -> _Live:
    options = spec.options_as(_Serial)
    columns = tuple(name.strip() for name in options.columns.split(",") if name.strip())
    read = plugged.READERS[options.format](columns)
    return _Live(plugged.serial_sensor(spec.where, options.baud, read), options.queue)


def _mqtt(spec: Spec) -> _Live:
    options = spec.options_as(_Options)
    return _Live(brought.mqtt_topic(f"{spec.kind}:{spec.where}"), options.queue)


def _http(spec: Spec) -> _Live:
    options = spec.options_as(_Options)
    return _Live(brought.http_posts(f"{spec.kind}:{spec.where}"), options.queue)


def _python(spec: Spec) -> _Live:
    options = spec.options_as(_Options)
    return _Live(brought.python_rows(spec.where), options.queue)


KINDS: dict[str, Callable[[Spec], Replay | _Live]] = {
    "npz": _npz,
    "csv": _csv,
    "folder": _folder,
    "wav": _wav,
    "camera": _camera,
    "picamera": _picamera,
    "microphone": _microphone,
    "serial": _serial,
    "mqtt": _mqtt,
    "http": _http,
    "python": _python,
}
