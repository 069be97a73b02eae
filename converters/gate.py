"""Whether a converted model may go to a board, and which of those that may is the best. Pure."""

import msgspec

from converters.accuracy import ClassDrop
from converters.facts import TfliteFacts
from converters.layers import LayerError
from converters.recipe import Precision
from edge_sdk.bundle import Metrics
from edge_sdk.profiles import HardwareProfile

# Near ties fall one way or the other: sound int8 ResNet-8s had 94.5 and 95.5 %.
MIN_KERNEL_AGREEMENT = 0.90
# LiteRT runs these wherever it runs the precision beside them; of others only what a profile names.
_ON_LITERT: dict[Precision, Precision] = {
    "float16": "float32",
    "weight-only": "float32",
    "mixed": "float32",
    "int16x8": "int8",
    "int8x4": "int8",
}
RULE = "of those that fit, the smallest when compressed (then by name)"


class Limits(msgspec.Struct, frozen=True):
    """Accuracy that may be lost, as shares: over all rows, and within any one class."""

    drop: float = 0.01
    class_drop: float = 0.1


class Measurement(msgspec.Struct, frozen=True, kw_only=True):
    """What is known about one converted model.

    Attributes:
        model_bytes: of the .tflite file: the flash it takes.
        compressed_bytes: deflated, as it is stored and sent in a bundle.
        host_ms_p50, host_ms_p90: one row on the converting host, one thread, preprocessing
            and quantising included, as an agent runs it.
        host_runs: how many runs these are the quantiles of.
        host_peak_bytes: growth of a fresh process's peak memory by loading and running it once.
        kernel_agreement: share of rows to which XNNPACK and built-in kernels give the same class.
        kernel_difference: largest difference of a score between the two.
        finite: whether every score is a number.
        classes: the drop within each class.
        worst_layers: whose answers are farthest from those of the float32 candidate, worst first;
            empty if that was not tried before, or has other operators.
    """

    facts: TfliteFacts
    metrics: Metrics
    model_bytes: int
    compressed_bytes: int
    host_ms_p50: float
    host_ms_p90: float
    host_runs: int
    host_peak_bytes: int
    kernel_agreement: float
    kernel_difference: float
    finite: bool
    classes: tuple[ClassDrop, ...] = ()
    worst_layers: tuple[LayerError, ...] = ()


def estimated_ms(measurement: Measurement, profile: HardwareProfile) -> float | None:
    """Latency on the board if the profile knows how much slower it is; an estimate, never more."""
    return None if profile.slowdown is None else measurement.host_ms_p50 * profile.slowdown


def ram_needed(measurement: Measurement, profile: HardwareProfile) -> int:
    """Bytes of RAM the model takes.

    On a microcontroller the live tensors (weights stay in flash), elsewhere what a process on the
    host grew by.
    """
    if profile.runtime == "tflite-micro":
        return measurement.facts.tensor_bytes
    return measurement.host_peak_bytes


def reasons_to_refuse(
    measurement: Measurement, profile: HardwareProfile, limits: Limits
) -> list[str]:
    """Why this model may not go to this board, in words; an empty list means it may."""
    found = (
        _precision(measurement.facts, profile),
        _ops(measurement.facts, profile),
        _size(measurement, profile),
        _ram(measurement, profile),
        _latency(measurement, profile),
        _answers(measurement),
        _drop(measurement.metrics, limits.drop),
        _class_drop(measurement.classes, limits.class_drop),
    )
    return [reason for reason in found if reason]


def best(fitting: dict[str, Measurement]) -> str | None:
    """The recipe to take of those that fit, by `RULE`; None if there is none."""
    return min(fitting, key=lambda name: (fitting[name].compressed_bytes, name), default=None)


def _precision(facts: TfliteFacts, profile: HardwareProfile) -> str | None:
    if profile.runtime == "edgetpu" and facts.precision != "int8":
        return f"the Edge TPU runs full int8 only, this is {facts.precision}"
    if profile.runtime == "edgetpu" and not facts.static_shapes:
        return "the Edge TPU needs fixed tensor sizes"
    if profile.runtime == "tflite-micro" and facts.precision == "dynamic-range":
        return "TFLite Micro does not run hybrid models (int8 weights, float activations)"
    needed = facts.precision
    if profile.runtime == "litert":
        needed = _ON_LITERT.get(needed, needed)
    if needed not in profile.precisions:
        return f"{profile.name} runs {', '.join(profile.precisions)}, this is {facts.precision}"
    return None


def _ops(facts: TfliteFacts, profile: HardwareProfile) -> str | None:
    custom = [op for op in facts.ops if op.startswith("CUSTOM:")]
    unknown = [op for op in facts.ops if profile.ops and op not in profile.ops]
    refused = sorted({*custom, *unknown})
    return f"op not run by {profile.name}: {', '.join(refused)}" if refused else None


def _size(measurement: Measurement, profile: HardwareProfile) -> str | None:
    if measurement.model_bytes <= profile.flash_bytes:
        return None
    return f"{measurement.model_bytes:,} bytes do not fit {profile.flash_bytes:,} of flash"


def _ram(measurement: Measurement, profile: HardwareProfile) -> str | None:
    needed = ram_needed(measurement, profile)
    if needed <= profile.ram_bytes:
        return None
    return f"needs {needed:,} bytes of RAM, {profile.ram_bytes:,} are there"


def _latency(measurement: Measurement, profile: HardwareProfile) -> str | None:
    estimate = estimated_ms(measurement, profile)
    if estimate is None or estimate <= profile.latency_budget_ms:
        return None
    return f"about {estimate:.3g} ms, the budget is {profile.latency_budget_ms:g} ms"


def _answers(measurement: Measurement) -> str | None:
    if not measurement.finite:
        return "gives scores that are not numbers"
    if measurement.kernel_agreement < MIN_KERNEL_AGREEMENT:
        return (
            "XNNPACK and built-in kernels give the same class on only "
            f"{measurement.kernel_agreement:.1%} of rows"
        )
    return None


def _drop(metrics: Metrics, max_drop: float) -> str | None:
    # counts of rows divided: a drop of exactly the limit must not fail by rounding
    if metrics.drop <= max_drop + 1e-9:
        return None
    return f"loses {metrics.drop * 100:.2f} points of accuracy, allowed {max_drop * 100:.2f}"


def _class_drop(classes: tuple[ClassDrop, ...], max_drop: float) -> str | None:
    """Only what the interval makes sure of is refused: a rare class has few rows and much noise."""
    worst = max(classes, key=lambda found: (found.low, found.label), default=None)
    if worst is None or worst.low <= max_drop:
        return None
    return (
        f"class {worst.label} loses {worst.drop * 100:.1f} points in its {worst.rows:,} rows, "
        f"at least {worst.low * 100:.1f}, allowed {max_drop * 100:.1f}"
    )
