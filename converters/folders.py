"""Rows from folders: one of classes, `CLASS/*.png`, `CLASS/*.wav`; and from the user's function."""

import importlib
import sys
import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_sdk.errors import EdgeError, InvalidInputError

Arrays = dict[str, NDArray[np.generic]]
PICTURES = {".png", ".jpg", ".jpeg", ".bmp"}
SOUNDS = {".wav"}
MAX_FILES = 1_000_000


def read_folder(folder: Path, *, labelled: bool) -> tuple[Arrays, tuple[str, ...]]:
    """Arrays `x`, `y` of a folder with one folder for each class, and the names of the classes.

    Pictures are uint8 (n, height, width, 1 or 3), sounds int16 (n, samples, 1). Where rows need no
    class, the files may lie in the folder itself.

    Raises:
        InvalidInputError: no such files, files of both kinds, or of different sizes.
    """
    found = [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in PICTURES | SOUNDS]
    if not found:
        raise InvalidInputError(f"{folder} holds no .png, .jpg, .bmp or .wav file")
    if len(found) > MAX_FILES:
        raise InvalidInputError(f"{folder} holds {len(found):,} files, at most {MAX_FILES:,} fit")
    kinds = {path.suffix.lower() in SOUNDS for path in found}
    if len(kinds) > 1:
        raise InvalidInputError(f"{folder} holds pictures and sounds: one kind is needed")
    names = tuple(sorted({path.relative_to(folder).parts[0] for path in found}))
    if labelled and any(path.parent == folder for path in found):
        raise InvalidInputError(
            f"{folder}: a file lies beside the classes: needed is one folder for each class"
        )
    read = _sound if kinds == {True} else _picture
    x = _stack(found, [read(path) for path in found])
    if not labelled:
        return {"x": x}, ()
    y = np.array([names.index(path.relative_to(folder).parts[0]) for path in found], np.int64)
    return {"x": x, "y": y}, names


def _stack(paths: list[Path], rows: list[NDArray[np.generic]]) -> NDArray[np.generic]:
    for path, row in zip(paths, rows, strict=True):
        if row.shape != rows[0].shape:
            raise InvalidInputError(
                f"{path} has shape {row.shape}, {paths[0]} has {rows[0].shape}: "
                "all files must have the same size"
            )
    return np.stack(rows)


def _picture(path: Path) -> NDArray[np.generic]:
    try:
        from PIL import Image, UnidentifiedImageError
    except ModuleNotFoundError as error:
        raise EdgeError(
            "reading pictures needs pillow: pip install 'edge-deployment-sdk[convert]'"
        ) from error
    try:
        with Image.open(path) as opened:
            grey = opened.mode in {"L", "1", "I;16"}
            values = np.asarray(opened.convert("L" if grey else "RGB"))
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        raise InvalidInputError(f"{path} is no picture that can be read: {error}") from error
    return values[..., np.newaxis] if grey else values


def _sound(path: Path) -> NDArray[np.generic]:
    try:
        with wave.open(str(path)) as opened:
            width, channels = opened.getsampwidth(), opened.getnchannels()
            data = opened.readframes(opened.getnframes())
    except (wave.Error, EOFError, OSError) as error:
        raise InvalidInputError(f"{path} is no .wav file of plain samples: {error}") from error
    if width != 2 or channels != 1:
        raise InvalidInputError(
            f"{path} has {channels} channels of {8 * width} bits, needed is one of 16 bits"
        )
    return np.frombuffer(data, "<i2").astype(np.int16)[:, np.newaxis]


def call(words: str) -> Arrays:
    """Arrays that the user's own function gives: `module:function`, called without arguments.

    It may give a pair (x, y) or a mapping with `x`, `y` and columns of words (n,) to slice by.
    Modules beside the current folder are found.

    Raises:
        InvalidInputError: no such module or function, or it fails, or gives something else.
    """
    function = _imported(words)
    try:
        found = function()
    except Exception as error:  # the user's code may raise anything
        raise InvalidInputError(
            f"{words} failed: {type(error).__name__}: {str(error).strip()[:200]}"
        ) from error
    if isinstance(found, tuple) and len(found) == 2:
        found = {"x": found[0], "y": found[1]}
    if not isinstance(found, dict) or "x" not in found:
        raise InvalidInputError(f"{words} must give (x, y), or a dict with x and y")
    return {str(name): np.asarray(values) for name, values in found.items()}


def _imported(words: str) -> Callable[[], object]:
    module, _, name = words.partition(":")
    sys.path.insert(0, str(Path.cwd()))
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise InvalidInputError(f"{words} can't be used: {error}") from error
    finally:
        sys.path.pop(0)
    if not callable(found):
        raise InvalidInputError(f"{words} is no function")
    return found  # type: ignore[no-any-return]
