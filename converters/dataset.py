"""The user's rows: read, checked, and split so that no row is both calibration and evaluation."""

import hashlib
import io
import zipfile
import zlib
from collections import deque
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from converters.tabular import read_csv
from edge_sdk.channels import Array, InputSchema
from edge_sdk.errors import InvalidInputError
from edge_sdk.files import sha256

Classes = NDArray[np.int64]
MIN_ROWS = 50
MAX_CALIBRATION = 500
CALIBRATION_SHARE = 0.2
GOLDEN_ROWS, MIN_GOLDEN_ROWS = 16, 4
GOLDEN_BYTES = 12 * 1024  # pictures hardly compress: 16 of CIFAR-10 would weigh half a small model
_NUMBERS = "fiub"


class Dataset(msgspec.Struct, frozen=True):
    """Rows of one file.

    Attributes:
        x: raw values (n, *shape).
        y: class of each row (n,); empty where the file may come without.
        sha256: of the file.
        columns: names of the columns, where the file has any.
    """

    x: Array
    y: Classes
    sha256: str
    columns: tuple[str, ...] = ()


class Split(msgspec.Struct, frozen=True):
    """What DATA is used for: disjoint also in content, since it goes by the hash of each row."""

    calibration: Array
    held_x: Array
    held_y: Classes
    golden: NDArray[np.intp]


def read(path: Path, *, labelled: bool = True) -> Dataset:
    """A .npz file with `x` (n, ...) and, if labelled, `y` (n,); or a .csv file.

    Raises:
        InvalidInputError: unreadable, an array missing, of a wrong shape or type, or NaN in it.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InvalidInputError(f"{path} can't be read: {error.strerror or error}") from error
    columns: tuple[str, ...] = ()
    if path.suffix == ".csv":
        found, columns = read_csv(data, path, labelled=labelled)
    else:
        found = _arrays(data, path)
    needed = ("x", "y") if labelled else ("x",)
    missing = [name for name in needed if name not in found]
    if missing:
        raise InvalidInputError(f"{path} holds no array {' and no '.join(missing)}")
    x = _checked_rows(found["x"], path)
    y = _checked_classes(found["y"], len(x), path) if labelled else np.empty(0, np.int64)
    return Dataset(x, y, sha256(data), columns)


def _arrays(data: bytes, path: Path) -> dict[str, Array]:
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            return {name: arrays[name] for name in ("x", "y") if name in arrays.files}
    except (ValueError, TypeError, EOFError, OSError, zipfile.BadZipFile, zlib.error) as error:
        raise InvalidInputError(
            f"{path} is no .npz file of plain arrays: make one with numpy.savez(path, x=..., y=...)"
        ) from error


def _checked_rows(x: Array, path: Path) -> Array:
    if x.dtype.kind not in _NUMBERS or x.dtype == np.float16:
        raise InvalidInputError(f"{path}: x holds {x.dtype}, needed are integers or float32/64")
    if x.ndim < 2 or 0 in x.shape:
        raise InvalidInputError(f"{path}: x has shape {x.shape}, needed is (rows, ...), none empty")
    if x.dtype.kind == "f" and not np.isfinite(x).all():
        bad = int((~np.isfinite(x)).reshape(len(x), -1).any(axis=1).sum())
        raise InvalidInputError(
            f"{path}: x has NaN or infinite values in {bad:,} of {len(x):,} rows: drop or fill them"
        )
    return x


def _checked_classes(y: Array, rows: int, path: Path) -> Classes:
    if y.dtype.kind not in "iu":
        raise InvalidInputError(f"{path}: y holds {y.dtype}, needed are integer class labels")
    if y.shape != (rows,):
        raise InvalidInputError(f"{path}: y has shape {y.shape}, needed is ({rows},), one per row")
    if int(y.min()) < 0:
        raise InvalidInputError(f"{path}: y holds the class {int(y.min())}, classes start at 0")
    return y.astype(np.int64)


def row_keys(x: Array) -> list[bytes]:
    """A digest of each row's bytes."""
    whole = np.ascontiguousarray(x)
    return [hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in whole]


def split(data: Dataset) -> Split:
    """About 20 % of the rows for calibration, the others held out; the same for the same rows.

    Raises:
        InvalidInputError: too few rows for a statement about accuracy.
    """
    if len(data.x) < MIN_ROWS:
        raise InvalidInputError(f"the data has {len(data.x)} rows, needed are {MIN_ROWS} or more")
    keys = row_keys(data.x)
    for_calibration = np.array(
        [int.from_bytes(key[:4], "big") < CALIBRATION_SHARE * 2**32 for key in keys]
    )
    if for_calibration.all() or not for_calibration.any():
        raise InvalidInputError("the data can't be split: nearly all of its rows are the same")
    held_x, held_y = data.x[~for_calibration], data.y[~for_calibration]
    return Split(
        data.x[for_calibration][:MAX_CALIBRATION], held_x, held_y, golden_rows(held_x, held_y)
    )


def apart(data: Dataset, test: Dataset) -> Split:
    """All rows of `test` held out; those of `data` that are not in it calibrate.

    Raises:
        InvalidInputError: too few rows for a statement about accuracy, or none to calibrate.
    """
    if len(test.x) < MIN_ROWS:
        raise InvalidInputError(f"the test has {len(test.x)} rows, needed are {MIN_ROWS} or more")
    rest = without(data, test.x).x
    if not len(rest):
        raise InvalidInputError("every row of the data is also one of the test: none calibrates")
    return Split(rest[:MAX_CALIBRATION], test.x, test.y, golden_rows(test.x, test.y))


def golden_rows(x: Array, classes: Classes) -> NDArray[np.intp]:
    """Which rows a device tests itself with: of each class, but few if they are large."""
    fit = GOLDEN_BYTES // max(x[0].nbytes, 1)
    return spread(classes, min(GOLDEN_ROWS, max(fit, MIN_GOLDEN_ROWS)))


def spread(classes: Classes, count: int) -> NDArray[np.intp]:
    """Indices of up to `count` rows, taken in turn from each class.

    >>> spread(np.array([0, 0, 0, 1, 2]), 4).tolist()
    [0, 3, 4, 1]
    """
    queues = [deque(np.flatnonzero(classes == c).tolist()) for c in np.unique(classes)]
    taken: list[int] = []
    while len(taken) < min(count, len(classes)):
        for queue in queues:
            if queue and len(taken) < count:
                taken.append(queue.popleft())
    return np.array(taken, dtype=np.intp)


def without(data: Dataset, held_x: Array) -> Dataset:
    """Training rows without those that are held out for evaluation."""
    held = set(row_keys(held_x))
    keep = np.array([key not in held for key in row_keys(data.x)])
    return Dataset(data.x[keep], data.y[keep], data.sha256, data.columns)


def schema(x: Array, columns: tuple[str, ...] = ()) -> InputSchema:
    """What a raw row looks like, from all of DATA."""
    shape = x.shape[1:]
    kind: Literal["image", "vector", "tensor"]
    picture = len(shape) == 2 or (len(shape) == 3 and shape[2] in {1, 3, 4})
    if len(shape) == 1:
        kind = "vector"
    elif picture and min(shape[:2]) >= 3:  # a smaller one has no inner pixel to be sharp
        kind = "image"
    else:
        kind = "tensor"
    return InputSchema(
        name="input",
        kind=kind,
        shape=shape,
        low=float(x.min()),
        high=float(x.max()),
        columns=columns,
    )
