"""Whether a converted model may go to a board, and which of those that may is the best. Pure."""

import msgspec

from converters.accuracy import SliceDrop
from converters.facts import TfliteFacts
from converters.findings import Elsewhere, Fallback
from converters.layers import LayerError
from converters.steps import Precision
from edge_sdk.bundle import Metrics
from edge_sdk.profiles import HardwareProfile, Runtime

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
_ROUNDING = 1e-9  # counts of rows divided: a drop of exactly the limit must not fail by it
RULE = (
    "of those that fit, the smallest when compressed whose drop is surely allowed (its 95 % "
    "interval); if none is sure, the smallest"
)


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
        classes, slices: the drop within each class, and each value of a metadata column.
        worst_layers: whose answers are farthest from those of the float32 candidate, worst first;
            empty if that was not tried before, or has other operators.
        elsewhere: what it did on the boards' runtimes that are not LiteRT.
        fallbacks: operators that the Edge TPU would leave to the CPU, if a board has one.
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
    classes: tuple[SliceDrop, ...] = ()
    slices: tuple[SliceDrop, ...] = ()
    worst_layers: tuple[LayerError, ...] = ()
    elsewhere: dict[Runtime, Elsewhere] = {}
    fallbacks: tuple[Fallback, ...] = ()


def estimated_ms(measurement: Measurement, profile: HardwareProfile) -> float | None:
    """Latency on the board if the profile knows how much slower it is; an estimate, never more."""
    return None if profile.slowdown is None else measurement.host_ms_p50 * profile.slowdown


def ram_needed(measurement: Measurement, profile: HardwareProfile) -> int:
    """Bytes of RAM the model takes.

    On a microcontroller the arena that TFLite Micro took (where it is not here: the live tensors;
    weights stay in flash), elsewhere what a process on the host grew by.
    """
    if profile.runtime == "tflite-micro":
        found = measurement.elsewhere.get(profile.runtime)
        return (found and found.arena_bytes) or measurement.facts.tensor_bytes
    return measurement.host_peak_bytes


def reasons_to_refuse(
    measurement: Measurement, profile: HardwareProfile, limits: Limits
) -> list[str]:
    """Why this model may not go to this board, in words; an empty list means it may."""
    found = (
        _precision(measurement.facts, profile),
        _ops(measurement, profile),
        _size(measurement, profile),
        _ram(measurement, profile),
        _latency(measurement, profile),
        _answers(measurement),
        _elsewhere(measurement, profile),
        _drop(measurement.metrics, limits.drop),
        _slice_drop(measurement.classes, limits.class_drop, "class "),
        _slice_drop(measurement.slices, limits.class_drop, ""),
    )
    return [reason for reason in found if reason]


def why_not_precision(precision: Precision, profile: HardwareProfile) -> str | None:
    """Why a board runs no model of this precision; None if it does."""
    if profile.runtime == "edgetpu" and precision != "int8":
        return f"the Edge TPU runs full int8 only, this is {precision}"
    if profile.runtime == "tflite-micro" and precision == "dynamic-range":
        return "TFLite Micro does not run hybrid models (int8 weights, float activations)"
    needed = precision
    if profile.runtime == "litert":
        needed = _ON_LITERT.get(needed, needed)
    if needed not in profile.precisions:
        return f"{profile.name} runs {', '.join(profile.precisions)}, this is {precision}"
    return None


def proven(metrics: Metrics, limits: Limits) -> bool:
    """Whether even the worse end of the drop's interval is allowed."""
    return metrics.drop_high <= limits.drop + _ROUNDING


def best(fitting: dict[str, Measurement], limits: Limits) -> str | None:
    """The recipe to take of those that fit, by `RULE`; None if there is none."""
    sure = {name: one for name, one in fitting.items() if proven(one.metrics, limits)} or fitting
    return min(sure, key=lambda name: (sure[name].compressed_bytes, name), default=None)


def fastest(measured: dict[str, Measurement]) -> str | None:
    """The recipe whose slow tenth beats the median of all others; None within the noise."""
    first = min(measured, key=lambda name: measured[name].host_ms_p50, default=None)
    if first is None:
        return None
    others = [one.host_ms_p50 for name, one in measured.items() if name != first]
    return first if all(measured[first].host_ms_p90 < other for other in others) else None


def _precision(facts: TfliteFacts, profile: HardwareProfile) -> str | None:
    if profile.runtime == "edgetpu" and facts.precision == "int8" and not facts.static_shapes:
        return "the Edge TPU needs fixed tensor sizes"
    return why_not_precision(facts.precision, profile)


def _ops(measurement: Measurement, profile: HardwareProfile) -> str | None:
    facts = measurement.facts
    if profile.runtime == "edgetpu" and facts.precision == "int8" and measurement.fallbacks:
        first = measurement.fallbacks[0]
        more = len(measurement.fallbacks) - 1
        after = f"; so do {more} more" if more else ""
        return f"{first.op} {first.name} would fall back to the CPU: {first.reason}{after}"
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
            "XNNPACK and built-in kernels give the same answer on only "
            f"{measurement.kernel_agreement:.1%} of rows"
        )
    return None


def _elsewhere(measurement: Measurement, profile: HardwareProfile) -> str | None:
    """Nothing goes to a runtime on which it was not seen to work, if that can be had at all."""
    found = measurement.elsewhere.get(profile.runtime)
    if found is None or (found.unchecked and profile.runtime == "tflite-micro"):
        return None  # LiteRT; or a host that TFLite Micro has no package for
    if found.unchecked:
        return f"not tried on {profile.runtime}: {found.unchecked}"
    if found.problem:
        return f"{profile.runtime} does not run it: {found.problem}"
    if found.agreement < MIN_KERNEL_AGREEMENT:
        return (
            f"{profile.runtime} gives the same answer as LiteRT on only {found.agreement:.1%} "
            "of rows"
        )
    return None


def _drop(metrics: Metrics, max_drop: float) -> str | None:
    if metrics.drop <= max_drop + _ROUNDING:
        return None
    return (
        f"loses {metrics.drop * 100:.2f} points of {metrics.quality}, allowed {max_drop * 100:.2f}"
    )


def _slice_drop(slices: tuple[SliceDrop, ...], max_drop: float, what: str) -> str | None:
    """Only what the interval makes sure of is refused: a rare class has few rows and much noise."""
    worst = max(slices, key=lambda found: (found.low, found.label), default=None)
    if worst is None or worst.low <= max_drop:
        return None
    return (
        f"{what}{worst.label} loses {worst.drop * 100:.1f} points in its {worst.rows:,} rows, "
        f"at least {worst.low * 100:.1f}, allowed {max_drop * 100:.1f}"
    )
