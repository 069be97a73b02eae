"""The gate: which candidates may go to a board, in words, and which is taken."""

import msgspec
import numpy as np
import pytest

from converters.accuracy import SliceDrop, by_class
from converters.facts import TfliteFacts
from converters.findings import Elsewhere, Fallback
from converters.gate import (
    Limits,
    Measurement,
    best,
    estimated_ms,
    fastest,
    proven,
    reasons_to_refuse,
)
from edge_sdk.bundle import Metrics
from edge_sdk.profiles import HardwareProfile, load_profile

INT8 = TfliteFacts("int8", ("CONV_2D", "SOFTMAX"), (), static_shapes=True, tensor_bytes=3_000)
GOOD = Measurement(
    facts=INT8,
    metrics=Metrics(
        rows=1000, float_accuracy=0.98, accuracy=0.975, drop=0.005, drop_low=-0.002,
        drop_high=0.012, agreement=0.99, per_class={},
    ),
    model_bytes=20_000,
    compressed_bytes=15_000,
    host_ms_p50=0.05,
    host_ms_p90=0.06,
    host_runs=500,
    host_peak_bytes=12_000_000,
    kernel_agreement=1.0,
    kernel_difference=0.004,
    finite=True,
)  # fmt: skip
PI = load_profile("raspberry-pi-4")
CORAL = load_profile("coral-usb")
MICRO = load_profile("cortex-m7")


def changed(thing, **fields):
    return msgspec.structs.replace(thing, **fields)


def with_precision(precision):
    return changed(GOOD, facts=changed(INT8, precision=precision))


def with_drop(drop):
    return changed(GOOD, metrics=changed(GOOD.metrics, drop=drop))


@pytest.mark.parametrize("board", [PI, CORAL, MICRO], ids=lambda board: board.name)
def test_a_good_int8_model_fits_every_board(board):
    assert reasons_to_refuse(GOOD, board, Limits()) == []


@pytest.mark.parametrize(
    ("measurement", "board", "words"),
    [
        (with_precision("float32"), CORAL, "the Edge TPU runs full int8 only, this is float32"),
        (with_precision("dynamic-range"), MICRO, "hybrid models"),
        (with_precision("float32"), changed(PI, precisions=("int8",)), "runs int8, this is float3"),
        (changed(GOOD, facts=changed(INT8, static_shapes=False)), CORAL, "fixed tensor sizes"),
        (changed(GOOD, facts=changed(INT8, ops=("FFT", "ADD"))), MICRO, "cortex-m7: FFT"),
        (changed(GOOD, facts=changed(INT8, ops=("CUSTOM:Mine",))), PI, "CUSTOM:Mine"),
        (changed(GOOD, model_bytes=2_000_000), MICRO, "2,000,000 bytes do not fit 1,048,576"),
        (changed(GOOD, host_peak_bytes=2**31), PI, "2,147,483,648 bytes of RAM"),
        (changed(GOOD, facts=changed(INT8, tensor_bytes=600_000)), MICRO, "600,000 bytes of RAM"),
        (changed(GOOD, finite=False), PI, "not numbers"),
        (changed(GOOD, kernel_agreement=0.81), PI, "only 81.0% of rows"),
        (with_drop(0.0312), PI, "loses 3.12 points of accuracy, allowed 1.00"),
        (changed(GOOD, host_ms_p50=3.0), changed(PI, slowdown=40.0), "about 120 ms"),
    ],
)
def test_each_limit_refuses_in_words_of_its_own(measurement, board, words):
    [reason] = reasons_to_refuse(measurement, board, Limits())
    assert words in reason


def test_all_reasons_are_given_at_once():
    bad = changed(with_drop(0.5), model_bytes=10**9, finite=False)
    assert len(reasons_to_refuse(bad, PI, Limits())) == 3


def test_a_drop_of_exactly_the_limit_passes_though_fractions_round():
    assert reasons_to_refuse(with_drop(0.98 - 0.97), PI, Limits()) == []


def test_a_host_process_s_memory_is_nothing_to_a_microcontroller():
    assert reasons_to_refuse(changed(GOOD, host_peak_bytes=2**31), MICRO, Limits()) == []


def test_no_latency_is_estimated_without_a_ratio():
    assert estimated_ms(GOOD, PI) is None
    assert estimated_ms(GOOD, changed(PI, slowdown=4.0)) == pytest.approx(0.2)


def test_the_smallest_when_compressed_is_taken_and_names_break_a_tie():
    small = changed(GOOD, compressed_bytes=10)
    assert best({"int8": GOOD, "pruned-int8": small}, Limits(0.02)) == "pruned-int8"
    assert best({"b": small, "a": small}, Limits()) == "a"
    assert best({}, Limits()) is None


def test_what_is_surely_allowed_goes_before_what_is_smaller_but_may_lose_too_much():
    unsure = changed(GOOD, compressed_bytes=10)  # its drop may be 1.2 points
    sure = changed(GOOD, compressed_bytes=50, metrics=changed(GOOD.metrics, drop_high=0.009))
    assert best({"unsure": unsure, "sure": sure}, Limits()) == "sure"
    assert best({"unsure": unsure, "sure": sure}, Limits(0.02)) == "unsure"
    assert best({"unsure": unsure}, Limits()) == "unsure"
    assert (proven(sure.metrics, Limits()), proven(unsure.metrics, Limits())) == (True, False)


def test_no_recipe_is_called_the_fastest_within_the_noise():
    fast, slow = changed(GOOD, host_ms_p50=0.02, host_ms_p90=0.03), GOOD
    assert fastest({"fast": fast, "slow": slow}) == "fast"
    assert fastest({"fast": changed(fast, host_ms_p90=0.051), "slow": slow}) is None
    assert fastest({}) is None


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (Elsewhere(agreement=0.08), "gives the same answer as LiteRT on only 8.0% of rows"),
        (Elsewhere(problem="died of signal 11: no word"), "does not run it: died of signal 11"),
        (Elsewhere(unchecked="set X"), "not tried on tflite-runtime: set X"),
    ],
)
def test_what_was_not_seen_to_work_on_the_board_s_own_runtime_is_refused(found, words):
    board = changed(PI, runtime="tflite-runtime")
    tried = changed(GOOD, elsewhere={"tflite-runtime": found})
    assert any(words in reason for reason in reasons_to_refuse(tried, board, Limits()))
    assert reasons_to_refuse(tried, PI, Limits()) == []


def test_the_arena_that_tflite_micro_took_is_what_counts_there():
    found = Elsewhere(agreement=1.0, arena_bytes=600_000)
    [reason] = reasons_to_refuse(changed(GOOD, elsewhere={"tflite-micro": found}), MICRO, Limits())
    assert reason == "needs 600,000 bytes of RAM, 524,288 are there"


def test_an_operator_that_falls_back_to_the_cpu_is_named_with_its_reason():
    left = (
        Fallback("PAD", "p", "the Edge TPU has no such operator"),
        Fallback("ADD", "a", "after"),
    )
    [reason] = reasons_to_refuse(changed(GOOD, fallbacks=left), CORAL, Limits())
    assert reason == (
        "PAD p would fall back to the CPU: the Edge TPU has no such operator; so do 1 more"
    )


def test_a_slice_that_collapses_is_refused_by_its_name():
    bad = changed(GOOD, slices=(SliceDrop("site=north", 200, 0.5, 0.4, 0.6),))
    [reason] = reasons_to_refuse(bad, PI, Limits())
    assert reason.startswith("site=north loses 50.0 points in its 200 rows")


def test_profiles_of_the_user_take_part(tmp_path):
    own = changed(PI, name="mine", flash_bytes=100)
    assert isinstance(own, HardwareProfile)
    assert reasons_to_refuse(GOOD, own, Limits()) == ["20,000 bytes do not fit 100 of flash"]


def collapsed(rows_of_rare, lost, seed=1):
    """Drops by class of a model as good as before, but for `lost` rows of the rare class."""
    rng = np.random.default_rng(seed)
    truth = np.array([0] * 960 + [1] * rows_of_rare)
    before = np.eye(2, dtype=np.float32)[truth]
    noise = rng.random(len(truth)) < 0.02
    after = np.eye(2, dtype=np.float32)[np.where(noise, 1 - truth, truth)]
    after[960 : 960 + lost] = (1, 0)
    return by_class(truth, before, after, ("usual", "rare"))


def test_a_rare_class_that_collapses_is_refused_though_the_mean_holds():
    bad = changed(GOOD, classes=collapsed(40, 30))
    [reason] = reasons_to_refuse(bad, PI, Limits())
    assert reason.startswith("class rare loses 77.5 points in its 40 rows, at least 59.0")
    assert reasons_to_refuse(bad, PI, Limits(class_drop=0.8)) == []


@pytest.mark.parametrize(("rows", "lost"), [(3, 1), (10, 2), (40, 6)])
def test_few_lost_rows_of_a_rare_class_may_be_noise_and_refuse_nothing(rows, lost):
    assert reasons_to_refuse(changed(GOOD, classes=collapsed(rows, lost)), PI, Limits()) == []


def test_a_class_without_rows_is_not_judged():
    scores = np.eye(3, dtype=np.float32)[[0, 2]]
    found = by_class(np.array([0, 2]), scores, scores, ("a", "b", "c"))
    assert [one.label for one in found] == ["a", "c"]
