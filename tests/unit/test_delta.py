"""Deltas between bundles: what goes out comes back, and junk is refused in our words."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_sdk import delta
from edge_sdk.bundle import BASELINE, CARD, GOLDEN, MODEL, archive, contents
from edge_sdk.errors import CorruptBundleError, EdgeError, FormatError
from edge_sdk.flatbuffer import weights
from tests.agent_world import MODEL as TINY

PAIR = ("old", "new")
MODEL_BYTES = TINY.read_bytes()


def bundle(model: bytes = MODEL_BYTES, card: bytes = b"# One\n") -> bytes:
    files = {"manifest.json": b"{}", "signatures.json": b"[]"}
    return archive({**files, MODEL: model, GOLDEN: b"golden", BASELINE: b"{}", CARD: card})


def retrained(seed: int) -> bytes:
    """The tiny model with every weight moved a little."""
    [region] = weights(MODEL_BYTES)
    values = np.frombuffer(MODEL_BYTES, np.uint8).copy()
    steps = np.random.default_rng(seed).integers(-1, 2, region.length).astype(np.uint8)
    values[region.start : region.end] += steps
    return values.tobytes()


def test_the_weights_of_a_real_model_are_found():
    [region] = weights(MODEL_BYTES)
    assert (region.length, region.size) == (144, 1)


@given(st.integers(0, 99), st.binary(max_size=200))
@settings(deadline=None, max_examples=40)
def test_a_delta_gives_the_very_bytes_of_the_new_bundle(seed, card):
    old, new = bundle(), bundle(retrained(seed), card)
    assert delta.apply(old, delta.make(old, new, PAIR), PAIR) == new


def test_a_model_of_another_architecture_is_carried_whole():
    old, new = bundle(), bundle(MODEL_BYTES[:600] + b"other" * 200)
    assert delta.apply(old, delta.make(old, new, PAIR), PAIR) == new


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_differences_of_every_element_size_come_back(size):
    chance = np.random.default_rng(size)
    old, new = (chance.integers(0, 256, 64 * size).astype(np.uint8) for _ in PAIR)
    assert delta._add(delta._subtract(new, old, size), old, size) == new.tobytes()


def test_small_changes_cost_little_beside_the_model_itself():
    noise = random.Random(1).randbytes(100_000)  # noqa: S311
    old, new = bundle(card=noise), bundle(retrained(1), noise)
    assert len(delta.make(old, new, PAIR)) < 1500


@given(st.integers(0, 10_000), st.integers(0, 255))
@settings(deadline=None, max_examples=150)
def test_a_damaged_delta_is_refused_in_our_words_or_gives_other_bytes(at, value):
    old, new = bundle(), bundle(retrained(1))
    good = delta.make(old, new, PAIR)
    bad = bytearray(good)
    bad[at % len(bad)] = value
    try:
        made = delta.apply(old, bytes(bad), PAIR)
    except EdgeError:
        return
    assert (made == new) == (bytes(bad) == good or made == new)


@given(st.binary(max_size=100))
def test_junk_is_no_delta(junk):
    with pytest.raises(FormatError):
        delta.apply(bundle(), junk, PAIR)


def test_a_delta_between_other_bundles_and_one_on_another_old_one_are_refused():
    old, new = bundle(), bundle(retrained(1))
    made = delta.make(old, new, PAIR)
    with pytest.raises(FormatError, match="other bundles"):
        delta.apply(old, made, ("x", "new"))
    with pytest.raises((CorruptBundleError, FormatError)):
        delta.apply(bundle(model=b"no model"), made, PAIR)
    assert contents(old)[CARD] == b"# One\n"


@given(st.binary(max_size=300))
def test_no_bytes_make_the_search_for_weights_fail(junk):
    assert weights(junk[:4] + b"TFL3" + junk[4:]) is not None
