"""A .tflite file read, written and quantised without TensorFlow: nothing of it gets lost."""

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from converters.facts import read_facts
from converters.flatbuffer import read_model, slim, with_embedding, with_signature, write_model
from converters.layers import read_layers
from converters.mixing import Effect, lowered
from converters.rewrite import rewrite
from converters.steps import Mix, Quantise, WeightOnly
from edge_sdk.channels import Preprocessing
from edge_sdk.errors import NotConvertibleError
from edge_sdk.interpreter import LiteRt
from tests.micro_models import dense_net

ROWS = np.random.default_rng(5).normal(0, 1, (60, 16)).astype(np.float32)


def answers(model):
    return LiteRt(model, Preprocessing()).run_rows(ROWS)


@pytest.fixture(scope="module")
def net():
    return dense_net(96)


def test_a_slimmed_model_answers_alike_in_fewer_bytes(net):
    thin = slim(net)
    assert len(thin) < len(net) + 64  # alignment may add what the names gave
    assert (answers(thin) == answers(net)).all()
    names = [t.name for t in read_model(thin).subgraphs[0].tensors]
    assert names == [b"input", b"w1", b"b1", b"one/Relu", b"w2", b"b2", b"scores"]
    assert slim(thin) == thin


def test_every_buffer_begins_at_a_multiple_of_sixteen(net):
    written = write_model(read_model(net))
    for buffer in read_model(written).buffers[1:]:
        assert written.index(bytes(buffer.data)) % 16 == 0


def test_a_signature_is_given_to_a_model_without_one_and_only_then(net):
    signed = with_signature(net)
    assert read_model(signed).signatureDefs[0].inputs[0].name == b"input"
    assert with_signature(signed) == signed


@pytest.mark.parametrize(
    ("step", "precision", "points"),
    [
        (Quantise("int8"), "int8", 0.1),
        (Quantise("int16x8"), "int16x8", 0.1),
        (Quantise("dynamic-range"), "dynamic-range", 0.1),
        (Quantise("float16"), "float16", 0.01),
        (WeightOnly(8), "weight-only", 0.1),
        (WeightOnly(4), "weight-only", 0.6),
        (Mix(4, 0.2), "int8x4", 0.6),
        (Mix(8, 0.9), "int8", 0.1),
    ],
    ids=str,
)
def test_a_float_file_is_quantised_to_what_was_asked(net, step, precision, points):
    made = rewrite(net, step, ROWS)
    assert read_facts(made).precision == precision
    assert np.abs(answers(made) - answers(net)).max() < points
    assert rewrite(net, step, ROWS) == made


def test_a_layer_that_changes_too_many_rows_stays_higher_and_a_later_one_may_still_go():
    harms = {"a": 0.01, "b": 0.2, "c": 0.03}

    def effect(low):
        return Effect(sum(harms[name] for name in low), sum(harms[name] for name in low))

    assert lowered(dict.fromkeys(harms, 1), effect, 0.05) == {"a", "c"}
    assert lowered({"a": 1, "b": 1000, "c": 1}, effect, 0.215) == {"a", "b"}
    assert lowered(dict.fromkeys(harms, 1), effect, 0.001) == set()


def test_rare_large_values_are_not_cut_off(net):
    """ai-edge-quantizer's own calibration averages the ranges of rows, and so clips answers."""
    wanted = answers(net)
    given = answers(rewrite(net, Quantise("int8"), ROWS))
    assert given.max() > 0.99 * wanted.max()


def test_weights_behind_the_flatbuffer_are_brought_in():
    """TFLite Micro ignores those that ai-edge-quantizer leaves behind it, and answers wrongly."""
    large = dense_net(16_000)
    raw = rewrite(large, Quantise("int8"), ROWS)
    root = schema.ModelT.InitFromObj(schema.Model.GetRootAs(raw, 0))
    assert any(buffer.offset > 1 for buffer in root.buffers)
    whole = slim(raw)
    root = schema.ModelT.InitFromObj(schema.Model.GetRootAs(whole, 0))
    assert not any(buffer.offset for buffer in root.buffers)
    assert (answers(whole) == answers(raw)).all()
    assert read_layers(raw)[1].weights == read_layers(whole)[1].weights == 16_000 * 4


def test_what_is_no_model_is_said_so(net):
    for data, words in ((b"", "TFL3"), (b"PK\x03\x04TFL4", "TFL3"), (net[:400], "damaged")):
        with pytest.raises(NotConvertibleError, match=words):
            read_model(data)


def test_what_the_last_dense_layer_takes_becomes_a_second_output(net):
    made = LiteRt(with_embedding(net), Preprocessing())
    assert (made.run_rows(ROWS) == answers(net)).all()
    w2, b2 = (
        np.frombuffer(bytes(buffer.data), np.float32)
        for buffer in (read_model(net).buffers[i] for i in _buffers(net, b"w2", b"b2"))
    )
    inside = made.embed_rows(ROWS)
    logits = inside @ w2.reshape(len(b2), -1).T + b2
    assert np.allclose(logits, answers(net), atol=1e-4)
    with pytest.raises(NotConvertibleError, match="takes the input as it is"):
        with_embedding(_cut_off(net))


def _buffers(model, *names):
    tensors = {t.name: t.buffer for t in read_model(model).subgraphs[0].tensors}
    return [tensors[name] for name in names]


def _cut_off(model):
    """Its first layer alone."""
    root = read_model(model)
    graph = root.subgraphs[0]
    graph.operators = graph.operators[:1]
    graph.outputs = [graph.operators[0].outputs[0]]
    return write_model(root)
