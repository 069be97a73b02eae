"""Each technique does to a model what it promises: the weights and shapes are looked at."""

import zlib
from pathlib import Path

import numpy as np
import pytest

from converters.dataset import read, split
from converters.facts import read_facts
from converters.flatbuffer import read_model
from converters.foreman import CannotConvertError
from converters.layers import read_layers
from converters.protocol import Convert, Describe, Failed
from converters.recipe import recipe_named
from edge_sdk.channels import Preprocessing
from edge_sdk.features import Project
from edge_sdk.interpreter import LiteRt
from tests.micro_models import pictures, save, tables, waves

pytestmark = [pytest.mark.system, pytest.mark.tensorflow]
NETS = """
import tf_keras
def small(hp):
    units = hp.Int("units", 4, 12, step=4)
    rate = hp.Choice("activation", ["relu", "tanh"])
    return tf_keras.Sequential([
        tf_keras.layers.Input((16,)), tf_keras.layers.Dense(units, activation=rate),
        tf_keras.layers.Dense(3, activation="softmax")])
def wrong(hp):
    return tf_keras.Sequential([tf_keras.layers.Input((4,)), tf_keras.layers.Dense(3)])
"""


class Workshop:
    """A model of one kind with its rows."""

    def __init__(self, worker, model, folder, x, y):
        self.worker = worker
        self.model = model
        self.folder = folder
        self.parts = split(read(save(folder / f"{model.stem}.npz", x, y)), 0.5)
        rows = {"calibration": self.parts.calibration, "x": self.parts.train.x}
        for name, values in rows.items():
            np.save(self._file(f"{name}.npy"), values.astype(np.float32))
        np.save(self._file("y.npy"), self.parts.train.y)

    def _file(self, name):
        return str(self.folder / f"{self.model.stem}-{name}")

    def make(self, words, *, parallel=False):
        """The .tflite of a recipe, and the feature steps it takes."""
        rows = [self._file(f"{name}.npy") for name in ("calibration", "x", "y")]
        out = self._file("out.tflite")
        done = self.ask(Convert(recipe_named(words), *rows, out, parallel=parallel))
        return Path(out).read_bytes(), done.features

    def ask(self, request):
        reply = self.worker.ask(self.model, request)
        if isinstance(reply, Failed):
            raise CannotConvertError(reply.reason)
        return reply

    def answers(self, model, features=()):
        return LiteRt(model, Preprocessing(steps=features)).run_rows(self.parts.held.x)

    def accuracy(self, model, features=()):
        return float((self.answers(model, features).argmax(axis=1) == self.parts.held.y).mean())


@pytest.fixture(scope="module")
def shops(worker, trained, tmp_path_factory):
    (worker.folder / "my_nets.py").write_text(NETS)
    x, y = pictures(600, seed=9)
    rows = {"cnn": (x / 255, y), "wide": tables(700, seed=9), "series": waves(400, seed=9)}
    folder = tmp_path_factory.mktemp("techniques")
    return {name: Workshop(worker, trained / f"{name}.h5", folder, *rows[name]) for name in rows}


def kernels(model):
    """Weights of each layer (out, all others), as stored."""
    root = read_model(model)
    graph = root.subgraphs[0]
    found = []
    for layer, op in zip(read_layers(model), graph.operators, strict=True):
        if layer.weights:
            tensor = graph.tensors[int(op.inputs[1])]
            data = np.frombuffer(bytes(root.buffers[tensor.buffer].data), layer.weight_dtype)
            found.append(data.reshape(int(tensor.shape[0]), -1))
    return found


def share_of_zeros(model):
    found = kernels(model)
    return sum((one == 0).sum() for one in found) / sum(one.size for one in found)


def test_recipes_that_train_keep_accuracy_and_make_what_they_say(shops):
    shop, sizes = shops["cnn"], {}
    for name, kind in {
        "clustered-int8:epochs=1": "int8", "pcqat:epochs=1": "int8", "float16": "float16",
        "int16x8": "int16x8",
    }.items():  # fmt: skip
        model, _ = shop.make(name)
        assert read_facts(model).precision == kind
        assert shop.accuracy(model) > 0.96
        sizes[name.partition(":")[0]] = len(zlib.compress(model, 9))
    assert sizes["pcqat"] < sizes["clustered-int8"]


def test_models_of_series_are_trained_as_pictures_and_stay_what_they_are(shops):
    shop = shops["series"]
    whole, _ = shop.make("float32")
    assert shop.accuracy(whole) > 0.9
    aware, _ = shop.make("qat:epochs=1")
    assert read_facts(aware).precision == "int8"
    assert LiteRt(aware, Preprocessing()).input.shape == (1, 32, 2)
    assert (shop.answers(aware).argmax(axis=1) == shop.answers(whole).argmax(axis=1)).mean() > 0.95
    few, _ = shop.make("clustered-int8:clusters=6,epochs=1")
    convolutions = [one for one in kernels(few) if one.size > 100]
    assert len(convolutions) == 3
    for kernel in convolutions:  # of a layer's six values, each channel has a scale of its own
        assert max(len(np.unique(channel)) for channel in kernel) <= 6
    thin, _ = shop.make("pruned-2-4-int8:epochs=1")
    assert share_of_zeros(thin) > 0.4


def test_cut_channels_take_memory_and_weights_with_them(shops):
    for shop, share in ((shops["wide"], 0.93), (shops["cnn"], 0.8)):
        whole, _ = shop.make("int8")
        thin, _ = shop.make("cut-int8:share=0.5,epochs=2")
        sizes = [sum(layer.weights for layer in read_layers(m)) for m in (whole, thin)]
        assert sizes[1] < 0.65 * sizes[0]
        assert shop.accuracy(thin) > share
        arenas = [read_facts(model).tensor_bytes for model in (whole, thin)]
        assert arenas[1] < 0.75 * arenas[0]


def test_a_student_is_thinner_and_has_learnt(shops):
    shop = shops["wide"]
    student, _ = shop.make("distilled-int8:width=0.25,epochs=6")
    assert [one.shape[0] for one in kernels(student)] == [16, 8, 3]
    assert shop.accuracy(student) > 0.9


def test_a_lottery_ticket_has_the_zeros_it_promised(shops):
    shop = shops["wide"]
    for rewind in ("given", "early"):
        ticket, _ = shop.make(f"lottery-int8:sparsity=0.7,rounds=2,epochs=1,rewind={rewind}")
        assert share_of_zeros(ticket) > 0.68
        assert shop.accuracy(ticket) > 0.85


def test_patterns_of_pruning_are_in_the_file(shops):
    shop = shops["wide"]
    two_of_four, _ = shop.make("pruned-2-4-int8:epochs=2")
    fours = kernels(two_of_four)[1].reshape(-1, 4)
    assert ((fours == 0).sum(axis=1) >= 2).mean() > 0.99
    for schedule in ("cubic", "constant"):
        blocks, _ = shop.make(f"pruned-block-int8:epochs=2,schedule={schedule}")
        fours = kernels(blocks)[1].reshape(-1, 4)
        gone = (fours == 0).all(axis=1)
        assert 0.45 < gone.mean() < 0.6
    at_once, _ = shop.make("pruned-int8:epochs=1,schedule=constant")
    assert share_of_zeros(at_once) > 0.45


def test_training_is_distributed_when_told(shops):
    shop = shops["wide"]
    model, _ = shop.make("pruned-int8:sparsity=0.6,epochs=2", parallel=True)
    assert share_of_zeros(model) > 0.58
    assert shop.accuracy(model) > 0.9
    with pytest.raises(CannotConvertError, match="be pruned by tf"):
        shop.make("pruned-2-4-int8:epochs=1", parallel=True)


def test_low_rank_puts_two_layers_in_place_of_one(shops):
    shop = shops["wide"]
    whole, low = kernels(shop.make("int8")[0]), kernels(shop.make("low-rank-int8:epochs=2")[0])
    assert len(low) > len(whole)
    assert sum(one.size for one in low) < sum(one.size for one in whole)


def test_inputs_are_reduced_and_the_device_is_told_how(shops):
    shop = shops["wide"]
    model, features = shop.make("pca-int8:variance=0.95,epochs=3")
    [project] = features
    assert isinstance(project, Project)
    given = LiteRt(model, Preprocessing()).input.shape
    assert given == (1, len(project.components))
    assert given[1] < 16
    assert shop.accuracy(model, features) > 0.93
    with pytest.raises(CannotConvertError, match="inputs are reduced for vectors"):
        shops["cnn"].make("pca-int8:epochs=1")


def test_ranges_are_narrowed_by_percentile_and_ends_may_be_float(shops):
    shop = shops["wide"]
    shop.parts.calibration[0, 0] = 300  # one value far out
    np.save(shop.folder / "wide-calibration.npy", shop.parts.calibration)
    scales = {}
    for words in ("int8", "int8-percentile", "int8-mse"):
        model, _ = shop.make(words)
        scales[words] = LiteRt(model, Preprocessing()).input.scale
        assert read_facts(model).precision == "int8"
    assert scales["int8-percentile"] < scales["int8"]
    ends = LiteRt(shop.make("int8-float-io")[0], Preprocessing())
    assert (ends.input.dtype, ends.output.dtype) == ("float32", "float32")


def test_a_user_s_own_architecture_is_asked_for_its_space_and_built(shops):
    shop = shops["wide"]
    asked = shop.ask(Describe("my_nets:small")).hyper
    assert [(one.name, one.values) for one in asked] == [
        ("units", ("4", "8", "12")), ("activation", ("relu", "tanh")),
    ]  # fmt: skip
    model, _ = shop.make("build:my_nets:small:units=8,activation=tanh")
    assert [one.shape for one in kernels(model)] == [(8, 16), (3, 8)]
    assert shop.accuracy(model) > 0.9
    for words, said in {
        "build:my_nets:wrong": r"built \(4,\) to \(3,\), needed is \(16,\) to \(3,\)",
        "build:my_nets:absent": "can't be used: module 'my_nets' has no attribute",
    }.items():
        with pytest.raises(CannotConvertError, match=said):
            shop.make(words)
