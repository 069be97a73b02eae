"""The user's rows: read, checked, and split so that no row is both calibration and evaluation."""

import hashlib
import io
import re
import zipfile
import zlib
from collections import deque
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from converters.folders import call, read_folder
from converters.tabular import read_csv
from edge_sdk.bundle import Task
from edge_sdk.channels import Array, InputSchema
from edge_sdk.errors import InvalidInputError
from edge_sdk.files import sha256

Targets = NDArray[np.int64] | NDArray[np.float32]
MIN_ROWS = 50
MAX_CALIBRATION = 500
CALIBRATION_SHARE = 0.2
GOLDEN_ROWS, MIN_GOLDEN_ROWS = 16, 4
GOLDEN_BYTES = 12 * 1024  # pictures hardly compress: 16 of CIFAR-10 would weigh half a small model
MAX_SLICES = 100
_NUMBERS = "fiub"
_CALL = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


class Dataset(msgspec.Struct, frozen=True):
    """Rows of one source.

    Attributes:
        x: raw values (n, *shape).
        y: class of each row (n,), or targets (n,) or (n, k); empty where rows may come without.
        sha256: of the file; of a folder or function, of the arrays it gave.
        columns: names of the columns, where the file has any.
        labels: names of the classes, where a folder tells them.
        slices: for each metadata column its value in each row (n,).
    """

    x: Array
    y: Targets
    sha256: str
    columns: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    slices: dict[str, NDArray[np.str_]] = {}

    def only(self, rows: NDArray[np.bool_] | NDArray[np.intp]) -> "Dataset":
        """Some of the rows."""
        slices = {name: values[rows] for name, values in self.slices.items()}
        y = self.y[rows] if len(self.y) else self.y
        return msgspec.structs.replace(self, x=self.x[rows], y=y, slices=slices)


class Split(msgspec.Struct, frozen=True):
    """What DATA is used for: disjoint also in content, since it goes by the hash of each row.

    Attributes:
        calibration: raw rows that give activations their ranges.
        held: rows that evaluate.
        golden: which of them a device tests itself with.
        train: rows to train on, if a share of the data was to be.
    """

    calibration: Array
    held: Dataset
    golden: NDArray[np.intp]
    train: Dataset | None = None

    @property
    def held_x(self) -> Array:
        """Raw rows that evaluate."""
        return self.held.x

    @property
    def held_y(self) -> Targets:
        """What is right for them."""
        return self.held.y


def read(
    path: Path,
    *,
    labelled: bool = True,
    task: Task = "classification",
    slices: tuple[str, ...] = (),
) -> Dataset:
    """A .npz file with `x` (n, ...) and, if labelled, `y` (n,); a .csv file; a folder; a function.

    Args:
        path: of a file, of a folder with one folder of pictures or sounds for each class, or the
            words `module:function` for one that gives such arrays.
        labelled: whether `y` is needed.
        task: what `y` is.
        slices: columns or arrays of words to tell kinds of rows apart by.

    Raises:
        InvalidInputError: unreadable, an array missing, of a wrong shape or type, or NaN in it.
    """
    found, columns, labels, digest = _found(path, task, slices, labelled=labelled)
    needed = ("x", "y") if labelled else ("x",)
    missing = [name for name in needed if name not in found]
    if missing:
        raise InvalidInputError(f"{path} holds no array {' and no '.join(missing)}")
    x = _checked_rows(found["x"], path)
    y: Targets = np.empty(0, np.int64)
    if labelled:
        y = _checked_targets(found["y"], len(x), path, task)
    words = {name: _checked_slice(found, name, len(x), path) for name in slices if labelled}
    return Dataset(x, y, digest or _digest(found), columns, labels, words)


def _found(
    path: Path,
    task: Task,
    slices: tuple[str, ...],
    *,
    labelled: bool,
) -> tuple[dict[str, Array], tuple[str, ...], tuple[str, ...], str]:
    """Arrays, names of columns, names of classes, and the file's digest if it is one."""
    if path.is_dir():
        arrays, labels = read_folder(path, labelled=labelled)
        return arrays, (), labels, ""
    if _CALL.fullmatch(str(path)) and not path.exists():
        return call(str(path)), (), (), ""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InvalidInputError(f"{path} can't be read: {error.strerror or error}") from error
    if path.suffix == ".csv":
        arrays, columns = read_csv(
            data, path, labelled=labelled, slices=slices, numbers=task == "regression"
        )
        return arrays, columns, (), sha256(data)
    return _arrays(data, path, ("x", "y", *slices)), (), (), sha256(data)


def _digest(arrays: dict[str, Array]) -> str:
    whole = hashlib.sha256()
    for name, values in sorted(arrays.items()):
        whole.update(f"{name} {values.dtype} {values.shape}\n".encode())
        whole.update(np.ascontiguousarray(values).tobytes())
    return whole.hexdigest()


def _arrays(data: bytes, path: Path, names: tuple[str, ...]) -> dict[str, Array]:
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            return {name: arrays[name] for name in names if name in arrays.files}
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


def _checked_targets(y: Array, rows: int, path: Path, task: Task) -> Targets:
    if task == "regression":
        return _checked_numbers(y, rows, path)
    if y.dtype.kind not in "iu":
        raise InvalidInputError(f"{path}: y holds {y.dtype}, needed are integer class labels")
    if y.shape != (rows,):
        raise InvalidInputError(f"{path}: y has shape {y.shape}, needed is ({rows},), one per row")
    if int(y.min()) < 0:
        raise InvalidInputError(f"{path}: y holds the class {int(y.min())}, classes start at 0")
    if task == "anomaly" and int(y.max()) > 1:
        raise InvalidInputError(
            f"{path}: y holds {int(y.max())}, for an anomaly needed are 0 (normal) and 1"
        )
    return y.astype(np.int64)


def _checked_numbers(y: Array, rows: int, path: Path) -> Targets:
    if y.dtype.kind not in "iuf" or y.ndim not in {1, 2} or len(y) != rows:
        raise InvalidInputError(
            f"{path}: y holds {y.dtype} of shape {y.shape}, needed are numbers, "
            f"({rows},) or ({rows}, targets)"
        )
    if not np.isfinite(y).all():
        raise InvalidInputError(f"{path}: y has NaN or infinite values: drop those rows")
    return y.astype(np.float32)


def _checked_slice(found: dict[str, Array], name: str, rows: int, path: Path) -> NDArray[np.str_]:
    values = found.get(name)
    if values is None or values.shape != (rows,):
        raise InvalidInputError(f"{path} holds no column {name} with one value per row")
    words = values.astype(np.str_)
    if len(np.unique(words)) > MAX_SLICES:
        raise InvalidInputError(
            f"{path}: {name} has {len(np.unique(words)):,} values, at most {MAX_SLICES} tell "
            "kinds of rows apart"
        )
    return words


def row_keys(x: Array) -> list[bytes]:
    """A digest of each row's bytes."""
    whole = np.ascontiguousarray(x)
    return [hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in whole]


def split(data: Dataset, train_share: float = 0.0) -> Split:
    """About 20 % of the rows for calibration, the others held out; the same for the same rows.

    Args:
        data: all rows.
        train_share: part of the rows to train on, taken first; a fifth of the rest calibrates.

    Raises:
        InvalidInputError: too few rows for a statement about accuracy.
    """
    place = np.array([int.from_bytes(key[:4], "big") / 2**32 for key in row_keys(data.x)])
    training, rest = place < train_share, place >= train_share
    share = train_share + CALIBRATION_SHARE * (1 - train_share)
    calibrating, held_out = rest & (place < share), place >= share
    if int(rest.sum()) < MIN_ROWS:
        raise InvalidInputError(
            f"the data has {int(rest.sum())} rows, needed are {MIN_ROWS} or more"
            + (" beside those to train on" if train_share else "")
        )
    if not calibrating.any() or not held_out.any():
        raise InvalidInputError("the data can't be split: nearly all of its rows are the same")
    held = data.only(held_out)
    return Split(
        data.x[calibrating][:MAX_CALIBRATION],
        held,
        golden_rows(held.x, held.y),
        data.only(training) if training.any() else None,
    )


def apart(data: Dataset, test: Dataset) -> Split:
    """All rows of `test` held out; those of `data` that are not in it calibrate.

    Raises:
        InvalidInputError: too few rows for a statement about accuracy, or none to calibrate.
    """
    if len(test.x) < MIN_ROWS:
        raise InvalidInputError(f"the test has {len(test.x)} rows, needed are {MIN_ROWS} or more")
    rest = without(data, test.x)
    if not len(rest.x):
        raise InvalidInputError("every row of the data is also one of the test: none calibrates")
    return Split(rest.x[:MAX_CALIBRATION], test, golden_rows(test.x, test.y))


def golden_rows(x: Array, targets: Targets) -> NDArray[np.intp]:
    """Which rows a device tests itself with: of each class, but few if they are large."""
    fit = GOLDEN_BYTES // max(x[0].nbytes, 1)
    count = min(GOLDEN_ROWS, max(fit, MIN_GOLDEN_ROWS))
    if targets.dtype.kind == "f":
        return np.linspace(0, len(x) - 1, min(count, len(x))).astype(np.intp)
    return spread(np.asarray(targets, np.int64), count)


def spread(classes: NDArray[np.int64], count: int) -> NDArray[np.intp]:
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
    return data.only(np.array([key not in held for key in row_keys(data.x)]))


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
