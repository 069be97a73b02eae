"""One device against its own past: what is normal for it here and now, and how far it is off.

The first day gives the *reference*: histograms that are never learnt again. Every window is reduced
to features against it (change of mean, distance, missing share). What these normally are is learnt:
their level in each operating mode, their rhythm over the day and the week, their variation.
Learning goes on slowly, from windows that are old enough to have been found clean, and never
carries the level away from where it began; a rhythm is only what differs between hours or weekdays.
So a slow drift is not learnt but seen. Sensor streams are autocorrelated, so variation is that
between windows, held against blocks left out of the past; independent rows are never assumed.
"""

import math
from collections.abc import Sequence
from typing import Literal

import msgspec
import numpy as np

from edge_sdk.sketch import Floats
from fleet_server.decay.distances import jensen_shannon
from fleet_server.decay.layout import Counts
from fleet_server.decay.modes import modes_of

REFERENCE = 16  # windows that a past has at least
MOST = 288  # units that a past is cut into at most; shorter windows are put together
BLOCK = 1  # windows left out on either side of one that is held against the others
PERSIST = 3  # windows looked at; two of them must stand out, on the same side
LAG = 6  # windows that a window waits before it is learnt
HOURS, WEEKDAYS = 24, 7
RHYTHM_MEMORY = 7  # days over which an hour's deviation is averaged
WEEK_MEMORY = 4  # weeks over which a weekday's is
SEASON_COUNTS = 9  # times that a season is learnt at once, since it was seen before
WHOLE = 0.8  # of an hour or weekday: what was seen of it for less says more of when than of it
VARIATION_DAYS, LEVEL_DAYS = 3.0, 14.0  # time constants of what is learnt
STRANGE_DAYS = 2.0  # days after which a device's own variation counts as much as that of others
DAY = 86400.0
DISTANCE_FLOOR = 0.1  # of the Jensen-Shannon distance, beyond what is normal
MISSING_FLOOR = 0.02  # of the rows
LEAST_VARIATION = 0.1  # of each floor: what never varied may not alarm at a hair


Season = Literal["", "day", "week"]  # what comes back: nothing, or each day, or each week


class Seen(msgspec.Struct, frozen=True, eq=False):
    """One window's features.

    Attributes:
        values: (3 * channels,): shifts, then distances, then missing shares.
        rows: of the window.
        hour, weekday: when it was taken, 0..23 and 0..6 (Monday is 0), UTC.
        seconds: length of the window.
    """

    values: Floats
    rows: float
    hour: int
    weekday: int
    seconds: float


class Rhythm(msgspec.Struct, eq=False):
    """How features differ between the hours of a day, or the days of a week.

    Attributes:
        away: deviation in each slot (slots, features).
        seen: how often each slot was learnt.
        middle: deviation that is no slot's own (features,): the mean of hours; of weekdays the
            median, since two of seven may be unlike the rest.
    """

    away: Floats
    seen: Floats
    middle: Floats

    @classmethod
    def unknown(cls, slots: int, features: int) -> "Rhythm":
        """Nothing is learnt yet."""
        return cls(np.zeros((slots, features)), np.zeros(slots), np.zeros(features))

    def at(self, slot: int) -> Floats:
        """What is expected of a slot beyond the others; one seen once counts by half."""
        if self.seen[slot] < WHOLE:
            return np.zeros(len(self.middle))
        trust = self.seen[slot] / (self.seen[slot] + 1.0)
        return np.asarray((self.away[slot] - self.middle) * trust)

    def learn(self, slot: int, away: Floats, share: float, memory: int) -> None:
        """Take in a deviation seen for this share of the slot; it counts as one of `memory`."""
        lesson = min(share, 1.0)
        self.seen[slot] += lesson
        self.away[slot] += (away - self.away[slot]) * lesson / min(self.seen[slot], memory)
        known = self.seen >= WHOLE
        if known.any():
            middle = np.median if len(self.seen) == WEEKDAYS else np.mean
            self.middle = np.asarray(middle(self.away[known], axis=0))


class Normal(msgspec.Struct, eq=False):
    """What a device's features usually are, and how much they vary.

    Attributes:
        level, first: now, and when learning began (features,).
        modes: deviation from the level in each operating mode (modes, features).
        hours, weekdays: rhythms over the day and the week.
        lean: how far windows were off lately (features,): a drift shows here, not as variation.
        variance: of a window's features around what was expected and that (features,).
        rows: of a usual window.
        day: seconds that count as a day in how fast is learnt.
        age: days learnt from.
    """

    level: Floats
    first: Floats
    modes: Floats
    hours: Rhythm
    weekdays: Rhythm
    lean: Floats
    variance: Floats
    rows: float
    day: float = DAY
    age: float = 1.0

    def expected(self, seen: Seen) -> Floats:
        """The features of a clean window like this one: its mode, hour and weekday."""
        return np.asarray(
            self.level
            + self._mode(seen)
            + self.hours.at(seen.hour)
            + self.weekdays.at(seen.weekday)
        )

    def _mode(self, seen: Seen) -> Floats:
        """The deviation of the operating mode that a window is nearest to."""
        if len(self.modes) == 1:
            return np.asarray(self.modes[0])
        away = (seen.values - self.level - self.modes) / np.sqrt(self.variance)
        return np.asarray(self.modes[np.square(away).sum(axis=1).argmin()])

    def scores(self, seen: Seen, others: Floats | None = None) -> Floats:
        """How many of its usual deviations each feature is off.

        A few days of one device tell little about its variation, so that of the `others` like it
        counts too, the less the longer it is known. A short window may be off more.
        """
        return self._deviations(seen, seen.values - self.expected(seen), others)

    def restless(self, seen: Seen, others: Floats | None = None) -> Floats:
        """The same around how far it was off lately: what chance alone does, whatever drifts."""
        return self._deviations(seen, seen.values - self.expected(seen) - self.lean, others)

    def _deviations(self, seen: Seen, off: Floats, others: Floats | None) -> Floats:
        variance = self.variance
        if others is not None:
            known = self.age / (self.age + STRANGE_DAYS)
            variance = known * variance + (1 - known) * others
        short = max(0.0, 1.0 / max(seen.rows, 1.0) - 1.0 / self.rows)
        return np.asarray(off / np.sqrt(_with_shifts(variance) + short))

    def learn(self, seen: Seen, floors: Floats) -> None:
        """Move slowly towards a clean window; the level stays near where it began."""
        usual = np.sqrt(self.variance)
        off = seen.values - self.expected(seen)
        around = np.clip(off - self.lean, -4 * usual, 4 * usual)
        self.lean = self.lean + self._rate(seen, VARIATION_DAYS) * around
        self.variance = np.maximum(
            self.variance + self._rate(seen, VARIATION_DAYS) * (around**2 - self.variance),
            np.square(LEAST_VARIATION * floors),
        )
        step = self._rate(seen, LEVEL_DAYS) * np.clip(off, -4 * usual, 4 * usual)
        self.level = np.clip(self.level + step, self.first - floors, self.first + floors)
        self.age += seen.seconds / self.day
        self.learn_rhythm(seen, 4 * usual)

    def learn_rhythm(self, seen: Seen, most: Floats) -> None:
        """What this hour and weekday are like, apart from the level, as far as `most` at once."""
        away = seen.values - self.level - self._mode(seen)
        hour, day = self.hours.at(seen.hour), self.weekdays.at(seen.weekday)
        of_hour, of_day = np.clip(away - day, -most, most), np.clip(away - hour, -most, most)
        self.hours.learn(seen.hour, of_hour, seen.seconds / 3600, RHYTHM_MEMORY)
        self.weekdays.learn(seen.weekday, of_day, seen.seconds / DAY, WEEK_MEMORY)

    def learn_season(self, seen: Seen, season: Season) -> None:
        """This hour, or this weekday, is unlike the others, and was so before."""
        away = seen.values - self.level - self._mode(seen)
        for _ in range(SEASON_COUNTS):
            if season == "day":
                rest = away - self.weekdays.at(seen.weekday)
                self.hours.learn(seen.hour, rest, seen.seconds / 3600, RHYTHM_MEMORY)
            else:
                rest = away - self.hours.at(seen.hour)
                self.weekdays.learn(seen.weekday, rest, seen.seconds / DAY, WEEK_MEMORY)

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
    members = modes_of(values, floors)
    level = values.mean(axis=0)
    centres = np.array([values[members == m].mean(axis=0) for m in range(members.max() + 1)])
    least = np.square(LEAST_VARIATION * floors)
    within = values - centres[members]
    scores = _left_out_scores(within, least)
    normal = Normal(
        level=level,
        first=level.copy(),
        modes=centres - level,
        hours=Rhythm.unknown(HOURS, len(level)),
        weekdays=Rhythm.unknown(WEEKDAYS, len(level)),
        lean=np.zeros(len(level)),
        variance=np.maximum(within.var(axis=0, ddof=1), least),
        rows=float(np.median([s.rows for s in seen])),
        day=day,
    )
    for one in seen:
        normal.learn_rhythm(one, 4 * np.sqrt(normal.variance))
    n = len(values)
    return normal, [persistent(scores[i - PERSIST + 1 : i + 1]) for i in range(PERSIST - 1, n)]


def _left_out_scores(values: Floats, least: Floats) -> Floats:
    """Scores of windows (n, features), each against all but the block around it."""
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
    return scores


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
