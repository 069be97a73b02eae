"""Expectations on windows, in Great Expectations' words, judged on sketches instead of rows. Pure.

What a sketch knows exactly is judged exactly (least, largest, mean, standard deviation, missing
values, categories); how many values lie in an interval is known up to the bins at its ends, and an
expectation only fails if it fails whatever these hold.
"""

import math
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from edge_sdk.errors import FormatError, InvalidInputError
from edge_sdk.sketch import Channel, Sketch


class Expectation(msgspec.Struct, frozen=True):
    """One expectation: its type and arguments."""

    type: str
    kwargs: dict[str, object]


class Suite(msgspec.Struct, frozen=True):
    """Expectations that are judged together."""

    expectations: tuple[Expectation, ...]


class _Entry(msgspec.Struct, frozen=True):
    """An expectation in a file: its type is `type` since Great Expectations 1.0."""

    kwargs: dict[str, object]
    type: str = ""
    expectation_type: str = ""


class _File(msgspec.Struct, frozen=True):
    """A suite as Great Expectations writes it; what else is in the file is ignored."""

    expectations: tuple[_Entry, ...]


class Verdict(msgspec.Struct, frozen=True):
    """What became of one expectation.

    Attributes:
        observed: what was seen, in words.
    """

    column: str
    expectation: str
    success: bool
    observed: str


def read_suite(data: bytes) -> Suite:
    """A suite's JSON; raises FormatError."""
    try:
        found = msgspec.json.decode(data, type=_File).expectations
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FormatError(f"the suite can't be read: {error}") from error
    named = tuple(Expectation(one.type or one.expectation_type, one.kwargs) for one in found)
    if not all(one.type for one in named):
        raise FormatError("the suite can't be read: an expectation has no type")
    if any(one.kwargs.get("row_condition") for one in named):
        raise FormatError("a row_condition can't be judged: sketches tell no row from another")
    return Suite(named)


def judge(
    suite: Suite, channels: Mapping[str, Channel], seen: Mapping[str, Sketch]
) -> list[Verdict]:
    """Every expectation of the suite on what was seen.

    Args:
        suite: its columns are channels, with or without `input.`.
        channels: edges and categories, from the bundle's baseline.
        seen: added sketches.

    Raises:
        InvalidInputError: an expectation that sketches can't answer, or wrong arguments.
    """
    return [_judge(one, channels, seen) for one in suite.expectations]


def _judge(
    one: Expectation, channels: Mapping[str, Channel], seen: Mapping[str, Sketch]
) -> Verdict:
    column = str(one.kwargs.get("column", ""))
    name = column if column in channels else f"input.{column}"
    short = one.type.removeprefix("expect_column_")
    sketch, channel = seen.get(name), channels.get(name)
    if sketch is None or channel is None:
        return Verdict(column, short, success=False, observed="no such channel")
    low, high = _ends(one)
    mostly = _number(one, "mostly", 1.0)
    total = sketch.rows + sketch.missing
    match short:
        case "to_exist":
            return Verdict(column, short, success=True, observed="it is there")
        case "values_to_not_be_null":
            share = 1 - sketch.missing / max(total, 1)
            return Verdict(column, short, share >= mostly, f"{share:.4f} of the values are there")
        case "min_to_be_between":
            return _within(column, short, sketch.low, low, high)
        case "max_to_be_between":
            return _within(column, short, sketch.high, low, high)
        case "mean_to_be_between":
            return _within(column, short, sketch.mean, low, high)
        case "stdev_to_be_between":  # of a sample, as pandas and SQL have it
            sample = sketch.variance * sketch.rows / max(sketch.rows - 1, 1)
            return _within(column, short, math.sqrt(sample), low, high)
        case "values_to_be_between":
            share = _most_within(sketch, channel, low, high)
            return Verdict(column, short, share >= mostly, f"at most {share:.4f} are within")
        case "values_to_be_in_set":
            share = _in_set(sketch, channel, one.kwargs.get("value_set"))
            return Verdict(column, short, share >= mostly, f"{share:.4f} are in the set")
        case _:
            raise InvalidInputError(f"{one.type[:80]!r} can't be judged on sketches of windows")


def _within(column: str, short: str, value: float, low: float, high: float) -> Verdict:
    return Verdict(column, short, low <= value <= high, f"{value:.6g}")


def _most_within(sketch: Sketch, channel: Channel, low: float, high: float) -> float:
    """The largest share of values that can lie in the interval, given the bins."""
    if not sketch.rows:
        return 1.0
    if channel.kind != "numeric":
        raise InvalidInputError("a category has no interval: use values_to_be_in_set")
    ends = np.array([sketch.low, *channel.edges, sketch.high])
    touching = (ends[1:] >= low) & (ends[:-1] <= high)
    share = float(np.array(sketch.counts)[touching].sum()) / sketch.rows
    outside = (sketch.low < low) + (sketch.high > high)  # at least these were seen outside
    return min(share, 1 - outside / sketch.rows)


def _in_set(sketch: Sketch, channel: Channel, values: object) -> float:
    if channel.kind != "category" or not isinstance(values, Sequence):
        raise InvalidInputError("values_to_be_in_set needs a channel of categories and a value_set")
    wanted = [i for i, name in enumerate(channel.categories) if name in values]
    return sum(sketch.counts[i] for i in wanted) / max(sketch.rows, 1)


def _ends(one: Expectation) -> tuple[float, float]:
    """Of an interval; one that is open at an end begins at the next number."""
    low, high = _number(one, "min_value", -math.inf), _number(one, "max_value", math.inf)
    if one.kwargs.get("strict_min"):
        low = math.nextafter(low, math.inf)
    if one.kwargs.get("strict_max"):
        high = math.nextafter(high, -math.inf)
    return low, high


def _number(one: Expectation, key: str, default: float) -> float:
    value = one.kwargs.get(key)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
        raise InvalidInputError(f"{key} of {one.type[:80]} is {value!r}, no number")
    return float(value)
