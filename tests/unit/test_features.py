"""Feature steps: the same numbers on the host and on the device, or a clear sentence."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converters.order import check_preprocessing, read_features
from edge_sdk.channels import Preprocessing
from edge_sdk.errors import InvalidInputError
from edge_sdk.features import Bucket, Project, Standardise, Window, apply_all
from edge_sdk.formats import from_json, to_json
from tests.contract.golden_documents import MANIFEST

STEPS = (
    Standardise((1.0, 2.0), (2.0, 0.5)),
    Bucket(((-1.0, 0.0), ())),
    Project((0.5, 0.5), ((1.0, 1.0),)),
)


def test_rows_go_through_every_step_in_order():
    raw = np.array([[1.0, 2.0], [-4.0, 3.0]], np.float32)
    standard = apply_all(STEPS[:1], raw)
    assert standard.tolist() == [[0.0, 0.0], [-2.5, 2.0]]
    assert apply_all(STEPS[:2], raw).tolist() == [[2.0, 0.0], [0.0, 2.0]]
    assert Preprocessing(steps=STEPS).apply(raw).tolist() == [[1.0], [1.0]]


def test_a_series_becomes_overlapping_windows():
    raw = np.arange(14, dtype=np.float32).reshape(2, 7)
    made = Window(4, 3).apply(raw)
    assert made.tolist() == [[[0, 1, 2, 3], [3, 4, 5, 6]], [[7, 8, 9, 10], [10, 11, 12, 13]]]
    many = Window(2, 2).apply(np.zeros((3, 6, 5), np.float32))
    assert many.shape == (3, 3, 2, 5)


@settings(max_examples=50)
@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=2, max_size=2))
def test_a_row_alone_gives_the_same_bytes_as_among_others(values):
    row = np.array([values], np.float32)
    among = np.concatenate([np.ones((5, 2), np.float32), row, np.zeros((3, 2), np.float32)])
    assert apply_all(STEPS, row).tobytes() == apply_all(STEPS, among)[5:6].tobytes()


def test_the_manifest_carries_the_steps_to_the_device():
    import msgspec

    given = msgspec.structs.replace(MANIFEST, preprocessing=Preprocessing(0.5, 1, STEPS))
    again = from_json(type(given), to_json(given), "the manifest")
    assert again.preprocessing.steps == STEPS
    assert str(again.preprocessing) == "raw * 0.5 + 1, then standardise, then bucket, then project"


@pytest.mark.parametrize(
    ("step", "raw", "words"),
    [
        (STEPS[1], np.zeros((1, 3), np.float32), "bucket: a row has 3 columns, it takes 2"),
        (STEPS[2], np.zeros((1, 3), np.float32), "project: a row has 3 columns, it takes 2"),
        (STEPS[0], np.zeros((1, 3), np.float32), r"standardise: a row of shape \(3,\) does not"),
        (Window(9, 1), np.zeros((1, 3), np.float32), r"\(3,\) is shorter than the window's 9"),
    ],
)
def test_a_row_that_a_step_can_t_take_is_told(step, raw, words):
    with pytest.raises(InvalidInputError, match=words):
        apply_all((step,), raw)


@pytest.mark.parametrize(
    ("step", "words"),
    [
        (Standardise((0.0,), (0.0,)), "no sd may be 0"),
        (Standardise((float("nan"),), (1.0,)), "must be numbers"),
        (Bucket(((1.0, 1.0),)), "ascending"),
        (Project((0.0,), ((1.0, 2.0),)), "as many numbers as the mean"),
        (Project((0.0,), ()), "as many numbers as the mean"),
    ],
)
def test_a_step_that_can_t_be_computed_is_refused(step, words):
    with pytest.raises(InvalidInputError, match=words):
        check_preprocessing(Preprocessing(steps=(step,)))


def test_people_write_steps_as_toml(tmp_path):
    path = tmp_path / "steps.toml"
    path.write_text('[[steps]]\ntype = "standardise"\nmean = [1]\nsd = [2]\n')
    assert read_features(path) == (Standardise((1.0,), (2.0,)),)
    assert read_features(None) == ()
    for text, words in {
        '[[steps]]\ntype = "log"\n': "Invalid value 'log'",
        '[[steps]]\ntype = "window"\nsize = 0\nstride = 1\n': "Expected `int` >= 1",
        '[[steps]]\ntype = "bucket"\nedges = [[2, 1]]\n': "edges must be ascending",
        '[[steps]]\ntype = "window"\nsize = 2\nstride = 1\nhop = 3\n': "unknown field `hop`",
    }.items():
        path.write_text(text)
        with pytest.raises(InvalidInputError, match=words):
            read_features(path)
    with pytest.raises(InvalidInputError, match="No such file"):
        read_features(tmp_path / "none.toml")
