"""How many bytes may go out today, decided. Pure.

The allowance grows evenly over the day and is never more than a few hours' worth, so that a device
that was silent for weeks does not spend a week's money in a minute.
"""

DAY = 86_400.0
HORIZON = DAY / 8  # seconds of allowance that may gather


class Budget:
    """`per_day` bytes; 0 is no limit."""

    def __init__(self, per_day: int, now: float) -> None:
        self._per_day, self._then = per_day, now
        self._left = self.horizon

    @property
    def limited(self) -> bool:
        """Whether there is a budget at all."""
        return self._per_day > 0

    @property
    def horizon(self) -> float:
        """Bytes that may gather."""
        return self._per_day * HORIZON / DAY

    def left(self, now: float) -> float:
        """Bytes that may go out now; below zero while what went was more than allowed."""
        grown = self._per_day * max(0.0, now - self._then) / DAY
        self._left, self._then = min(self._left + grown, self.horizon), now
        return self._left

    def spend(self, size: int) -> None:
        """So many bytes went out."""
        self._left -= size
