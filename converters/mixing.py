"""Which layers may be lowered: the order of harm per byte saved, then as many as allowed. Pure."""

from collections.abc import Callable, Mapping

import msgspec


class Effect(msgspec.Struct, frozen=True):
    """What lowering some layers does to the answers on calibration rows.

    Attributes:
        harm: mean squared difference of scores from those of the float model.
        changed: share of rows with another class than from the float model.
    """

    harm: float
    changed: float


def lowered(
    savings: Mapping[str, int], effect: Callable[[frozenset[str]], Effect], most_changed: float
) -> frozenset[str]:
    """The layers to lower.

    Args:
        savings: bytes saved by lowering each layer.
        effect: of lowering exactly these layers.
        most_changed: share of rows that may change class; what none lowered does is allowed too.

    >>> harms = {"a": 0.3, "b": 0.1, "c": 0.2}
    >>> effect = lambda low: Effect(sum(harms[n] for n in low), sum(harms[n] for n in low))
    >>> sorted(lowered({"a": 10, "b": 10, "c": 10}, effect, 0.35))
    ['b', 'c']
    """
    order = sorted(savings, key=lambda name: effect(frozenset({name})).harm / savings[name])
    taken: frozenset[str] = frozenset()
    for name in order:
        if effect(taken | {name}).changed <= most_changed:
            taken |= {name}
    return taken
