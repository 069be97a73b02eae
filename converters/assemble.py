"""The bundle of a candidate for one board. Deterministic: nothing here was timed or dated."""

import msgspec
import numpy as np

from converters.bench import Made
from converters.card import render
from converters.disturb import disturbed
from converters.facts import TfliteFacts
from converters.order import Inputs
from edge_sdk.bundle import (
    BASELINE,
    CARD,
    GOLDEN,
    MODEL,
    Golden,
    KernelFamily,
    Lineage,
    Manifest,
    Task,
    TensorSpec,
    encode_golden,
    pack,
)
from edge_sdk.channels import (
    InputSchema,
    ScoreKind,
    answer_channels,
    input_channels,
    of_classes,
    watched_inputs,
)
from edge_sdk.formats import to_json
from edge_sdk.interpreter import LiteRt, Scores
from edge_sdk.profiles import HardwareProfile
from edge_sdk.signing import SigningKey
from edge_sdk.sketch import Baseline, make_baseline
from edge_sdk.subspace import MAX_REFERENCE, fit_channels, fit_subspace

_EXACT, _FLOAT, _HYBRID = 1e-6, 1e-4, 0.02
EMBEDDED = 2000  # rows of each kind whose embedding is worked out


class Identity(msgspec.Struct, frozen=True):
    """What is the same for every bundle of a run."""

    name: str
    version: str
    labels: tuple[str, ...]
    input: InputSchema
    task: Task
    scores: ScoreKind
    lineage: Lineage


def build(
    made: Made, profile: HardwareProfile, identity: Identity, inputs: Inputs, key: SigningKey
) -> tuple[Manifest, str, bytes]:
    """The signed bundle's manifest, its card and its bytes."""
    rows = inputs.rows
    golden = Golden(rows.held_x[rows.golden], made.answers.golden)
    manifest = Manifest(
        name=identity.name,
        version=identity.version,
        profile=profile.name,
        runtime=profile.runtime,
        task=identity.task,
        labels=identity.labels,
        input=identity.input,
        preprocessing=made.preprocessing,
        model_input=made.input,
        model_output=made.output,
        scores=identity.scores,
        latency_budget_ms=profile.latency_budget_ms,
        ram_bytes=profile.ram_bytes,
        golden_tolerance=tolerances(made.measurement.facts, made.output, golden),
        recipe=made.recipe.for_manifest(),
        metrics=made.measurement.metrics,
        lineage=identity.lineage,
        members={},
        ops=made.measurement.facts.needs,
        embedding=made.embedding,
    )
    card = render(manifest, made.measurement.facts, len(made.model))
    members = {
        MODEL: made.model,
        GOLDEN: encode_golden(golden),
        BASELINE: to_json(_baseline(made, identity, inputs)),
        CARD: card.encode(),
    }
    return manifest, card, pack(manifest, members, key)


def _baseline(made: Made, identity: Identity, inputs: Inputs) -> Baseline:
    """The held-out rows as the converted model sees them.

    The subspace is fitted to other rows (those trained on, else those that calibrated): a distance
    of rows that it was fitted to would be too small.
    """
    rows, schema = inputs.rows, identity.input
    others = rows.calibration if inputs.train is None else inputs.train.x
    if made.embedding is None:
        subspace = fit_channels(input_channels(schema, others[:MAX_REFERENCE]))
        inside = None
    else:
        model = LiteRt(made.model, made.preprocessing)
        subspace = fit_subspace(model.embed_rows(others[:EMBEDDED]).astype(np.float64))
        inside = model.embed_rows(rows.held_x[:EMBEDDED])
    columns = {
        **watched_inputs(schema, rows.held_x, subspace, inside),
        **answer_channels(made.answers.scores, identity.scores),
    }
    right = None
    if of_classes(identity.scores):
        right = (made.answers.scores.argmax(axis=1) == rows.held_y).astype(np.float64)
    base = make_baseline(columns, identity.labels, right, subspace)
    model = LiteRt(made.model, made.preprocessing)
    known = disturbed(base, schema, identity.scores, (rows.held_x, rows.held_y), model.run_rows)
    return msgspec.structs.replace(base, disturbed=known)


def tolerances(facts: TfliteFacts, output: TensorSpec, golden: Golden) -> dict[KernelFamily, float]:
    """How far a device's golden answers may be from the host's with the same kernel family.

    Measured: int8 by XNNPACK is bit-exact between x86 and aarch64; float32 within 1e-5; a model
    with dynamic range within 0.016, since a last bit of a float decides how an activation rounds.
    The built-in int8 kernels differ between machines by about as much as they differ from
    XNNPACK's on one, so that difference is allowed, and one step of the output more.
    """
    largest = max(1.0, float(max(np.abs(v).max() for v in golden.expected.values())))
    if facts.precision in {"float32", "float16", "weight-only"}:
        return {"xnnpack": _FLOAT * largest, "builtin": _FLOAT * largest}
    between = float(np.abs(golden.expected["xnnpack"] - golden.expected["builtin"]).max())
    if facts.precision == "dynamic-range":
        return {"xnnpack": _HYBRID * largest, "builtin": max(_HYBRID * largest, between)}
    return {"xnnpack": _EXACT, "builtin": between + output.scale + _EXACT}


def score_kind(scores: Scores, task: Task) -> ScoreKind:
    """What the answers (n, k) of the float model are."""
    if task != "classification":
        return "values" if task == "regression" else "error"
    if (scores >= 0).all() and np.allclose(scores.sum(axis=1), 1, atol=1e-3):
        return "probabilities"
    return "logits"
