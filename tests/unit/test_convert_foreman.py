"""A worker that dies costs the request in hand; the next one gets a new worker."""

import sys

import numpy as np
import pytest

from converters.bench import score_source
from converters.foreman import CannotConvertError, Foreman, WorkerDiedError
from converters.order import Order, read_inputs
from converters.protocol import Score
from edge_sdk.errors import InvalidInputError
from tests.micro_models import save

pytestmark = pytest.mark.system

# a worker without TensorFlow: what it is asked to score says how it ends
WORKER = """
import json, os, signal, sys, numpy
opened = {"type": "opened", "tools": {}, "facts":
          {"kind": "tf_keras", "input_shape": [2], "output_shape": [2], "parameters": 1}}
for line in sys.stdin:
    request = json.loads(line)
    rows = request.get("rows")
    if rows == "crash":
        print("Fatal: buffer overrun", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGSEGV)
    if rows == "out of memory":
        os.kill(os.getpid(), signal.SIGKILL)
    if rows == "exit":
        sys.exit(3)
    if request.get("model") == "poison.h5":
        os.abort()
    if request["type"] == "score":
        numpy.save(request["out"], numpy.array([[0.5, numpy.nan]] * 8))
    reply = {"type": "failed", "reason": "no such op"} if rows == "no" else {"type": "done"}
    print(json.dumps(opened if request["type"] == "open" else reply), flush=True)
"""


@pytest.fixture
def foreman(tmp_path):
    made = []

    def make(model):
        made.append(Foreman(model, tmp_path / "log", (sys.executable, "-c", WORKER)))
        return made[-1]

    yield make
    for one in made:
        one.__exit__(None, None, None)


@pytest.mark.parametrize(
    ("rows", "how"),
    [
        ("crash", r"died of SIGSEGV \(Fatal: buffer overrun\)"),
        ("out of memory", "killed by SIGKILL"),
        ("exit", "ended with code 3"),
    ],
)
def test_a_death_is_told_and_the_work_goes_on(foreman, tmp_path, rows, how):
    out = str(tmp_path / "out.npy")
    one = foreman(tmp_path / "model.h5")
    one.ask(Score("fine", out))
    with pytest.raises(WorkerDiedError, match=how):
        one.ask(Score(rows, out))
    one.ask(Score("fine", out))


def test_a_refusal_is_no_death(foreman, tmp_path):
    out = str(tmp_path / "out.npy")
    one = foreman(tmp_path / "model.h5")
    with pytest.raises(CannotConvertError, match="no such op"):
        one.ask(Score("no", out))
    one.ask(Score("fine", out))


def test_a_model_that_kills_its_reader_is_the_user_s_to_mend(foreman):
    with pytest.raises(InvalidInputError, match=r"loading poison\.h5 .* died of SIGABRT"):
        foreman("poison.h5").open()


def test_a_model_that_gives_nan_itself_is_refused_before_anything_is_converted(foreman, tmp_path):
    x = np.random.default_rng(1).random((60, 2))
    data = save(tmp_path / "data.npz", x, np.zeros(60, int))
    order = Order(model=tmp_path / "m.h5", profiles=("coral-usb",), data=data, out=tmp_path / "out")
    with pytest.raises(InvalidInputError, match="gives NaN or infinite scores for 8 of 8 rows"):
        score_source(foreman(order.model), tmp_path, order, read_inputs(order).rows.held_x)
