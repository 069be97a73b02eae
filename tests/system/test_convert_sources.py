"""Models as they come: ONNX through onnx2tf, and what is said of files that can't be used."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from converters.order import Order, check_fit, read_inputs
from converters.pipeline import convert
from converters.protocol import Convert, Done, Failed, Score
from converters.recipe import recipe_named
from edge_sdk.bundle import unpack
from edge_sdk.channels import Preprocessing
from edge_sdk.errors import InvalidInputError
from edge_sdk.interpreter import LiteRt
from edge_sdk.signing import SigningKey
from tests.micro_models import save

pytestmark = [pytest.mark.system, pytest.mark.tensorflow]
RNG = np.random.default_rng(5)


def written(path, given, gives, nodes, **weights):
    """An ONNX file of these nodes, from `x` to `y`."""
    graph = helper.make_graph(
        nodes, "net", [helper.make_tensor_value_info("x", TensorProto.FLOAT, given)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, gives)],
        [numpy_helper.from_array(w.astype(np.float32), name) for name, w in weights.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path


def pictured(path):
    """A depthwise net as PyTorch writes them: channels first, the batch open."""
    node = helper.make_node
    nodes = [
        node("Conv", ["x", "w1", "b1"], ["c1"], pads=[1, 1, 1, 1], strides=[2, 2]),
        node("Relu", ["c1"], ["r1"]),
        node("Conv", ["r1", "w2"], ["c2"], pads=[1, 1, 1, 1], group=12),
        node("Conv", ["c2", "w3"], ["c3"]),
        node("Relu", ["c3"], ["r3"]),
        node("GlobalAveragePool", ["r3"], ["g"]),
        node("Flatten", ["g"], ["f"]),
        node("Gemm", ["f", "w4"], ["y"], transB=1),
    ]
    shapes = {"w1": (12, 3, 3, 3), "b1": (12,), "w2": (12, 1, 3, 3), "w3": (24, 12, 1, 1),
              "w4": (3, 24)}  # fmt: skip
    return written(
        path, ["n", 3, 12, 10], ["n", 3], nodes,
        **{name: RNG.normal(0, 0.5, shape) for name, shape in shapes.items()},
    )  # fmt: skip


def answered(path, x):
    """What ONNX Runtime says to rows with channels last."""
    rows = np.ascontiguousarray(np.moveaxis(x, -1, 1))
    return onnxruntime.InferenceSession(path).run(None, {"x": rows})[0]


def test_a_picture_model_becomes_a_bundle_that_answers_as_onnx_runtime_does(tmp_path):
    model = pictured(tmp_path / "net.onnx")
    before = model.read_bytes()
    x = RNG.random((300, 12, 10, 3), dtype=np.float32)
    scores = answered(model, x)
    y = (scores - scores.mean(axis=0)).argmax(axis=1)  # three classes, whatever the weights
    key = SigningKey.generate()
    order = Order(
        model=model, profiles=("cortex-m7",), recipes=("float32", "int8", "qat"),
        data=save(tmp_path / "data.npz", x, y), train_share=0.2, out=tmp_path / "out", max_drop=0.1,
        max_class_drop=1,
    )  # fmt: skip
    found = convert(order, lambda: key)
    made = {one.recipe: one for one in found.candidates}
    assert made["float32"].measurement.metrics.agreement == 1
    assert made["int8"].measurement.metrics.agreement > 0.9
    assert "can't be trained further here" in made["qat"].failed
    assert (found.source.kind, found.source.input_shape) == ("onnx", (12, 10, 3))
    bundle = unpack((order.out / "net-1-cortex-m7.edge").read_bytes(), [key.public])
    assert {"onnx2tf", "onnxruntime"} <= {*bundle.manifest.lineage.tools}
    assert bundle.manifest.input.kind == "image"
    assert model.read_bytes() == before


def test_a_series_of_one_row_at_a_time_is_translated(worker, tmp_path):
    node = helper.make_node
    pooled = [
        node("Conv", ["x", "w"], ["c"]),
        node("ReduceMax", ["c"], ["y"], axes=[2], keepdims=0),
    ]
    weights = {"w": RNG.normal(0, 1, (4, 2, 5))}
    series = written(tmp_path / "series.onnx", [1, 2, 40], [1, 4], pooled, **weights)
    x = RNG.random((70, 40, 2), dtype=np.float32)
    np.save(tmp_path / "x.npy", x)
    given, scores, lite = (str(tmp_path / name) for name in ("x.npy", "y.npy", "a.tflite"))
    assert isinstance(worker.ask(series, Score(given, scores)), Done)
    recipe = Convert(recipe_named("float32"), given, given, given, lite)
    assert isinstance(worker.ask(series, recipe), Done)
    truth = np.concatenate([answered(series, row[None]) for row in x])
    np.testing.assert_allclose(np.load(scores), truth, atol=1e-6)
    made = LiteRt((tmp_path / "a.tflite").read_bytes(), Preprocessing())
    np.testing.assert_allclose(made.run_rows(x), truth, atol=1e-5)


def broken(folder, trained):
    """Files that can't be used, and what is said of each."""
    node = helper.make_node
    for name, data in {
        "corrupt.h5": (trained / "cnn.h5").read_bytes()[:900],
        "text.keras": b"not a model",
        "net.hdf": b"?",
        "junk.onnx": b"\x08\x07 something else",
    }.items():
        (folder / name).write_bytes(data)
    (folder / "empty").mkdir()
    apart = pictured(folder / "apart.onnx")
    onnx.save(onnx.load(apart), apart, save_as_external_data=True, size_threshold=0)
    open_size = [node("Relu", ["x"], ["r"]), node("ReduceMax", ["r"], ["y"], axes=[2], keepdims=0)]
    of_places = [node("Conv", ["x", "w"], ["c"]), node("NonZero", ["c"], ["i"]),
                 node("Cast", ["i"], ["y"], to=TensorProto.FLOAT)]  # fmt: skip
    places = written(
        folder / "places.onnx", [1, 2, 9], ["a", "b"], of_places, w=RNG.normal(0, 1, (1, 2, 3))
    )
    strange = [node("MyOwnOp", ["x"], ["y"], domain="mine")]
    return {
        folder / "corrupt.h5": "tf_keras says ",
        folder / "text.keras": "Keras 3 says ",
        folder / "net.hdf": ".hdf is not read; give a .keras, .h5, .onnx or float .tflite file or",
        folder / "empty": "the folder holds no saved_model.pb",
        trained / "two-inputs.h5": "the model has 2 inputs, needed is one",
        trained / "batch.h5": "its batch size is fixed at 7: save it with None",
        folder / "junk.onnx": "ONNX says ",
        apart: "its weights are in another file: export it with external_data=False",
        written(folder / "open.onnx", ["n", 2, "t"], ["n", 2], open_size): "with fixed sizes",
        places: "onnx2tf's translation of it answers otherwise, by ",
        written(folder / "own.onnx", [1, 9], [1, 9], strange): "ONNX says ",
    }


def test_each_model_that_can_t_be_used_gets_its_own_sentence(worker, trained, tmp_path):
    for path, words in broken(tmp_path, trained).items():
        reply = worker.open(path)
        assert isinstance(reply, Failed), path
        assert words in reply.reason
        assert len(reply.reason.splitlines()) == 1


def test_rows_that_do_not_fit_a_model_are_told(worker, trained, tmp_path):
    def order(data):
        return Order(model=trained / "cnn.h5", profiles=(), data=data, out=tmp_path / "out")

    one, cnn = (worker.open(trained / name).facts for name in ("one-output.h5", "cnn.h5"))
    four = order(save(tmp_path / "four.npz", RNG.random((60, 4)), np.arange(60) % 2))
    with pytest.raises(InvalidInputError, match=r"shape \('rows', 1\), .* --task regression"):
        check_fit(four, read_inputs(four), one)
    with pytest.raises(InvalidInputError, match=r"shape \(4,\), the model takes \(8, 8, 1\)"):
        check_fit(four, read_inputs(four), cnn)
