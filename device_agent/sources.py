"""What a source is; and a recorded input replayed for ever, through a sensor that may go wrong."""

import time
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import msgspec
import numpy as np

from edge_sdk.channels import Array
from edge_sdk.errors import InvalidInputError
from edge_sdk.sketch import Floats

BEHIND = 2.0  # seconds of rows that may queue up before the oldest are dropped
RECHECK = 1.0  # seconds between two looks at the faults file


Rows = Array | Sequence[Array]  # alike as one array (n, *shape), or whatever came


class Told(msgspec.Struct, frozen=True):
    """An answer that came with its row, from where the row was sensed.

    Attributes:
        model: how the SHA-256 of the model file begins that gave it (hex).
        output: as the model stores it; empty if there is none.
        latency_ms: as measured there.
    """

    model: str
    output: bytes
    latency_ms: float


class Taken(msgspec.Struct, frozen=True):
    """Raw rows, what the source calls them (or nothing), and how many were dropped before them.

    `told` are answers that came with them, one for each; empty if they are still to be answered.
    """

    rows: Rows
    names: Sequence[str] = ()
    dropped: int = 0
    told: tuple[Told, ...] = ()


class Source(Protocol):
    """Gives raw rows, in order, as they fall due."""

    def take(self, limit: int) -> Taken:
        """At most `limit` rows that are there now."""

    def wait(self, seconds: float) -> None:
        """Until there may be rows, at most so long."""

    def restart(self) -> None:
        """Somebody begins to listen: what fell due before is gone."""

    def close(self) -> None:
        """Nobody listens any more."""

    @property
    def trouble(self) -> str:
        """Why nothing comes, if something is wrong."""


class Replay(Protocol):
    """Gives as many rows as it is asked for, for ever."""

    def take(self, count: int) -> Rows: ...


class Paced:
    """A replay at a fixed rate; rows that nobody took for BEHIND seconds are dropped."""

    trouble = ""

    def __init__(self, replay: Replay, rows_per_second: float, now: Callable[[], float]) -> None:
        self._replay, self._rate, self._now = replay, rows_per_second, now
        self._due = now()

    def take(self, limit: int) -> Taken:
        """The rows that are due."""
        count = int((self._now() - self._due) * self._rate)
        surplus = max(0, count - max(1, int(BEHIND * self._rate)))
        taken = min(count - surplus, limit)
        self._due += (surplus + taken) / self._rate
        return Taken(self._replay.take(taken), dropped=surplus)

    def wait(self, seconds: float) -> None:
        """One wake-up serves all rows that fall due meanwhile."""
        time.sleep(seconds)

    def restart(self) -> None:
        """The first row is due one interval from now."""
        self._due = self._now()

    def close(self) -> None:
        """It has no thread."""


class SensorFault(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What goes wrong with every device of a site.

    Attributes:
        site: whose devices; compared with their label `site`.
        gain, offset: each raw value becomes `value * gain + offset`.
        blur: radius in pixels of a box blur over height and width; 0 is none.
        stuck_rows: so many first lines of an image (entries of a vector) stand at the lowest value.
    """

    site: str
    gain: float = 1.0
    offset: float = 0.0
    blur: int = 0
    stuck_rows: int = 0


class _FaultFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    fault: list[SensorFault] = []


def read_faults(path: Path) -> list[SensorFault]:
    """The file's faults; none if there is no file.

    Raises:
        InvalidInputError: not TOML, or a key that is not known.
    """
    try:
        return msgspec.toml.decode(path.read_text(), type=_FaultFile).fault
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError, msgspec.DecodeError) as error:
        raise InvalidInputError(f"faults file {path}: {error}") from error


class FaultWatch:
    """The fault of one site, by a file that is read again when it has changed.

    A file that can't be read leaves the fault as it was: `trouble` says why, once a change.
    """

    def __init__(
        self, path: Path, site: str, now: Callable[[], float], trouble: Callable[[str], None]
    ) -> None:
        self._path, self._site, self._now, self._trouble = path, site, now, trouble
        self._next = -np.inf
        self._stamp: tuple[int, int] | None = None
        self._fault: SensorFault | None = None

    def current(self) -> SensorFault | None:
        """What is wrong at the site at this moment."""
        if self._now() < self._next:
            return self._fault
        self._next = self._now() + RECHECK
        stamp = self._read_stamp()
        if stamp != self._stamp:
            self._stamp = stamp
            try:
                found = [f for f in read_faults(self._path) if f.site == self._site]
                self._fault = found[-1] if found else None
            except InvalidInputError as error:
                self._trouble(str(error))
        return self._fault

    def _read_stamp(self) -> tuple[int, int] | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size


def apply_fault(rows: Array, fault: SensorFault, low: float, high: float) -> Array:
    """Rows (n, *shape) as the broken sensor gives them, inside the data's range and type.

    >>> fault = SensorFault(site="north", gain=0.5, offset=1.0)
    >>> apply_fault(np.array([[2, 16]], np.uint8), fault, 0, 16).tolist()
    [[2, 9]]
    """
    values = rows.astype(np.float64) * fault.gain + fault.offset
    if fault.blur and values.ndim >= 3:
        values = box_blur(box_blur(values, fault.blur, 1), fault.blur, 2)
    if fault.stuck_rows and values.ndim >= 2:
        values[:, : fault.stuck_rows] = low
    values = values.clip(low, high)
    return (values if rows.dtype.kind == "f" else values.round()).astype(rows.dtype)


class NpzReplay:
    """`rows` (n, *shape) in an order shuffled by `seed`, again and again."""

    def __init__(
        self, rows: Array, seed: int, fault: Callable[[], SensorFault | None] = lambda: None
    ) -> None:
        self._rows = rows
        self._low, self._high = float(np.nanmin(self._rows)), float(np.nanmax(self._rows))
        self._random = np.random.default_rng(seed)
        self._order = np.empty(0, np.intp)
        self._fault = fault

    def take(self, count: int) -> Array:
        """The next `count` rows (count, *shape)."""
        while len(self._order) < count:
            self._order = np.append(self._order, self._random.permutation(len(self._rows)))
        rows, self._order = self._rows[self._order[:count]], self._order[count:]
        fault = self._fault()
        return apply_fault(rows, fault, self._low, self._high) if fault else rows


def read_rows(path: Path) -> Array:
    """Array `x` of an .npz; raises InvalidInputError."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            rows: Array = arrays["x"]
    except KeyError as error:
        raise InvalidInputError(f"{path} holds no array 'x' with the input rows") from error
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise InvalidInputError(f"{path} can't be read as .npz: {error}") from error
    if rows.ndim < 2 or not len(rows) or rows.dtype.kind not in "fiub":
        raise InvalidInputError(f"{path}: 'x' must hold rows of numbers, it is {rows.shape}")
    return rows


def box_blur(values: Floats, radius: int, axis: int) -> Floats:
    """Mean over 2 * radius + 1 neighbours along `axis`; the border is repeated."""
    width = [(0, 0)] * values.ndim
    width[axis] = (radius, radius)
    padded = np.pad(values, width, mode="edge")
    size = values.shape[axis]
    shifted = [padded.take(range(i, i + size), axis) for i in range(2 * radius + 1)]
    return np.asarray(np.mean(shifted, axis=0), np.float64)
