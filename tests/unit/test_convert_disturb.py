"""Disturbed held-out rows: they stay rows of the schema, and tell how right answers then are."""

import numpy as np
import pytest

from converters.disturb import COLOURS, EVERYTHING, NUMBERS_ONLY, PICTURES, STRENGTHS, disturbed
from edge_sdk.channels import InputSchema, input_channels, output_channels, schema_skew
from edge_sdk.sketch import make_baseline

PICTURE = InputSchema(name="x", kind="image", shape=(8, 8, 3), low=0.0, high=255.0)
VECTOR = InputSchema(name="x", kind="vector", shape=(6,), low=-100.0, high=100.0)


def pictures(rng, rows):
    """Class 1 is brighter at the top."""
    y = rng.integers(0, 2, rows)
    x = rng.uniform(60, 140, (rows, 8, 8, 3))
    x[y == 1, :4] += 60
    return x.astype(np.uint8), y


def vectors(rng, rows):
    y = rng.integers(0, 2, rows)
    return rng.normal(0, (1, 1, 1, 20, 20, 20), (rows, 6)) + 2.0 * y[:, None], y


def top_half(rows):
    away = rows[:, :4].mean(axis=(1, 2, 3)) - rows[:, 4:].mean(axis=(1, 2, 3)) - 30.0
    return two(away / 10)


def first_columns(rows):
    return two(rows[:, :3].mean(axis=1) - 1.0)


def two(logits):
    chance = 1 / (1 + np.exp(-3 * logits))
    return np.stack([1 - chance, chance], axis=1)


@pytest.mark.parametrize(
    ("schema", "rows_of", "model", "kinds"),
    [
        (PICTURE, pictures, top_half, {**EVERYTHING, **PICTURES, **COLOURS}),
        (VECTOR, vectors, first_columns, {**EVERYTHING, **NUMBERS_ONLY}),
    ],
)
def test_a_model_is_tried_on_rows_that_are_disturbed_in_every_way(schema, rows_of, model, kinds):
    x, y = rows_of(np.random.default_rng(1), 400)
    scores = model(x)
    right = (scores.argmax(axis=1) == y).astype(float)
    columns = {**input_channels(schema, x), **output_channels(scores)}
    base = make_baseline(columns, ("a", "b"), right)
    shown = []

    def run(rows):
        shown.append(rows)
        return model(rows)

    found = disturbed(base, schema, "probabilities", (x, y), run)
    assert [one.kind for one in found] == ["", *(k for k in kinds for _ in STRENGTHS)]
    assert {rows.dtype for rows in shown} == {x.dtype}
    assert all(schema_skew(schema, row) is None for rows in shown for row in rows[:20])
    whole = right.mean()
    assert (found[0].rows, found[0].right) == (len(x), right.sum())
    assert found[0].looks[0] == pytest.approx(whole, abs=0.03)
    assert (found[0].looks[1], *found[0].looks[3:]) == (0, 0, 0)
    worst = min(found, key=lambda one: one.right / one.rows)
    assert worst.right / worst.rows < whole - 0.1
    assert worst.looks[1] > 0.1 or worst.looks[3] > 0.4
    rough = {one.kind: one.looks[4] for one in found}  # at full strength
    assert (
        not rough["noise"] if schema is VECTOR else rough["noise"] > 0.5 > -0.5 > rough["smeared"]
    )
    assert disturbed(base, schema, "probabilities", (x, y), run) == found


def test_a_model_without_a_calibration_is_not_tried():
    x, y = vectors(np.random.default_rng(2), 50)
    base = make_baseline(input_channels(VECTOR, x), ())
    assert disturbed(base, VECTOR, "values", (x, y), first_columns) == ()
