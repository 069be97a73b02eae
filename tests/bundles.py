"""Signed bundles without TensorFlow: real manifests, baselines and signatures around any bytes."""

import numpy as np

from edge_sdk.bundle import (
    BASELINE,
    CARD,
    GOLDEN,
    MODEL,
    Golden,
    Lineage,
    Manifest,
    Metrics,
    Recipe,
    TensorSpec,
    encode_golden,
    pack,
)
from edge_sdk.channels import (
    Array,
    InputSchema,
    Preprocessing,
    input_channels,
    output_channels,
    to_probabilities,
    watched_inputs,
)
from edge_sdk.formats import to_json
from edge_sdk.interpreter import Scores
from edge_sdk.ops import Op
from edge_sdk.signing import SigningKey
from edge_sdk.sketch import Baseline, make_baseline
from edge_sdk.subspace import fit_channels

DIGITS = tuple("0123456789")


def pictures(rows: int = 64, seed: int = 7) -> Array:
    """Random 8 x 8 pictures with values 0..16, as scikit-learn's digits have them."""
    return np.random.default_rng(seed).integers(0, 17, (rows, 8, 8)).astype(np.float32)


def scores(x: Array, labels: tuple[str, ...]) -> Scores:
    """Class scores (n, labels) that depend on `x` only: a model of one random layer."""
    flat = x.reshape(len(x), -1).astype(np.float64)
    weights = np.random.default_rng(1).normal(0, 0.2, (flat.shape[1], len(labels)))
    return to_probabilities(flat @ weights, "logits").astype(np.float32)


def baseline_of(x: Array, labels: tuple[str, ...]) -> Baseline:
    """The reference that a converter would ship for `x`."""
    latency = np.random.default_rng(2).gamma(4.0, 0.5, len(x))
    subspace = fit_channels(input_channels(schema_of(x), x))
    columns = {
        **watched_inputs(schema_of(x), x, subspace),
        **output_channels(scores(x, labels).astype(np.float64)),
        "latency_ms": latency,
    }
    return make_baseline(columns, labels, subspace=subspace)


def schema_of(x: Array) -> InputSchema:
    return InputSchema(
        name="pixels",
        kind="image" if x.ndim > 2 else "vector",
        shape=x.shape[1:],
        low=0.0,
        high=16.0,
    )


def make_bundle(
    key: SigningKey,
    *,
    name: str = "digits",
    version: str = "1",
    profile: str = "raspberry-pi-4",
    labels: tuple[str, ...] = DIGITS,
    x: Array | None = None,
    model: bytes = b"not a real model",
    golden: Golden | None = None,
    tolerance: float = 0.05,
    ops: tuple[Op, ...] = (),
    tensors: tuple[TensorSpec, TensorSpec] | None = None,
    embedding: TensorSpec | None = None,
    baseline: Baseline | None = None,
) -> bytes:
    """A whole bundle file, signed by `key`; the same arguments give the same bytes.

    Give `model` and `golden` of a real .tflite if something shall run it, `tensors` for a board.
    """
    rows = pictures() if x is None else x
    given, made = tensors or (
        TensorSpec(name="x", dtype="float32", shape=(1, *rows.shape[1:])),
        TensorSpec(name="y", dtype="float32", shape=(1, len(labels))),
    )
    sample = golden or Golden(rows[:4], {"xnnpack": scores(rows[:4], labels)})
    manifest = Manifest(
        name=name,
        version=version,
        profile=profile,
        runtime="litert",
        labels=labels,
        input=schema_of(rows),
        preprocessing=Preprocessing(scale=1 / 16),
        model_input=given,
        model_output=made,
        scores="probabilities",
        latency_budget_ms=50.0,
        ram_bytes=1_000_000,
        golden_tolerance=dict.fromkeys(sample.expected, tolerance),
        recipe=Recipe("float32", ("convert",)),
        metrics=Metrics(
            rows=100,
            float_accuracy=0.97,
            accuracy=0.96,
            drop=0.01,
            drop_low=0.0,
            drop_high=0.02,
            agreement=0.99,
            per_class=dict.fromkeys(labels, 0.96),
        ),
        lineage=Lineage(source="0" * 64, data="1" * 64, calibration="2" * 64, train=None, tools={}),
        members={},
        ops=ops,
        embedding=embedding,
    )
    members = {
        MODEL: model,
        GOLDEN: encode_golden(sample),
        BASELINE: to_json(baseline or baseline_of(rows, labels)),
        CARD: b"# A model for tests\n",
    }
    return pack(manifest, members, key)
