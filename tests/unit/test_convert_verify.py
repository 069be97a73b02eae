"""`edge verify`: two models on the same rows, and what `edge inspect` says of a .tflite file."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from converters.flatbuffer import read_model, write_model
from converters.layerwise import layer_errors
from converters.rewrite import rewrite
from converters.steps import Quantise
from converters.verify import verify
from edge_sdk.channels import Preprocessing
from edge_sdk.cli.bundles import inspect
from edge_sdk.errors import EdgeError, InvalidInputError, NotConvertibleError, RefusedError
from edge_sdk.interpreter import LiteRt
from tests.micro_models import dense_net, save

X = np.random.default_rng(4).normal(0, 1, (200, 16)).astype(np.float32)
NET = dense_net(96)
Y = LiteRt(NET, Preprocessing()).run_rows(X).argmax(axis=1)


@pytest.fixture
def files(tmp_path):
    (tmp_path / "float.tflite").write_bytes(NET)
    (tmp_path / "int8.tflite").write_bytes(rewrite(NET, Quantise("int8"), X))
    (tmp_path / "bad.tflite").write_bytes(damaged(1, 0.3))
    save(tmp_path / "data.npz", X, Y)
    return tmp_path


def damaged(layer, scale):
    """The net with the weights of one of its dense layers multiplied and partly turned round."""
    root = read_model(NET)
    buffer = root.buffers[root.subgraphs[0].tensors[(1, 4)[layer]].buffer]
    values = np.frombuffer(bytes(bytearray(buffer.data)), np.float32) * scale
    buffer.data = np.frombuffer(np.roll(values, 7).astype(np.float32).tobytes(), np.uint8)
    return write_model(root)


def run(*words, command=verify):
    shown = CliRunner().invoke(command, [str(word) for word in words], standalone_mode=False)
    if shown.exception:
        raise shown.exception
    return shown.output


def test_a_good_int8_model_passes_and_its_layers_are_close(files):
    words = (files / "float.tflite", files / "int8.tflite", "--data", files / "data.npz")
    found = json.loads(run(*words, "--max-drop", "0.05", "--json"))
    assert found["metrics"]["float_accuracy"] == 1.0
    assert found["metrics"]["agreement"] > 0.95
    assert [layer["op"] for layer in found["layers"]] == ["FULLY_CONNECTED"] * 2
    assert 0 < max(layer["error"] for layer in found["layers"]) < 0.05
    assert "worst layers" in run(*words, "--max-drop", "0.05")


def test_a_model_that_loses_more_than_allowed_is_refused(files):
    with pytest.raises(RefusedError, match="points of accuracy against"):
        run(files / "float.tflite", files / "bad.tflite", "--data", files / "data.npz")


def test_the_layer_that_was_damaged_is_the_worst():
    errors = layer_errors(NET, damaged(0, 1.0), X, Preprocessing())
    assert errors[0].error > 0.5
    only_last = layer_errors(NET, damaged(1, 1.0), X, Preprocessing())
    assert only_last[0].error == 0
    assert only_last[1].error > 0.5


def test_models_of_other_operators_are_compared_by_their_answers_alone(files):
    root = read_model(NET)
    root.subgraphs[0].operators = root.subgraphs[0].operators[:1]
    with pytest.raises(NotConvertibleError, match="2 operators here, 1 there"):
        layer_errors(NET, write_model(root), X, Preprocessing())


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("missing.tflite", None, "can't be read"),
        ("some.edge", b"PK\x03\x04 not signed", "give its publisher's key with --key"),
        ("cut.tflite", NET[:90], "LiteRT does not load"),
    ],
)
def test_each_file_that_can_t_be_compared_gets_its_own_sentence(files, name, data, words):
    if data is not None:
        (files / name).write_bytes(data)
    with pytest.raises(EdgeError, match=words):
        run(files / "float.tflite", files / name, "--data", files / "data.npz")


def test_rows_that_do_not_fit_are_said(files):
    short = save(files / "short.npz", X[:, :5], Y)
    with pytest.raises(InvalidInputError, match=r"shape \(5,\), a model takes \(16,\)"):
        run(files / "float.tflite", files / "int8.tflite", "--data", short)
    wrong = save(files / "wrong.npz", X, Y + 9)
    with pytest.raises(InvalidInputError, match="the models give 4"):
        run(files / "float.tflite", files / "int8.tflite", "--data", wrong)


def test_inspect_shows_a_tflite_file_layer_by_layer(files):
    shown = run(files / "int8.tflite", command=inspect)
    assert "precision       int8" in shown
    [row] = [line for line in shown.splitlines() if "int8 x 1,536" in line]
    assert "(1, 96)" in row
    found = json.loads(run(files / "int8.tflite", "--json", command=inspect))
    assert sum(layer["weights"] for layer in found["layers"]) == 96 * 16 + 4 * 96
    assert found["bytes"] == (files / "int8.tflite").stat().st_size


def test_inspect_says_what_is_wrong_with_a_damaged_tflite_file(files):
    (files / "cut.tflite").write_bytes(NET[:300])
    with pytest.raises(NotConvertibleError, match="damaged"):
        run(files / "cut.tflite", command=inspect)
