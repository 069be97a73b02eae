"""The `hp` that a user's `build_model(hp)` gets: its hyperparameters, in keras-tuner's words.

Worker only. The first call only listens which there are (each gives its default); later calls give
the values that the search chose.
"""

import math
from collections.abc import Mapping, Sequence

from converters.space import Hyper

Value = int | float | str | bool
_STEPS = 5  # values of a float without a step


class HyperParameters:
    """What `build_model` asks; `asked` is what it asked for so far."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = values
        self.asked: dict[str, Hyper] = {}

    def Int(  # noqa: N802 - keras-tuner's name, as those below
        self, name: str, min_value: int, max_value: int, step: int = 1, default: int | None = None
    ) -> int:
        """An integer from min_value to max_value, both included."""
        among = range(min_value, max_value + 1, step)
        return int(self._given(name, [str(n) for n in among], default))

    def Float(  # noqa: N802
        self, name: str, min_value: float, max_value: float, step: float | None = None,
        default: float | None = None,
    ) -> float:  # fmt: skip
        """A number from min_value to max_value; without a step one of five, evenly."""
        count = _STEPS if step is None else math.floor((max_value - min_value) / step + 1.5)
        width = (max_value - min_value) / (_STEPS - 1) if step is None else step
        among = [f"{min_value + i * width:.6g}" for i in range(count)]
        return float(self._given(name, among, default))

    def Choice(  # noqa: N802
        self, name: str, values: Sequence[Value], default: Value | None = None
    ) -> Value:
        """One of the values."""
        said = self._given(name, [str(value) for value in values], default)
        return next(value for value in values if str(value) == said)

    def Boolean(self, name: str, default: bool = False) -> bool:  # noqa: N802, FBT001, FBT002
        """True or false."""
        return self._given(name, ["False", "True"], default) == "True"

    def _given(self, name: str, among: list[str], default: Value | None) -> str:
        self.asked[name] = Hyper(name, tuple(among))
        first = among[0] if default is None else str(default)
        return self._values.get(name, first)
