"""TensorFlow Data Validation's schema and statistics, in and out (extra `tfdv`).

The protocol buffers are tensorflow-metadata's own; text format, as TFDV's own tools write it.
Features are our input channels without `input.`.
"""

import importlib
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from edge_sdk.errors import FormatError, InvalidInputError
from edge_sdk.sketch import Channel, Sketch
from fleet_server.decay.past import DISTANCE_FLOOR
from fleet_server.expectations import Expectation, Suite

_PROTO = "tensorflow_metadata.proto.v0"


def schema_text(channels: Mapping[str, Channel], seen: Mapping[str, Sketch]) -> str:
    """A schema: type, presence, domain and drift comparator of every input channel that was seen.

    Raises:
        InvalidInputError: the extra is missing.
    """
    schema = _module("schema_pb2").Schema()
    for name, channel in sorted(channels.items()):
        if not name.startswith("input.") or name not in seen:
            continue
        feature = schema.feature.add(name=name.removeprefix("input."))
        feature.presence.min_fraction = 1.0
        feature.presence.min_count = 1
        threshold = feature.drift_comparator.jensen_shannon_divergence
        threshold.threshold = DISTANCE_FLOOR**2
        if channel.kind == "numeric":
            feature.type = _module("schema_pb2").FLOAT
            # A schema holds 32-bit numbers: rounded outwards, so that what was seen fits.
            feature.float_domain.min = np.nextafter(np.float32(seen[name].low), -np.inf)
            feature.float_domain.max = np.nextafter(np.float32(seen[name].high), np.inf)
        else:
            feature.type = _module("schema_pb2").BYTES
            feature.string_domain.value.extend(channel.categories)
    return _text(schema)


def statistics_text(
    model: str, rows: int, channels: Mapping[str, Channel], seen: Mapping[str, Sketch]
) -> str:
    """Statistics of added windows; histograms are of our quantile bins."""
    stats = _module("statistics_pb2").DatasetFeatureStatisticsList()
    dataset = stats.datasets.add(name=model, num_examples=rows)
    for name, channel in sorted(channels.items()):
        sketch = seen.get(name)
        if sketch is None or not name.startswith("input."):
            continue
        feature = dataset.features.add()
        feature.path.step.append(name.removeprefix("input."))
        if channel.kind == "numeric":
            feature.type = _module("statistics_pb2").FeatureNameStatistics.FLOAT
            _numeric(feature.num_stats, channel, sketch)
        else:
            feature.type = _module("statistics_pb2").FeatureNameStatistics.STRING
            _common(feature.string_stats.common_stats, sketch)
            feature.string_stats.unique = sum(count > 0 for count in sketch.counts)
            for category, count in zip(channel.categories, sketch.counts, strict=False):
                feature.string_stats.rank_histogram.buckets.add(label=category, sample_count=count)
    return _text(stats)


def read_schema(text: str) -> Suite:
    """A TFDV schema as expectations on windows.

    Raises:
        FormatError: it can't be read.
        InvalidInputError: the extra is missing.
    """
    schema = _parse(text, _module("schema_pb2").Schema(), "the schema")
    shared = {domain.name: domain for domain in schema.string_domain}
    found: list[Expectation] = []
    for feature in schema.feature:
        column = {"column": feature.name}
        if feature.presence.HasField("min_fraction"):
            share = {"mostly": feature.presence.min_fraction}
            found.append(Expectation("expect_column_values_to_not_be_null", column | share))
        kind = feature.WhichOneof("domain_info")
        if kind in ("float_domain", "int_domain"):
            domain = getattr(feature, kind)
            ends = {
                f"{end}_value": float(getattr(domain, end))
                for end in ("min", "max")
                if domain.HasField(end)
            }
            found.append(Expectation("expect_column_values_to_be_between", column | ends))
        elif kind == "string_domain" or feature.domain in shared:
            own = feature.string_domain if kind == "string_domain" else shared[feature.domain]
            values = {"value_set": list(own.value)}
            found.append(Expectation("expect_column_values_to_be_in_set", column | values))
    return Suite(tuple(found))


def read_statistics(text: str) -> dict[str, Sketch]:
    """What other statistics say of each numeric feature: rows, missing, mean, spread, ends.

    Their bins are not ours, so the counts stay empty.
    """
    stats = _parse(text, _module("statistics_pb2").DatasetFeatureStatisticsList(), "the statistics")
    found: dict[str, Sketch] = {}
    for feature in (f for dataset in stats.datasets for f in dataset.features):
        if feature.WhichOneof("stats") != "num_stats":
            continue
        numbers, name = feature.num_stats, feature.name or ".".join(feature.path.step)
        rows = int(numbers.common_stats.num_non_missing)
        square = numbers.std_dev**2 + numbers.mean**2
        found[f"input.{name}"] = Sketch(
            [],
            rows,
            int(numbers.common_stats.num_missing),
            rows * numbers.mean,
            rows * square,
            numbers.min,
            numbers.max,
        )
    return found


def _numeric(numbers: Any, channel: Channel, sketch: Sketch) -> None:  # noqa: ANN401 - a protobuf
    _common(numbers.common_stats, sketch)
    numbers.mean, numbers.std_dev = sketch.mean, math.sqrt(sketch.variance)
    numbers.min, numbers.max = sketch.low, sketch.high
    # TFDV compares histograms of the standard type alone, whose buckets may be of any width.
    histogram = numbers.histograms.add(type=_module("statistics_pb2").Histogram.STANDARD)
    ends = [min(sketch.low, *channel.edges), *channel.edges, max(sketch.high, *channel.edges)]
    for low, high, count in zip(ends, ends[1:], sketch.counts, strict=False):
        histogram.buckets.add(low_value=low, high_value=high, sample_count=count)


def _common(common: Any, sketch: Sketch) -> None:  # noqa: ANN401 - a protobuf
    common.num_non_missing, common.num_missing = sketch.rows, sketch.missing
    common.min_num_values = common.max_num_values = 1
    common.avg_num_values = 1.0


def _module(name: str) -> Any:  # noqa: ANN401 - optional, and generated
    try:
        return importlib.import_module(f"{_PROTO}.{name}")
    except ModuleNotFoundError as error:
        raise InvalidInputError(
            "TFDV's formats need tensorflow-metadata: pip install 'edge-deployment-sdk[tfdv]'"
        ) from error


def _text(message: Any) -> str:  # noqa: ANN401 - a protobuf
    written: str = importlib.import_module("google.protobuf.text_format").MessageToString(message)
    return written


def _parse(text: str, into: Any, what: str) -> Any:  # noqa: ANN401 - a protobuf
    formats = importlib.import_module("google.protobuf.text_format")
    try:
        return formats.Parse(text, into)
    except formats.ParseError as error:
        raise FormatError(f"{what} can't be read: {error}") from error
