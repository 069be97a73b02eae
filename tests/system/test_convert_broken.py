"""What each broken input is told: one sentence, nothing written, nothing lost, no key made."""

from pathlib import Path

import msgspec
import numpy as np
import pytest

from converters.flatbuffer import read_model, write_model
from converters.order import Order
from converters.pipeline import convert
from converters.rewrite import rewrite
from converters.steps import Quantise
from edge_sdk.channels import Preprocessing
from edge_sdk.errors import EdgeError
from edge_sdk.features import Bucket, Window
from tests.micro_models import dense_net, save

pytestmark = pytest.mark.system
NET = dense_net(96)
X = np.random.default_rng(4).normal(0, 1, (300, 16)).astype(np.float32)
Y = np.arange(300) % 4


def with_nan_weights():
    root = read_model(NET)
    data = np.array(root.buffers[1].data)
    data[:4] = np.frombuffer(np.float32(np.nan).tobytes(), np.uint8)
    root.buffers[1].data = data
    return write_model(root)


def with_a_custom_op():
    root = read_model(NET)
    code = root.operatorCodes[0]
    code.builtinCode, code.deprecatedBuiltinCode, code.customCode = 32, 32, b"MyOwnOp"
    return write_model(root)


def with_a_batch_of(count):
    root = read_model(NET)
    graph = root.subgraphs[0]
    for i in (*graph.inputs, *graph.outputs, 3):
        graph.tensors[i].shape = [count, *list(graph.tensors[i].shape)[1:]]
    return write_model(root)


def rows_with_nan():
    x = X.copy()
    x[7, 3] = np.nan
    return x


MODELS = {
    "NaN weights": (with_nan_weights(), "gives NaN or infinite scores for 2.. of 2.. rows"),
    "a custom op": (with_a_custom_op(), "LiteRT does not load the model: .*MyOwnOp"),
    "another batch": (with_a_batch_of(7), "its batch size is fixed at 7: convert it with 1"),
    "a cut file": (NET[: len(NET) // 2], "damaged|cut off"),
    "no model at all": (b"PK\x03\x04 a zip", "it is no .tflite file"),
    "integers already": (
        rewrite(NET, Quantise("int8"), X[:20]),
        "it is int8 already: give the float model that it was made from",
    ),
}
ORDERS = {
    "wrong label count": ({"labels": ("a", "b")}, "the model has 4 classes, each needs a name"),
    "steps for other rows": (
        {"preprocessing": Preprocessing(steps=(Bucket(((0.0,),)),))},
        "feature step bucket: a row has 16 columns, it takes 1",
    ),
    "a window that leaves another shape": (
        {"preprocessing": Preprocessing(steps=(Window(4, 4),))},
        r"a row has shape \(16,\), \(4, 4\) after the feature steps, the model takes \(16,\)",
    ),
    "an anomaly that can't be": ({"task": "anomaly"}, "y holds 3, for an anomaly needed are 0"),
    "another number of targets": ({"task": "regression"}, "y has 1 targets a row, the model gives"),
    "a search over nothing": ({"recipes": ("float32",), "search": "tpe"}, "can't be searched over"),
    "a share beside a file": (
        {"train_share": 0.5, "test": Path("x.npz")}, "give it without --train and --test"
    ),
}  # fmt: skip
ROWS = {
    "NaN in a row": (rows_with_nan(), Y, "NaN or infinite values in 1 of 300 rows"),
    "a class beyond the outputs": (X, Y + 1, "y holds the class 4, the model gives 4"),
    "too few rows": (X[:20], Y[:20], "has 20 rows, needed are 50 or more"),
    "other columns": (X[:, :9], Y, r"a row has shape \(9,\), the model takes \(16,\)"),
}


def ordered(tmp_path, model=NET, x=X, y=Y, **words):
    from converters.search_order import Search

    (tmp_path / "net.tflite").write_bytes(model)
    if "search" in words:
        words["search"] = Search(strategy=words["search"])
    given = {
        "model": tmp_path / "net.tflite",
        "profiles": ("raspberry-pi-4",),
        "data": save(tmp_path / "data.npz", x, y),
        "out": tmp_path / "out",
        "recipes": ("int8",),
    }
    return Order(**(given | words))


def no_key():
    pytest.fail("a key was made for nothing")


def refused(order, words):
    with pytest.raises(EdgeError, match=words) as caught:
        convert(order, no_key)
    assert len(str(caught.value).splitlines()) == 1
    assert not order.out.exists()


@pytest.mark.parametrize("name", MODELS)
def test_a_broken_model_gets_its_own_sentence(tmp_path, name):
    model, words = MODELS[name]
    refused(ordered(tmp_path, model), words)


@pytest.mark.parametrize("name", ORDERS)
def test_words_that_do_not_fit_get_their_own_sentence(tmp_path, name):
    given, words = ORDERS[name]
    refused(ordered(tmp_path, **given), words)


@pytest.mark.parametrize("name", ROWS)
def test_broken_rows_get_their_own_sentence(tmp_path, name):
    x, y, words = ROWS[name]
    refused(ordered(tmp_path, x=x, y=y), words)


def test_a_model_that_needs_more_memory_than_it_may_have_is_told(tmp_path):
    refused(ordered(tmp_path, dense_net(400_000), memory=2**20), "memory limit of 1 MiB")


def test_an_empty_calibration_is_told(tmp_path):
    empty = save(tmp_path / "none.npz", X[:0])
    refused(ordered(tmp_path, calibration=empty), "none empty")


@pytest.mark.parametrize("ending", [".pt", ".pth", ".pt2"])
def test_a_pytorch_file_is_told_the_way_in(tmp_path, ending):
    (tmp_path / f"net{ending}").write_bytes(b"?")
    other = msgspec.structs.replace(ordered(tmp_path), model=tmp_path / f"net{ending}")
    refused(other, rf"{ending} is not read, it may hold code: .* by torch\.onnx\.export\(model")
