"""PURE: how often somebody may do something: a bucket of tokens each, filled at a steady rate."""

import math
from collections import OrderedDict

MAX_KNOWN = 10_000


class Buckets:
    """One bucket for each key; the longest unused are forgotten beyond `MAX_KNOWN`.

    >>> buckets = Buckets(rate=1.0, burst=2)
    >>> [buckets.take("a", now=0.0) for _ in range(3)], buckets.take("a", now=1.5)
    ([0.0, 0.0, 1.0], 0.0)
    """

    def __init__(self, *, rate: float, burst: int) -> None:
        """`rate` a second on the long run, `burst` at once."""
        self._rate, self._burst = rate, burst
        self._held: OrderedDict[str, tuple[float, float]] = OrderedDict()  # tokens, at

    def take(self, key: str, now: float) -> float:
        """0.0 if it may be done now; else in how many seconds it may."""
        left = self.left(key, now)
        if left >= 1:
            self._held[key] = left - 1, now
            self._held.move_to_end(key)
            while len(self._held) > MAX_KNOWN:
                self._held.popitem(last=False)
            return 0.0
        return float(math.ceil((1 - left) / self._rate))

    def left(self, key: str, now: float) -> float:
        tokens, at = self._held.get(key, (float(self._burst), now))
        return min(self._burst, tokens + max(now - at, 0.0) * self._rate)
