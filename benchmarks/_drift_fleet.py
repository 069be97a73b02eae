"""A simulated fleet whose sensors wander: autocorrelated, with a rhythm of the day, and no fault.

200 devices at 10 sites send a window of 600 rows an hour, 74 numeric channels each. A channel's
mean in a window is its device's own level, a rhythm over the day, the weather of its site (AR(1)
with a memory of 10 hours), a wandering of its own (AR(1), 5 hours) and a change from day to day.
"""

import math
from collections.abc import Iterator
from statistics import NormalDist

import msgspec
import numpy as np

from edge_sdk.messages import Window
from edge_sdk.sketch import Baseline, Channel, Sketch
from fleet_server.decay import Place, Taken

HOUR = 3600.0
ROWS = 600
BINS = 20
START = 1_799_971_200.0  # a midnight
_EDGES = tuple(NormalDist().inv_cdf(i / BINS) for i in range(1, BINS))
_SQRT2 = math.sqrt(2.0)


class Wander(msgspec.Struct, frozen=True):
    """How much a channel's mean moves, in standard deviations of the training data."""

    level: float = 0.3
    rhythm: float = 0.5
    weather: float = 0.15
    own: float = 0.1
    daily: float = 0.08


class Fleet:
    """Windows hour by hour; `shift` (devices, channels) adds a fault to the means."""

    def __init__(
        self, devices: int, sites: int, channels: int, seed: int, wander: Wander | None = None
    ) -> None:
        self.rng = np.random.default_rng(seed)
        self.wander = wander or Wander()
        self.site = np.arange(devices) % sites
        self.names = [f"input.x{c}" for c in range(channels)]
        self.baseline = Baseline({name: _channel() for name in self.names}, 10_000)
        shape = (devices, channels)
        w = self.wander
        self._level = self.rng.normal(0, w.level, shape)
        self._size = self.rng.uniform(0, w.rhythm, shape)
        self._phase = self.rng.uniform(0, 2 * math.pi, shape)
        self._weather = self.rng.normal(0, w.weather, (sites, channels))
        self._own = self.rng.normal(0, w.own, shape)
        self._today = self.rng.normal(0, w.daily, shape)
        self.shift = np.zeros(shape)
        self.hour = 0

    @property
    def places(self) -> list[Place]:
        return [Place(f"d{i:04}", f"s{s}", "p") for i, s in enumerate(self.site)]

    def means(self) -> np.ndarray:
        """Of the next hour (devices, channels)."""
        w, rng = self.wander, self.rng
        self._weather = _ar(self._weather, math.exp(-1 / 10), w.weather, rng)
        self._own = _ar(self._own, math.exp(-1 / 5), w.own, rng)
        if self.hour % 24 == 0:
            self._today = rng.normal(0, w.daily, self._own.shape)
        rhythm = self._size * np.sin(2 * math.pi * self.hour / 24 + self._phase)
        return (
            self._level + rhythm + self._weather[self.site] + self._own + self._today + self.shift
        )

    def next_hour(self) -> Iterator[Taken]:
        """Every device's window of the next hour."""
        means = self.means()
        at = START + self.hour * HOUR
        self.hour += 1
        for i, row in enumerate(means):
            yield Taken(f"d{i:04}", at, self._window(row), self.baseline)

    def _window(self, means: np.ndarray) -> Window:
        cuts = np.asarray(_EDGES)[None, :] - means[:, None]
        below = np.concatenate(
            [np.zeros((len(means), 1)), _normal_cdf(cuts), np.ones((len(means), 1))], axis=1
        )
        counts = self.rng.multinomial(ROWS, np.diff(below, axis=1))
        sampled = means + self.rng.normal(0, 1 / math.sqrt(ROWS), len(means))
        channels = {
            name: Sketch(c, ROWS, 0, ROWS * m, ROWS * (m * m + 1), m - 3, m + 3)
            for name, c, m in zip(self.names, counts.tolist(), sampled.tolist(), strict=True)
        }
        return Window(
            model="m", version="1", digest="d1", edges_id="e", seconds=HOUR, rows=ROWS,
            channels=channels,
        )  # fmt: skip


def _ar(values: np.ndarray, memory: float, sd: float, rng: np.random.Generator) -> np.ndarray:
    return memory * values + rng.normal(0, sd * math.sqrt(1 - memory**2), values.shape)


def _channel() -> Channel:
    counts = tuple([500] * BINS)
    return Channel(kind="numeric", edges=_EDGES, counts=counts, mean=0.0, sd=1.0)


def _normal_cdf(values: np.ndarray) -> np.ndarray:
    """Abramowitz & Stegun 26.2.17, |error| < 7.5e-8."""
    x = np.abs(values)
    t = 1 / (1 + 0.2316419 * x)
    tail = (
        np.exp(-x * x / 2)
        / math.sqrt(2 * math.pi)
        * t
        * (
            0.319381530
            + t * (-0.356563782 + t * (1.781477937 + t * (-1.821255978 + t * 1.330274429)))
        )
    )
    return np.where(values > 0, 1 - tail, tail)
