"""A float .tflite file quantised by ai-edge-quantizer; TensorFlow takes no part. Worker only."""

import contextlib
import re
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
from ai_edge_quantizer import calibrator, quantizer, recipe, recipe_manager
from ai_edge_quantizer.utils import qsv_utils
from numpy.typing import NDArray

from converters.accuracy import agreement
from converters.dialogue import Rows
from converters.flatbuffer import read_model, slim, with_signature
from converters.layers import read_layers
from converters.layerwise import every_tensor
from converters.mixing import Effect, lowered
from converters.ranges import BINS, narrowed
from converters.steps import Mix, Quantise, WeightOnly, Writing
from edge_sdk.bundle import Task
from edge_sdk.channels import Preprocessing
from edge_sdk.interpreter import LiteRt

_Algorithm = quantizer.AlgorithmName
_MIXING_ROWS = 300  # each trial of a mix runs them
_WORTH_IT = 1024  # weights: lowering fewer saves next to nothing


def rewrite(model: bytes, step: Writing, calibration: Rows, task: Task = "classification") -> bytes:
    """A float model at other precisions.

    Args:
        model: of float32.
        step: what is wanted.
        calibration: model inputs (n, *shape) from which activations take their ranges.
        task: what its answers are.
    """
    if step == Quantise("float32"):
        return model
    float_model = with_signature(slim(model))  # short names: they tell layers apart below
    if isinstance(step, Mix):
        return _mix(float_model, step, calibration, task)
    made = quantizer.Quantizer(float_model)
    _set_up(made, step)
    ranges = _ranges(made, float_model, calibration)
    if isinstance(step, Quantise) and step.ranges != "min-max" and ranges:
        _narrow(ranges, step, float_model, calibration)
    return _quantised(made, ranges)


def _narrow(ranges: Any, step: Quantise, model: bytes, calibration: Rows) -> None:  # noqa: ANN401
    """Ranges of activations, each a mapping with `min` and `max`, narrowed in place."""
    if step.ranges == "min-max":
        return
    counts: dict[str, NDArray[np.float64]] = {}
    for name, values in every_tensor(model, calibration):
        found = ranges.get(name)
        if found is not None and np.size(found["min"]) == 1:
            limits = (float(np.ravel(found["min"])[0]), float(np.ravel(found["max"])[0]))
            binned, _ = np.histogram(values, BINS, limits)
            counts[name] = counts.get(name, np.zeros(BINS)) + binned
    for name, found in counts.items():
        low, high = np.asarray(ranges[name]["min"]), np.asarray(ranges[name]["max"])
        ends = narrowed(found, float(low.ravel()[0]), float(high.ravel()[0]), step.ranges)
        ranges[name] |= {
            end: np.full(array.shape, value, array.dtype)
            for end, array, value in (("min", low, ends[0]), ("max", high, ends[1]))
        }


def _set_up(made: Any, step: Quantise | WeightOnly) -> None:  # noqa: ANN401 - it ships no types
    if isinstance(step, WeightOnly):
        algorithm = _Algorithm.OCTAV if step.bits < 8 else _Algorithm.MIN_MAX_UNIFORM_QUANT
        made.add_weight_only_config(".*", "*", step.bits, algorithm_key=algorithm)
        return
    match step.precision:
        case "int8":
            made.load_quantization_recipe(recipe.static_wi8_ai8())
        case "int16x8":
            made.load_quantization_recipe(recipe.static_wi8_ai16())
        case "dynamic-range":
            made.load_quantization_recipe(recipe.dynamic_wi8_afp32())
            # with a scale for each channel tflite-runtime 2.14 gives wrong answers, silently
            made.add_dynamic_config(
                ".*", "FULLY_CONNECTED", 8, granularity=recipe.QuantGranularity.TENSORWISE
            )
        case "float16" | "float32":
            made.add_weight_only_config(".*", "*", 16, algorithm_key=_Algorithm.FLOAT_CASTING)
    if step.io == "float" and step.precision in {"int8", "int16x8"}:
        for end in ("INPUT", "OUTPUT"):
            made.update_quantization_recipe(".*", end, algorithm_key=_Algorithm.NO_QUANTIZE)


def _ranges(made: Any, model: bytes, calibration: Rows) -> Any:  # noqa: ANN401
    if not made.need_calibration:
        return None
    [signature] = read_model(model).signatureDefs
    given = signature.inputs[0].name.decode()
    rows = [{given: row[np.newaxis]} for row in calibration]
    # not `made.calibrate`: its moving averages of each row's range cut off what few rows reach
    recipes = recipe_manager.RecipeManager()
    recipes.load_quantization_recipe(made.get_quantization_recipe())
    with _without_warnings():
        seen = calibrator.Calibrator(model, num_threads=1, qsv_update_func=qsv_utils.min_max_update)
        seen.calibrate({signature.signatureKey.decode(): rows}, recipes)
        return seen.get_model_qsvs()


def _quantised(made: Any, ranges: Any) -> bytes:  # noqa: ANN401
    with _without_warnings():
        return bytes(made.quantize(ranges, enable_progress_report=False).quantized_model)


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    """LiteRT warns that all tensors are kept in memory: ai-edge-quantizer wants that."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _mix(model: bytes, step: Mix, calibration: Rows, task: Task) -> bytes:
    layers = {
        layer.name: layer
        for layer in read_layers(model)
        if layer.weights >= (_WORTH_IT if step.bits == 4 else 1)
    }
    rows = calibration[:_MIXING_ROWS]
    wanted = _answers(model, rows)
    plain = quantizer.Quantizer(model, recipe.static_wi8_ai8())
    ranges = _ranges(plain, model, calibration)

    def made(low: frozenset[str]) -> bytes:
        mixed = quantizer.Quantizer(model, recipe.static_wi8_ai8())
        for name, layer in layers.items():
            where = rf"(^|;){re.escape(name)};?$"
            if step.bits == 4 and name in low:
                mixed.add_static_config(where, layer.op, 8, 4, algorithm_key=_Algorithm.MSE)
            elif step.bits == 8 and name not in low:
                mixed.update_quantization_recipe(
                    where, layer.op, algorithm_key=_Algorithm.NO_QUANTIZE
                )
        return _quantised(mixed, ranges)

    def effect(low: frozenset[str]) -> Effect:
        given = _answers(made(low), rows)
        changed = 1 - agreement(wanted, given, task)
        return Effect(float(((given - wanted) ** 2).mean()), changed)

    savings = {name: layer.weights for name, layer in layers.items()}
    return made(lowered(savings, effect, step.changed))


def _answers(model: bytes, rows: Rows) -> Rows:
    scores = LiteRt(model, Preprocessing()).run_rows(rows)
    return scores.reshape(len(rows), -1)
