"""Pictures, sound and tables in files, as raw rows; and what brings a picture to a model's size."""

import csv
import re
import wave
from importlib import import_module
from pathlib import Path
from types import ModuleType

import msgspec
import numpy as np

from edge_sdk.channels import Array
from edge_sdk.errors import EdgeError, InvalidInputError

PICTURES = {".png", ".jpg", ".jpeg", ".bmp", ".webp"}
MAX_PIXELS = 64_000_000


class Look(msgspec.Struct, frozen=True):
    """What a picture shall look like: width and height (0 as it comes), colours (3 or 1)."""

    width: int = 0
    height: int = 0
    colours: int = 3

    @classmethod
    def parse(cls, size: str, colour: str) -> "Look":
        """Raises InvalidInputError.

        >>> Look.parse("96x64", "grey")
        Look(width=96, height=64, colours=1)
        """
        found = re.fullmatch(r"(\d{1,5})x(\d{1,5})", size or "0x0")
        if found is None:
            raise InvalidInputError(f"size {size!r} must be WIDTHxHEIGHT, for instance 96x96")
        return cls(int(found[1]), int(found[2]), 1 if colour == "grey" else 3)


def read_picture(path: Path, look: Look) -> Array:
    """A file's pixels, uint8 (height, width, colours); raises InvalidInputError."""
    image = _pillow()
    try:
        with image.open(path) as opened:
            if opened.width * opened.height > MAX_PIXELS:
                raise InvalidInputError(f"{path} has more than {MAX_PIXELS:,} pixels")
            picture = opened.convert("L" if look.colours == 1 else "RGB")
            if look.width and picture.size != (look.width, look.height):
                picture = picture.resize((look.width, look.height), image.Resampling.BILINEAR)
            pixels = np.asarray(picture, np.uint8)
    except (OSError, ValueError) as error:
        raise InvalidInputError(f"{path} can't be read as a picture: {error}") from error
    return pixels.reshape(*pixels.shape[:2], look.colours)


class Pictures:
    """The pictures of a folder, in the order of their names, again and again.

    Raises:
        InvalidInputError: there is none.
    """

    def __init__(self, folder: Path, look: Look) -> None:
        self._look, self._at = look, 0
        self.paths = sorted(p for p in folder.glob("*") if p.suffix.lower() in PICTURES)
        if not self.paths:
            raise InvalidInputError(f"{folder} holds no picture ({', '.join(sorted(PICTURES))})")

    def take(self, count: int) -> list[Array]:
        """The next `count` pictures."""
        found = [self.paths[at % len(self.paths)] for at in range(self._at, self._at + count)]
        self._at += count
        return [read_picture(path, self._look) for path in found]


class Recording:
    """A WAV file's windows, float32 (samples,) of -1..1 by channel 0, again and again.

    Raises:
        InvalidInputError: not a PCM WAV file, or shorter than a window.
    """

    def __init__(self, path: Path, window: int, hop: int) -> None:
        sound = read_wav(path)
        if hop < 1 or not 0 < window <= len(sound):
            raise InvalidInputError(
                f"{path} has {len(sound):,} samples: a window of {window:,} every {hop:,} is none"
            )
        self.windows = np.lib.stride_tricks.sliding_window_view(sound, window)[::hop]
        self._at = 0

    def take(self, count: int) -> Array:
        """The next `count` windows (count, samples)."""
        found = self.windows[np.arange(self._at, self._at + count) % len(self.windows)]
        self._at += count
        return found


def read_wav(path: Path) -> Array:
    """Channel 0 of a PCM WAV file as float32 of -1..1; raises InvalidInputError."""
    try:
        with wave.open(str(path), "rb") as opened:
            width, channels = opened.getsampwidth(), opened.getnchannels()
            data = opened.readframes(opened.getnframes())
    except (OSError, EOFError, wave.Error) as error:
        raise InvalidInputError(f"{path} can't be read as PCM WAV: {error}") from error
    kinds: dict[int, np.dtype[np.integer]] = {
        1: np.dtype("u1"), 2: np.dtype("<i2"), 4: np.dtype("<i4"),
    }  # fmt: skip
    if width not in kinds:
        raise InvalidInputError(f"{path} has {8 * width} bits a sample; 8, 16 and 32 are read")
    whole = len(data) // (width * channels) * width * channels
    first = np.frombuffer(data[:whole], kinds[width])[::channels].astype(np.float32)
    if width == 1:
        first -= 128
    scaled: Array = first / np.float32(2 ** (8 * width - 1))
    return scaled


def read_csv(path: Path) -> Array:
    """A table's rows, float32 (n, columns), with or without a line of names; empty cells are NaN.

    Raises:
        InvalidInputError: it can't be read, or a cell is no number.
    """
    try:
        with path.open(newline="") as opened:
            lines = [line for line in csv.reader(opened) if line]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InvalidInputError(f"{path} can't be read as CSV: {error}") from error
    if lines and not any(_number(cell) for cell in lines[0]):
        lines = lines[1:]
    try:
        rows = np.array([[float(cell or "nan") for cell in line] for line in lines], np.float32)
    except ValueError as error:
        raise InvalidInputError(f"{path}: {error}") from error
    if rows.ndim != 2:
        raise InvalidInputError(f"{path} holds no table of numbers")
    return rows


def _number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _pillow() -> ModuleType:
    try:
        return import_module("PIL.Image")
    except ModuleNotFoundError as error:
        raise EdgeError(
            "reading pictures needs Pillow: pip install 'edge-deployment-sdk[images]'"
        ) from error
