"""`edge convert` as people use it: real TensorFlow, real LiteRT, child processes that die."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import msgspec
import numpy as np
import pytest

from converters.dialogue import UnreadableModelError
from converters.order import Order
from converters.pipeline import convert
from converters.result import Proof
from converters.rewrite import rewrite
from converters.steps import Quantise
from converters.table import plain
from converters.tflite_worker import load
from edge_sdk.bundle import CARD, read_manifest, unpack
from edge_sdk.channels import Preprocessing
from edge_sdk.formats import from_json
from edge_sdk.interpreter import LiteRt, self_test
from edge_sdk.signing import SigningKey
from edge_sdk.subspace import novelty
from tests.micro_models import dense_net, pictures, save, vectors

pytestmark = [pytest.mark.system, pytest.mark.tensorflow]
ROOT = Path(__file__).parents[2]
BOARDS = ("raspberry-pi-4", "coral-usb", "cortex-m7")
POST_TRAINING = ("float32", "dynamic-range", "int8")


@pytest.fixture(scope="session")
def folder(trained, tmp_path_factory):
    made = tmp_path_factory.mktemp("pictured")
    for name in ("cnn.h5", "mlp.keras"):
        shutil.copy(trained / name, made)
    save(made / "data.npz", *pictures(500, seed=7))
    save(made / "train.npz", *pictures(1500, seed=8))
    save(made / "vectors.npz", *vectors(400, seed=7))
    save(made / "vectors-train.npz", *vectors(300, seed=8))
    return made


@pytest.fixture(scope="session")
def key():
    return SigningKey.generate()


@pytest.fixture(scope="session")
def order(folder):
    return Order(
        model=folder / "cnn.h5",
        profiles=BOARDS,
        data=folder / "data.npz",
        train=folder / "train.npz",
        out=folder / "out",
        recipes=POST_TRAINING,
        preprocessing=Preprocessing(1 / 255),
        labels=("nw", "ne", "sw", "se"),
    )


@pytest.fixture(scope="session")
def pictured(order, key):
    """The convolutional model converted once for all tests."""
    return convert(order, lambda: key)


def opened(conversion, order, key, board):
    [found] = [result for result in conversion.profiles if result.profile == board]
    data = (order.out / found.bundle).read_bytes()
    return data, unpack(data, [key.public])


def test_every_post_training_recipe_keeps_the_accuracy(pictured):
    for candidate in pictured.candidates:
        assert candidate.failed == ""
        metrics = candidate.measurement.metrics
        assert metrics.rows > 350
        assert metrics.float_accuracy > 0.97
        assert abs(metrics.drop) <= 0.01
        assert metrics.drop_low <= metrics.drop <= metrics.drop_high
        assert candidate.measurement.host_ms_p50 <= candidate.measurement.host_ms_p90


def test_int8_is_what_it_says_and_smaller_than_float(pictured):
    found = {one.recipe: one.measurement for one in pictured.candidates}
    assert {name: one.facts.precision for name, one in found.items()} == {
        name: name for name in POST_TRAINING
    }
    assert found["int8"].compressed_bytes < found["float32"].compressed_bytes
    assert found["int8"].facts.static_shapes


def test_a_trained_model_answers_with_its_last_features_too_and_knows_what_is_new(
    folder, order, key, tmp_path
):
    x, y = pictures(600, seed=8)
    again = msgspec.structs.replace(
        order, out=tmp_path, recipes=("pcqat:epochs=1",), profiles=("raspberry-pi-4",),
        train=save(tmp_path / "few.npz", x, y), embedding=True,
    )  # fmt: skip
    found = convert(again, lambda: key)
    _, bundle = opened(found, again, key, "raspberry-pi-4")
    inside = bundle.manifest.embedding
    assert (inside.name, inside.dtype) == ("embedding", "int8")
    assert bundle.baseline.subspace.columns == ()
    novel = bundle.baseline.channels["input.novelty"]
    assert 0.2 < novel.mean < 2
    model = LiteRt(bundle.model, bundle.manifest.preprocessing)
    noise = np.random.default_rng(3).integers(0, 256, x[:50].shape).astype(x.dtype)
    usual, strange = (
        novelty(bundle.baseline.subspace, model.embed_rows(rows)).mean() for rows in (x[:50], noise)
    )
    assert usual < 1.5 * novel.mean < 2 * novel.mean < strange


def test_the_layers_that_int8_moves_most_are_named(pictured):
    found = {one.recipe: one.measurement.worst_layers for one in pictured.candidates}
    assert found["float32"] == ()
    assert len(found["int8"]) == 5
    errors = [layer.error for layer in found["int8"]]
    assert errors == sorted(errors, reverse=True)
    assert 0 < errors[0] < 0.2
    assert {layer.op for layer in found["int8"]} >= {"FULLY_CONNECTED", "CONV_2D"}


def test_each_board_refuses_what_it_can_t_run(pictured):
    refused = {
        result.profile: {v.recipe for v in result.verdicts if v.reasons}
        for result in pictured.profiles
    }
    assert refused == {
        "raspberry-pi-4": set(),
        "coral-usb": {"float32", "dynamic-range"},
        "cortex-m7": {"dynamic-range"},
    }
    assert pictured.unfit == []


def test_a_bundle_runs_its_own_self_test_with_both_kernel_families(pictured, order, key):
    for board in BOARDS:
        _, bundle = opened(pictured, order, key, board)
        assert len(bundle.golden.inputs) == 16
        for family in ("xnnpack", "builtin"):
            model = LiteRt(bundle.model, bundle.manifest.preprocessing, family=family)
            assert self_test(model, bundle.golden, bundle.manifest) is None


def test_a_device_gets_raw_rows_right_by_the_manifest_alone(pictured, order, key):
    _, bundle = opened(pictured, order, key, "cortex-m7")
    assert bundle.manifest.model_input.dtype == bundle.manifest.model_output.dtype == "int8"
    x, y = pictures(200, seed=99)
    model = LiteRt(bundle.model, bundle.manifest.preprocessing)
    assert (model.run_rows(x).argmax(axis=1) == y).mean() > 0.97
    assert bundle.manifest.labels == ("nw", "ne", "sw", "se")
    assert (bundle.manifest.input.kind, bundle.manifest.scores) == ("image", "probabilities")


def test_the_baseline_watches_inputs_and_outputs(pictured, order, key):
    _, bundle = opened(pictured, order, key, "coral-usb")
    assert bundle.baseline.rows == pictured.held_out_rows
    assert {"input.brightness", "output.class", "output.confidence"} <= {*bundle.baseline.channels}
    assert "input.brightness" in bundle.baseline.subspace.columns
    assert 0.5 < bundle.baseline.channels["input.novelty"].mean < 1.5


def test_what_was_timed_is_beside_the_bundle_and_not_in_it(pictured, order, key):
    data, bundle = opened(pictured, order, key, "coral-usb")
    proof = from_json(Proof, (order.out / "cnn-1-coral-usb.proof.json").read_bytes(), "the proof")
    assert (proof.bundle, proof.digest) == ("cnn-1-coral-usb.edge", bundle.digest)
    assert proof.candidates[0].measurement.host_runs >= 50
    assert len(data) == proof.result.bundle_bytes
    head, _, text = bundle.members[CARD].decode().removeprefix("---\n").partition("\n---\n")
    assert "library_name: litert" in head
    assert "## Limits" in text
    assert str(order.model.parent) not in text


def test_the_table_has_a_line_per_candidate_and_marks_the_chosen(pictured):
    text = plain(pictured)
    for result in pictured.profiles:
        assert re.search(
            rf"^{result.profile}: cnn-1-.*\.edge \([\d,]+ bytes\)$", text, re.MULTILINE
        )
    assert len(re.findall(r"^\* .*chosen$", text, re.MULTILINE)) == len(BOARDS)
    assert "full int8 only, this is float32" in text


def test_a_killed_worker_costs_one_candidate_and_the_bytes_stay_the_same(
    pictured, order, key, tmp_path
):
    killed = []

    def kill_at_work(step):
        if step == "pruned-int8: converting":
            threading.Thread(target=lambda: killed.append(kill_working_child())).start()

    again = msgspec.structs.replace(
        order, out=tmp_path / "again", recipes=("pruned-int8", "float32", "int8"),
        profiles=("cortex-m7",),
    )  # fmt: skip
    found = convert(again, lambda: key, kill_at_work)
    assert killed == [True]
    [died] = [one for one in found.candidates if one.recipe == "pruned-int8"]
    assert died.failed == "the converter killed by SIGKILL (out of memory, or by hand)"
    assert opened(found, again, key, "cortex-m7")[0] == opened(pictured, order, key, "cortex-m7")[0]


def kill_working_child():
    """Kill the worker once it has used processor time for the request it was just given."""
    children = Path("/proc/self/task").glob("*/children")
    pids = [pid for file in children for pid in file.read_text().split()]
    [worker] = [
        pid for pid in pids if b"converters.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    begin, deadline = ticks(worker), time.monotonic() + 30
    while ticks(worker) < begin + 20:
        if time.monotonic() > deadline:
            return False
        threading.Event().wait(0.01)
    os.kill(int(worker), signal.SIGKILL)
    return True


def ticks(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def edge(*words, **environment):
    command = [sys.executable, "-m", "edge_sdk.cli", *(str(word) for word in words)]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=ROOT,
        env={**os.environ, **environment},
    )  # fmt: skip


def test_a_keras_3_model_is_pruned_for_a_board_that_takes_it_and_refused_where_it_is_too_big(
    folder, tmp_path
):
    own = tmp_path / "tiny.toml"
    text = (ROOT / "hw_profiles/cortex-m7.toml").read_text()
    own.write_text(
        text.replace('name = "cortex-m7"', 'name = "tiny"').replace("1_048_576", "1_000")
    )
    shown = edge(
        "convert", folder / "mlp.keras", "--profile", "raspberry-pi-4", "--profile", own,
        "--data", folder / "vectors.npz", "--train", folder / "vectors-train.npz",
        "--recipe", "pcqat", "--out", tmp_path / "out", "--json",
        EDGE_SIGNING_KEY=str(tmp_path / "signing.key"),
    )  # fmt: skip
    assert shown.returncode == 5
    # LiteRT tells that it made its delegate, whoever asks.
    words = [line for line in shown.stderr.splitlines() if not line.startswith("INFO: Created")]
    assert "made a signing key" in words[0]
    assert words[1:] == [
        "edge: nothing fits tiny: the table says why; try another recipe, a smaller model, "
        "or a larger --max-drop"
    ]
    found = json.loads(shown.stdout)
    pi, tiny = found["profiles"]
    assert re.search(r"bytes do not fit 1,000 of flash", tiny["verdicts"][0]["reasons"][0])
    manifest = read_manifest((tmp_path / "out" / pi["bundle"]).read_bytes())
    assert manifest.scores == "logits"
    assert manifest.input.kind == "vector"
    assert [step.split()[0] for step in manifest.recipe.steps] == [
        "prune", "cluster", "quantisation-aware", "quantise",
    ]  # fmt: skip
    assert manifest.lineage.train is not None
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "mlp-1-raspberry-pi-4.card.html",
        "mlp-1-raspberry-pi-4.edge",
        "mlp-1-raspberry-pi-4.proof.json",
    ]


def test_a_float_tflite_file_is_quantised_without_tensorflow(tmp_path, key):
    net, x = dense_net(200), np.random.default_rng(4).normal(0, 1, (300, 16)).astype(np.float32)
    (tmp_path / "net.tflite").write_bytes(net)
    y = LiteRt(net, Preprocessing()).run_rows(x).argmax(axis=1)
    mixed = "mixed-int4:changed=0.3"
    names = ("float32", "int8", "dynamic-range", "float16", "weight-int8", mixed, "qat")
    order = Order(
        model=tmp_path / "net.tflite", profiles=("raspberry-pi-4", "cortex-m7"), recipes=names,
        data=save(tmp_path / "data.npz", x, y), out=tmp_path / "out", max_drop=0.05,
        train=save(tmp_path / "train.npz", x[:90] + 1, y[:90]),
    )  # fmt: skip
    found = convert(order, lambda: key)
    made = {one.recipe: one for one in found.candidates}
    assert made["qat"].failed.startswith("a .tflite file can't be trained")
    assert [made[name].failed for name in names[:-1]] == [""] * 6
    assert made["float32"].measurement.metrics.drop == 0
    refused = {v.recipe: v.reasons for v in found.profiles[1].verdicts if v.reasons}
    assert set(refused) == {"dynamic-range", "float16", "weight-int8", mixed, "qat"}
    _, bundle = opened(found, order, key, "cortex-m7")
    assert "tensorflow" not in bundle.manifest.lineage.tools
    code = "import sys, converters.tflite_worker; sys.exit('tensorflow' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_each_tflite_file_that_can_t_be_used_gets_its_own_sentence(tmp_path):
    net = dense_net(96)
    said = {
        "it is int8 already": rewrite(net, Quantise("int8"), np.zeros((9, 16), np.float32)),
        "it is no .tflite file": b"PK\x03\x04 something else",
        "damaged": net[:300],
    }
    for words, data in said.items():
        (tmp_path / "net.tflite").write_bytes(data)
        with pytest.raises(UnreadableModelError, match=words):
            load(tmp_path / "net.tflite")


def test_a_wrong_word_is_said_before_a_key_is_made(folder, tmp_path):
    shown = edge(
        "convert", folder / "cnn.h5", "--profile", "rasberry-pi-4", "--data",
        folder / "data.npz", "--out", tmp_path / "out",
        EDGE_SIGNING_KEY=str(tmp_path / "signing.key"),
    )  # fmt: skip
    assert (shown.returncode, shown.stdout) == (2, "")
    assert "did you mean raspberry-pi-4?" in shown.stderr
    assert list(tmp_path.iterdir()) == []
