"""What can be said against an order before TensorFlow is started, and when model and data meet."""

import numpy as np
import pytest

from converters.order import Order, check_fit, model_sha256, plan, read_inputs
from converters.recipe import RECIPES, SourceFacts, why_not
from edge_sdk.channels import Preprocessing
from edge_sdk.errors import InvalidInputError
from edge_sdk.files import sha256
from tests.micro_models import pictures, save

X, Y = pictures(120, seed=2)
CNN = SourceFacts("tf_keras", (8, 8, 1), (4,), 100)


@pytest.fixture
def order(tmp_path):
    (tmp_path / "My Model.h5").write_bytes(b"a model")
    save(tmp_path / "data.npz", X, Y)

    def make(**words):
        given = {
            "model": tmp_path / "My Model.h5",
            "profiles": ("raspberry-pi-4",),
            "data": tmp_path / "data.npz",
            "out": tmp_path / "out",
        }
        return Order(**(given | words))

    return make


def test_by_default_four_recipes_are_tried_and_the_file_names_the_model(order):
    found = plan(order())
    assert [recipe.name for recipe in found.recipes] == [
        "float32", "dynamic-range", "int8", "pruned-int8",
    ]  # fmt: skip
    assert found.name == "my-model"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"profiles": ("raspbery-pi-4",)}, "did you mean raspberry-pi-4?"),
        ({"profiles": ()}, "no profile given"),
        ({"profiles": ("coral-usb", "coral-usb")}, "given twice"),
        ({"recipes": ("int4",)}, "unknown recipe 'int4': known are float32"),
        ({"recipes": ("int8:epochs=2",)}, "int8 has no setting 'epochs': known are none"),
        ({"recipes": ("qat:epochs=0",)}, "qat: epochs=0: Expected `int` >= 1"),
        ({"recipes": ("pcqat:clusters=many",)}, "clusters=many: Expected `int`"),
        ({"name": "../x"}, "name '../x' can't be used"),
        ({"version": "V 1"}, "version 'V 1' can't be used"),
        ({"max_drop": 2.0}, "max-drop is 2"),
        ({"max_class_drop": -0.1}, "max-class-drop is -0.1"),
        ({"max_drop": float("nan")}, "max-drop is nan"),
        ({"preprocessing": Preprocessing(scale=0)}, "the scale not 0"),
        ({"preprocessing": Preprocessing(offset=float("inf"))}, "must be numbers"),
    ],
)
def test_each_wrong_word_is_named(order, words, said):
    with pytest.raises(InvalidInputError) as caught:
        plan(order(**words))
    assert said in str(caught.value)


def test_a_setting_reaches_every_step_that_has_it_and_its_name_says_so(order):
    [found] = plan(order(recipes=("pcqat:epochs=7,sparsity=0.6",))).recipes
    assert found.name == "pcqat:epochs=7,sparsity=0.6"
    assert [getattr(step, "epochs", None) for step in found.steps] == [7, 7, 7, None]
    assert found.steps[0].sparsity == 0.6


def test_a_model_that_is_not_there_and_an_output_that_is_are_refused(order, tmp_path):
    with pytest.raises(InvalidInputError, match="does not exist"):
        plan(order(model=tmp_path / "missing.h5"))
    with pytest.raises(InvalidInputError, match="is a file"):
        plan(order(out=tmp_path / "data.npz"))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "my-model-1-raspberry-pi-4.edge").write_bytes(b"")
    with pytest.raises(InvalidInputError, match="exists: give another --version"):
        plan(order())
    assert plan(order(version="2")).version == "2"


def test_own_calibration_rows_replace_only_those_for_calibration(order, tmp_path):
    usual = read_inputs(order())
    dark = save(tmp_path / "dark.npz", X[:7] // 4)
    found = read_inputs(order(calibration=dark))
    assert len(found.rows.calibration) == 7
    assert (found.rows.held_x == usual.rows.held_x).all()
    assert found.calibration_sha256 != usual.calibration_sha256


def test_a_test_file_evaluates_alone_and_none_of_its_rows_calibrates(order, tmp_path):
    x, y = pictures(60, seed=5)
    test = save(tmp_path / "test.npz", np.concatenate([x, X[:20]]), np.concatenate([y, Y[:20]]))
    found = read_inputs(order(test=test))
    assert len(found.rows.held_x) == 80
    assert (found.rows.calibration == X[20:]).all()
    assert found.data.sha256 == sha256(test.read_bytes())
    with pytest.raises(InvalidInputError, match="none calibrates"):
        read_inputs(order(test=tmp_path / "data.npz"))
    with pytest.raises(InvalidInputError, match="the test has 9 rows"):
        read_inputs(order(test=save(tmp_path / "few.npz", x[:9], y[:9])))


def test_files_with_other_rows_are_refused(order, tmp_path):
    other = save(tmp_path / "other.npz", X[:, :6], Y)
    for word in ("train", "calibration", "test"):
        with pytest.raises(InvalidInputError, match=r"\(6, 8, 1\), those of .* have \(8, 8, 1\)"):
            read_inputs(order(**{word: other}))


def test_training_on_what_is_held_out_is_refused(order, tmp_path):
    held = read_inputs(order()).rows.held_x
    leak = save(tmp_path / "leak.npz", held, np.zeros(len(held), int))
    with pytest.raises(InvalidInputError, match="also held out"):
        read_inputs(order(train=leak))


@pytest.mark.parametrize(
    ("source", "labels", "said"),
    [
        (
            SourceFacts("tf_keras", (8, 8, 3), (4,), 1),
            (),
            "shape (8, 8, 1), the model takes (8, 8, 3",
        ),
        (SourceFacts("tf_keras", (64,), (4,), 1), (), "the model takes (64,)"),
        (SourceFacts("tf_keras", (8, 8, 1), (3,), 1), (), "holds the class 3, the model gives 3"),
        (CNN, ("a", "b"), "has 4 classes"),
        (CNN, ("a", "b", "c", "a"), "a name of its own"),
        (CNN, ("a", "b", "", "d"), "a name of its own"),
    ],
)
def test_data_that_does_not_fit_the_model_is_refused(order, source, labels, said):
    given = order(labels=labels)
    with pytest.raises(InvalidInputError) as caught:
        check_fit(given, read_inputs(given), source)
    assert said in str(caught.value)


def test_an_open_size_takes_any_row_and_classes_are_numbered_by_default(order):
    open_sizes = SourceFacts("keras3", (None, None, 1), (4,), 1)
    assert check_fit(order(), read_inputs(order()), open_sizes) == ("0", "1", "2", "3")


def test_recipes_that_train_say_what_they_lack():
    pruned, plain = RECIPES["pruned-int8"], RECIPES["int8"]
    frozen = SourceFacts("saved-model", (8, 8, 1), (4,), 1, "it can't be trained")
    assert why_not(pruned, CNN, train_rows=0) == (
        "needs training rows: give --train or --train-share"
    )
    assert why_not(pruned, frozen, train_rows=9) == "it can't be trained"
    assert why_not(pruned, CNN, train_rows=9) is None
    assert why_not(plain, frozen, train_rows=0) is None


def test_a_folder_s_digest_is_that_of_its_files(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "w").write_bytes(b"1")
    first = model_sha256(tmp_path / "a")
    (tmp_path / "a").rename(tmp_path / "b")
    assert model_sha256(tmp_path / "b") == first
    (tmp_path / "b" / "w").write_bytes(b"2")
    assert model_sha256(tmp_path / "b") != first
