"""The channels of one device in time: windows in, scores against its own past out. Pure."""

from collections.abc import Sequence

import msgspec
import numpy as np

from edge_sdk.sketch import Floats
from fleet_server.decay.distances import jensen_shannon, psi
from fleet_server.decay.layout import Counts, Layout, floors_of, units_of
from fleet_server.decay.past import (
    DAY,
    LAG,
    MOST,
    PERSIST,
    REFERENCE,
    Normal,
    Season,
    Seen,
    feature_floors,
    features,
    first_normal,
    persistent,
)

THURSDAY = 3  # the weekday of the day that Unix time begins with
EPISODES = 8  # that are remembered
WEEK = 7 * DAY
ALIKE = 0.7  # cosine of two movements that are one season
MOST_OF = 0.7  # of a day or week: an episode that lasts longer is no season of it
MOST_TIMES = 3  # days or weeks ago
CALM = 0.3  # of an episode: how near to normal it must have been since
SLACK = 2 * 3600.0  # seconds by which a season may be earlier or later
MIN_ROWS = 30  # rows that are held against the past together
NOTABLE = 3.0  # score from which a movement is named
SKEW_SHIFT, SKEW_DISTANCE = 1.0, 0.35  # a site may differ from the training data by less


SEASONS: dict[Season, float] = {"week": WEEK, "day": DAY}


class Movement(msgspec.Struct, frozen=True):
    """How far one channel of one device moved.

    Attributes:
        psi: population stability index between its recent windows and its reference.
        distance: Jensen-Shannon distance of its recent windows, beyond what is normal.
        shift: change of the mean beyond what is normal at this hour, in standard deviations of the
            training data (of its own mean for latency and memory); 0 for categories.
        missing: change of the share of missing values.
        before, now: means.
        score: in usual deviations of the device itself.
    """

    channel: str
    psi: float
    distance: float
    shift: float
    missing: float
    before: float
    now: float
    score: float


class Episode(msgspec.Struct, frozen=True, eq=False):
    """A time in which a device stood out, and which ended by itself.

    Attributes:
        began, ended: Unix seconds.
        off: how far its features were off, in what matters of each (features,).
    """

    began: float
    ended: float
    off: Floats

    @property
    def length(self) -> float:
        return self.ended - self.began


def season(since: float, off: Floats, known: Sequence[Episode]) -> Season:
    """Whether what began at `since` is an episode that came back after whole days, or weeks."""
    for episode in reversed(known):
        sizes = float(np.linalg.norm(off)), float(np.linalg.norm(episode.off))
        if not min(sizes) or sizes[0] > 2 * sizes[1]:  # smaller is what is left of it, once learnt
            continue
        if float(off @ episode.off) < ALIKE * sizes[0] * sizes[1]:
            continue
        for name, length in SEASONS.items():
            times = max(1, round((since - episode.began) / length))
            fits = episode.length < length * MOST_OF and times <= MOST_TIMES
            if fits and -SLACK <= since - times * length - episode.began <= episode.length + SLACK:
                return name
    return ""


class Past(msgspec.Struct, frozen=True, eq=False):
    """A device's own past.

    Attributes:
        counts: its first day; never learnt again.
        units: what changes of the means are measured in.
        floors: the smallest change of each feature that matters.
        normal: what is learnt.
    """

    counts: Counts
    units: Floats
    floors: Floats
    normal: Normal

    def scores(self, recent: Sequence[Seen], others: Floats | None) -> Floats:
        return np.array([self.normal.scores(seen, others) for seen in recent])


class Stream(msgspec.Struct, eq=False):
    """One group of channels of one device.

    Attributes:
        past_seconds: how long the reference lasts.
        past: None while the reference is not complete.
        pending, pending_seconds: windows not yet long enough to be looked at.
        first: windows of the reference while it is not complete.
        recent: the last windows with the time they were taken, oldest first.
        waiting: windows to be learnt once they are old enough, with their persistent score.
        moved: channels that stand out now, most first; `since` when that began, Unix seconds.
        alarmed: whether that is enough for an alarm, which `Watch` decides; nothing is learnt then.
        lasted: units that it has been so since.
        others: how much the features of devices like this one vary.
        off: how far the features were off at most while they moved, in what matters of each.
        episodes: alarms of before that ended by themselves, the newest last.
        calm: the smallest share of the last episode that was left after it.
        season: whether the present alarm is one of them that came back.
    """

    layout: Layout
    past_seconds: float
    pending: Counts | None = None
    pending_seconds: float = 0.0
    first: list[tuple[Seen, Counts]] = []
    past: Past | None = None
    recent: list[tuple[float, Seen, Counts]] = []
    waiting: list[tuple[Seen, float]] = []
    moved: tuple[Movement, ...] = ()
    since: float | None = None
    alarmed: bool = False
    lasted: int = 0
    others: Floats | None = None
    off: Floats | None = None
    episodes: list[Episode] = []
    calm: float = 1.0
    season: Season = ""

    def add(self, counts: Counts, at: float, seconds: float) -> list[float]:
        """Take a window in; gives scores that are known to be clean, for the fleet's null."""
        self.pending = counts if self.pending is None else self.pending + counts
        self.pending_seconds += seconds
        short = self.pending_seconds < self.past_seconds / MOST
        if short or self.pending.most_rows < MIN_ROWS:
            return []
        unit, length = self.pending, self.pending_seconds
        self.pending, self.pending_seconds = None, 0.0
        return self._take(unit, at, length)

    def _take(self, unit: Counts, at: float, seconds: float) -> list[float]:
        weekday = int(at // DAY + THURSDAY) % 7
        seen = Seen(np.zeros(0), unit.most_rows, int(at // 3600 % 24), weekday, seconds)
        if self.past is None:
            self.first.append((seen, unit))
            self.recent = [*self.recent[1 - PERSIST :], (at, seen, unit)]
            lasted = sum(s.seconds for s, _ in self.first)
            if len(self.first) < REFERENCE or lasted < self.past_seconds:
                return []
            return self._begin()
        values = features(unit, self.past.counts, self.past.units)
        seen = msgspec.structs.replace(seen, values=values)
        self.recent = [*self.recent[1 - PERSIST :], (at, seen, unit)]
        self.moved = self._movements(self.past)
        self._remember()
        self.lasted = self.lasted + 1 if self.alarmed else 0
        return self._learn(self.past, seen)

    def _remember(self) -> None:
        """Note when it began and whether it was so before; what ends by itself is an episode."""
        if self.moved:
            self.since = self.since or self.recent[1][0]
            if self.off is not None and self.calm <= CALM:
                self.season = self.season or season(self.since, self.off, self.episodes)
            return
        new = self.alarmed and not self.season
        if new and self.since is not None and self.off is not None:
            self.calm = 1.0
            ended = Episode(self.since, self.recent[-1][0], self.off)
            self.episodes = [*self.episodes[1 - EPISODES :], ended]
        self.since, self.season, self.off = None, "", None

    def _begin(self) -> list[float]:
        """The reference is complete."""
        whole = self.first[0][1]
        for _, unit in self.first[1:]:
            whole = whole + unit
        units = units_of(self.layout, whole)
        floors = feature_floors(floors_of(self.layout, whole))
        past = [
            msgspec.structs.replace(seen, values=features(unit, whole - unit, units))
            for seen, unit in self.first
        ]
        normal, scores = first_normal(past, floors, self.past_seconds)
        self.past = Past(whole, units, floors, normal)
        self.recent = [
            (at, seen, unit)
            for (at, _, unit), seen in zip(self.recent, past[-PERSIST:], strict=True)
        ]
        self.first = []
        return scores

    def _learn(self, past: Past, seen: Seen) -> list[float]:
        """What is learnt waits until the windows after it are known to be clean too."""
        if self.alarmed:
            self.waiting.clear()
            if self.season:
                past.normal.learn_season(seen, self.season)
            return []
        scores = [past.normal.restless(s, self.others) for _, s, _ in self.recent]
        self.waiting.append((seen, persistent(np.array(scores))))
        if len(self.waiting) <= LAG:
            return []
        old, score = self.waiting.pop(0)
        past.normal.learn(old, past.floors)
        return [score]

    def _movements(self, past: Past) -> tuple[Movement, ...]:
        """Channels that two of the last three windows show moved, and by enough; most first."""
        recent = [seen for _, seen, _ in self.recent]
        scores = np.median(past.scores(recent, self.others), axis=0)
        off = np.median([s.values - past.normal.expected(s) for s in recent], axis=0)
        size = len(self.layout.names)
        off[size : 2 * size] = np.maximum(off[size : 2 * size], 0.0)  # nearer than usual is no harm
        large = (np.abs(off) >= past.floors) & (np.abs(scores) >= NOTABLE)
        here = np.where(large, off / past.floors, 0.0)
        if self.episodes and not large.any():
            last = self.episodes[-1].off
            self.calm = min(self.calm, float(off / past.floors @ last / np.square(last).sum()))
        if self.off is None or np.square(here).sum() > np.square(self.off).sum():
            self.off = here
        strength = np.where(large, np.abs(scores), 0.0).reshape(3, size).max(axis=0)
        now = self.recent[1][2] + self.recent[2][2]
        moved = [
            self._movement(past, int(i), off, now, float(strength[i]))
            for i in np.flatnonzero(strength)
        ]
        return tuple(sorted(moved, key=lambda m: -m.score))

    def _movement(self, past: Past, i: int, off: Floats, now: Counts, score: float) -> Movement:
        size, before = len(self.layout.names), past.counts
        return Movement(
            channel=self.layout.names[i],
            psi=psi(before.bins[i], now.bins[i]),
            distance=float(off[size + i]),
            shift=float(off[i]),
            missing=float(off[2 * size + i]),
            before=float(before.means[i]),
            now=float(now.means[i]),
            score=score,
        )

    def skews(self, training: Counts) -> tuple[Movement, ...]:
        """How the reference itself, the first day in the field, differs from the training data."""
        if self.past is None:
            return ()
        field, units = self.past.counts, self.past.units
        known = (training.rows > 0) & (field.rows > 0)
        shift = np.divide(
            field.means - training.means, units, out=np.zeros(len(units)), where=known & (units > 0)
        )
        distance = np.where(known, jensen_shannon(training.bins, field.bins), 0.0)
        return tuple(
            Movement(
                channel=name,
                psi=psi(training.bins[i], field.bins[i]),
                distance=float(distance[i]),
                shift=float(shift[i]),
                missing=0.0,
                before=float(training.means[i]),
                now=float(field.means[i]),
                score=0.0,
            )
            for i, name in enumerate(self.layout.names)
            if abs(shift[i]) >= SKEW_SHIFT or distance[i] >= SKEW_DISTANCE
        )
