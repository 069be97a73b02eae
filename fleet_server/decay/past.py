"""One device against its own past: what is normal for it, at this hour, and how far it is off now.

The first day gives the *reference*: histograms that are never learnt again. Every window is reduced
to features against it (change of mean, distance, missing share). What these normally are is learnt:
their level, their rhythm over the day, their variation. Learning goes on slowly, from windows that
are old enough to have been found clean, and never carries the level away from where it began, so
that a slow drift is not learnt but seen. Sensor streams are autocorrelated, so variation is that
between windows, held against blocks left out of the past; independent rows are never assumed.
"""

import math
from collections.abc import Sequence

import msgspec
import numpy as np

from edge_sdk.sketch import Floats
from fleet_server.decay.distances import jensen_shannon
from fleet_server.decay.layout import Counts

REFERENCE = 16  # windows that a past has at least
MOST = 288  # units that a past is cut into at most; shorter windows are put together
BLOCK = 1  # windows left out on either side of one that is held against the others
PERSIST = 3  # windows looked at; two of them must stand out, on the same side
LAG = 6  # windows that a window waits before it is learnt
HOURS = 24
RHYTHM_MEMORY = 7  # days over which an hour's deviation is averaged
VARIATION_DAYS, LEVEL_DAYS = 3.0, 14.0  # time constants of what is learnt
STRANGE_DAYS = 2.0  # days after which a device's own variation counts as much as that of others
DAY = 86400.0
DISTANCE_FLOOR = 0.1  # of the Jensen-Shannon distance, beyond what is normal
MISSING_FLOOR = 0.02  # of the rows
LEAST_VARIATION = 0.1  # of each floor: what never varied may not alarm at a hair


class Seen(msgspec.Struct, frozen=True, eq=False):
    """One window's features.

    Attributes:
        values: (3 * channels,): shifts, then distances, then missing shares.
        rows: of the window.
        hour: of the day, 0..23 UTC.
        seconds: length of the window.
    """

    values: Floats
    rows: float
    hour: int
    seconds: float


class Normal(msgspec.Struct, eq=False):
    """What a device's features usually are, and how much they vary.

    Attributes:
        level, first: now, and when learning began (features,).
        rhythm: deviation from the level by hour of day (24, features); `days` how often learnt.
        variance: of a window's features around what was expected (features,).
        rows: of a usual window.
        day: seconds that count as a day in how fast is learnt.
        age: days learnt from.
    """

    level: Floats
    first: Floats
    rhythm: Floats
    days: Floats
    variance: Floats
    rows: float
    day: float = DAY
    age: float = 1.0

    def expected(self, hour: int) -> Floats:
        """The features of a clean window at this hour; an hour seen once counts by half."""
        seen = self.days[hour] / (self.days[hour] + 1.0)
        return np.asarray(self.level + self.rhythm[hour] * seen)

    def scores(self, seen: Seen, others: Floats | None = None) -> Floats:
        """How many of its usual deviations each feature is off.

        A few days of one device tell little about its variation, so that of the `others` like it
        counts too, the less the longer it is known. A short window may be off more.
        """
        variance = self.variance
        if others is not None:
            known = self.age / (self.age + STRANGE_DAYS)
            variance = known * variance + (1 - known) * others
        short = max(0.0, 1.0 / max(seen.rows, 1.0) - 1.0 / self.rows)
        off = seen.values - self.expected(seen.hour)
        return np.asarray(off / np.sqrt(_with_shifts(variance) + short))

    def learn(self, seen: Seen, floors: Floats) -> None:
        """Move slowly towards a clean window; the level stays near where it began."""
        usual = np.sqrt(self.variance)
        off = np.clip(seen.values - self.expected(seen.hour), -4 * usual, 4 * usual)
        self.variance = np.maximum(
            self.variance + self._rate(seen, VARIATION_DAYS) * (off**2 - self.variance),
            np.square(LEAST_VARIATION * floors),
        )
        level = self.level + self._rate(seen, LEVEL_DAYS) * off
        self.level = np.clip(level, self.first - floors, self.first + floors)
        self.age += seen.seconds / self.day
        self.learn_rhythm(seen)

    def learn_rhythm(self, seen: Seen) -> None:
        """What this hour is like, apart from the level."""
        lesson, most = min(seen.seconds / 3600.0, 1.0), 4 * np.sqrt(self.variance)
        self.days[seen.hour] += lesson
        away = np.clip(seen.values - self.level, -most, most) - self.rhythm[seen.hour]
        self.rhythm[seen.hour] += away * lesson / min(self.days[seen.hour], RHYTHM_MEMORY)

    def _rate(self, seen: Seen, days: float) -> float:
        return min(seen.seconds / (days * self.day), 1 / 32)


def features(counts: Counts, reference: Counts, units: Floats) -> Floats:
    """A window against the reference: shifts in `units`, distances, missing shares."""
    known = (units > 0) & (counts.rows > 0) & (reference.rows > 0)
    shift = np.divide(counts.means - reference.means, units, out=np.zeros(len(units)), where=known)
    rows = counts.rows + counts.missing
    missing = np.divide(counts.missing, rows, out=np.zeros(len(units)), where=rows > 0)
    return np.concatenate([shift, jensen_shannon(reference.bins, counts.bins), missing])


def feature_floors(shift_floors: Floats) -> Floats:
    """The smallest change of each feature that matters at all."""
    size = len(shift_floors)
    return np.concatenate(
        [shift_floors, np.full(size, DISTANCE_FLOOR), np.full(size, MISSING_FLOOR)]
    )


def first_normal(seen: Sequence[Seen], floors: Floats, day: float) -> tuple[Normal, list[float]]:
    """What a past says is normal, and the persistent scores of its own windows.

    Each window is scored against the past without the block around it, in order, so the scores are
    what clean windows of this device give, autocorrelation included.
    """
    values = np.array([s.values for s in seen])
    level = values.mean(axis=0)
    least = np.square(LEAST_VARIATION * floors)
    n = len(values)
    total, squares = values.sum(axis=0), np.square(values).sum(axis=0)
    scores = np.empty_like(values)
    for i in range(n):
        near = values[max(0, i - BLOCK) : i + BLOCK + 1]
        left = n - len(near)
        mean = (total - near.sum(axis=0)) / left
        variance = (squares - np.square(near).sum(axis=0)) / left - mean**2
        spread = np.maximum(variance * left / (left - 1), least)
        scores[i] = (values[i] - mean) / np.sqrt(_with_shifts(spread))
    normal = Normal(
        level=level,
        first=level.copy(),
        rhythm=np.zeros((HOURS, values.shape[1])),
        days=np.zeros(HOURS),
        variance=np.maximum(values.var(axis=0, ddof=1), least),
        rows=float(np.median([s.rows for s in seen])),
        day=day,
    )
    for one in seen:
        normal.learn_rhythm(one)
    return normal, [persistent(scores[i - PERSIST + 1 : i + 1]) for i in range(PERSIST - 1, n)]


def persistent(scores: Floats) -> float:
    """The largest score, over features, that two of the last three windows (3, features) reach.

    Two of three on the same side: that is the median's size.

    >>> persistent(np.array([[9.0, 2.0], [-0.5, 2.5], [1.0, 3.0]]))
    2.5
    """
    return float(np.abs(np.median(scores, axis=0)).max())


def _with_shifts(variance: Floats) -> Floats:
    """Distances also vary since means do: a shift of d sd is a distance of sqrt(d^2 / (8 ln 2))."""
    size = len(variance) // 3
    whole = variance.copy()
    whole[size : 2 * size] += variance[:size] / (8 * math.log(2))
    return whole
