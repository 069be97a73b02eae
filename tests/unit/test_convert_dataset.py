"""The user's rows: refused in words if they can't be used, and split without a leak."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converters.dataset import Dataset, golden_rows, read, row_keys, schema, split, spread, without
from edge_sdk.errors import InvalidInputError
from tests.micro_models import pictures, save, vectors

X, Y = pictures(200, seed=2)


def dataset(x, y=None):
    return Dataset(x, np.zeros(len(x), np.int64) if y is None else y, "")


@settings(max_examples=25)
@given(st.lists(st.integers(0, 40), min_size=60, max_size=120).filter(lambda v: len({*v}) > 20))
def test_equal_rows_never_stand_on_both_sides(values):
    x = np.array(values, dtype=np.int16)[:, np.newaxis]
    parts = split(dataset(x))
    assert not {*row_keys(parts.calibration)} & {*row_keys(parts.held_x)}


def test_the_split_is_about_a_fifth_and_the_same_in_any_order():
    x, y = pictures(2000, seed=3)
    parts, other = split(dataset(x, y)), split(dataset(x[::-1], y[::-1]))
    assert 0.17 < 1 - len(parts.held_x) / 2000 < 0.23
    assert {*row_keys(parts.held_x)} == {*row_keys(other.held_x)}


def test_golden_rows_come_from_every_class():
    parts = split(dataset(X, Y))
    assert np.bincount(parts.held_y[parts.golden]).tolist() == [4, 4, 4, 4]


def test_large_rows_give_few_golden_ones():
    x, y = np.zeros((60, 32, 32, 3), np.uint8), np.arange(60) % 10
    assert len(golden_rows(x, y)) == 4
    assert len(golden_rows(x[:, :8, :8], y)) == 16


def test_few_rows_give_few_golden_ones():
    assert spread(np.array([2, 2, 5]), 16).tolist() == [0, 2, 1]


def test_training_rows_that_are_held_out_are_left_out():
    parts = split(dataset(X, Y))
    left = without(Dataset(X, Y, "digest"), parts.held_x)
    assert len(left.x) == len(X) - len(parts.held_x)
    assert left.sha256 == "digest"


@pytest.mark.parametrize(
    ("shape", "kind"),
    [((8, 8), "image"), ((8, 8, 3), "image"), ((5,), "vector"), ((8, 8, 2), "tensor"),
     ((2, 9), "tensor"), ((4, 4, 4, 1), "tensor")],
)  # fmt: skip
def test_the_kind_of_input_is_told_from_its_shape(shape, kind):
    found = schema(np.arange(2 * np.prod(shape)).reshape(2, *shape))
    assert (found.kind, found.shape, found.low) == (kind, shape, 0)
    assert found.high == 2 * np.prod(shape) - 1


def test_what_was_saved_is_read(tmp_path):
    found = read(save(tmp_path / "d.npz", X, Y.astype(np.uint8)))
    assert (found.x == X).all()
    assert (found.y == Y).all()
    assert len(found.sha256) == 64


def floats(value=0.0):
    x, _ = vectors(60, seed=1)
    x[3, 2] = value
    return x


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"x": X}, "holds no array y"),
        ({}, "holds no array x and no y"),
        ({"x": X, "y": Y.astype(float)}, "y holds float64, needed are integer class labels"),
        ({"x": X, "y": Y[:-1]}, "y has shape (199,), needed is (200,)"),
        ({"x": X, "y": Y - 1}, "the class -1, classes start at 0"),
        ({"x": floats(np.nan), "y": Y[:60]}, "NaN or infinite values in 1 of 60 rows"),
        ({"x": floats(np.inf), "y": Y[:60]}, "NaN or infinite"),
        ({"x": X[:0], "y": Y[:0]}, "none empty"),
        ({"x": np.arange(60), "y": Y[:60]}, "needed is (rows, ...)"),
        ({"x": X.astype(str), "y": Y}, "x holds <U"),
        ({"x": X.astype(object), "y": Y}, "no .npz file of plain arrays"),
    ],
)
def test_each_fault_of_a_file_is_one_clear_sentence(tmp_path, arrays, words):
    path = tmp_path / "bad.npz"
    np.savez(path, **arrays)
    with pytest.raises(InvalidInputError) as caught:
        read(path)
    assert words in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 broken", b"x,y\n1,2\n"])
def test_what_is_no_npz_is_said_to_be_none(tmp_path, content):
    path = tmp_path / "bad.npz"
    path.write_bytes(content)
    with pytest.raises(InvalidInputError, match=r"no \.npz file of plain arrays"):
        read(path)


def test_a_plain_npy_and_a_missing_file_are_refused(tmp_path):
    np.save(tmp_path / "one.npy", X)
    with pytest.raises(InvalidInputError, match=r"no \.npz file"):
        read(tmp_path / "one.npy")
    with pytest.raises(InvalidInputError, match="No such file"):
        read(tmp_path / "missing.npz")


def test_too_few_or_all_equal_rows_say_nothing_about_accuracy():
    with pytest.raises(InvalidInputError, match="has 49 rows, needed are 50"):
        split(dataset(X[:49]))
    with pytest.raises(InvalidInputError, match="the same"):
        split(dataset(np.zeros((90, 3))))


def written(tmp_path, text):
    path = tmp_path / "rows.csv"
    path.write_text(text)
    return path


def test_a_csv_file_gives_rows_classes_and_the_names_of_its_columns(tmp_path):
    found = read(written(tmp_path, "hot,class,wet\n1.5,0,2\n\n-1,3,4e-1\n"))
    assert found.x.tolist() == [[1.5, 2.0], [-1.0, np.float32(0.4)]]
    assert (found.y.tolist(), found.columns) == ([0, 3], ("hot", "wet"))
    last = read(written(tmp_path, "a,b,c\n1,2,1\n3,4,0\n"))
    assert (last.y.tolist(), last.columns) == ([1, 0], ("a", "b"))
    rows = read(written(tmp_path, "a,b\n1,2\n"), labelled=False)
    assert rows.x.tolist() == [[1.0, 2.0]]
    assert schema(last.x, last.columns).columns == ("a", "b")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "has no rows"),
        ("a,b\n", "has no rows"),
        ("1,2,3\n4,5,6\n", "the first line must name each column"),
        ("a,a,y\n4,5,0\n", "the first line must name each column, differently"),
        ("a,b,y\n4,5\n", "line 2 has 2 values, the header 3"),
        ("a,b,y\n1,2,0\n4,warm,0\n", "line 3: b is 'warm', needed is a number"),
        ("a,b,y\n4,5,0.5\n", "column y must hold integer classes"),
        ("a,b,y\n4,nan,0\n", "NaN or infinite"),
        ("a,b,y\n4,1e300,0\n", "NaN or infinite"),
        ("a,b,y\n4,5,inf\n", "column y must hold integer classes"),
        ("a,b,y\n4,5,nan\n", "column y must hold integer classes"),
    ],
)
def test_each_fault_of_a_csv_file_is_named(tmp_path, text, words):
    with pytest.raises(InvalidInputError, match=words):
        read(written(tmp_path, text))
