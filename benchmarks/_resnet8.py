"""MLPerf Tiny's ResNet-8 on CIFAR-10: the data, our conversion of it, and the peers' own.

The files are not ours to ship: EDGE_BENCH_DATA names the folder that holds pretrainedResnet.h5,
cifar10_train10000.npz and cifar10_test5000.npz (`x` uint8 pictures, `y` classes).
"""

import os
import sys
import zlib
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from converters.order import Order
from converters.pipeline import convert
from converters.result import Conversion
from edge_sdk.channels import Preprocessing
from edge_sdk.interpreter import LiteRt
from edge_sdk.signing import SigningKey

FILES = ("pretrainedResnet.h5", "cifar10_train10000.npz", "cifar10_test5000.npz")
CALIBRATION = 500
SKIPPED = 77


class Files(msgspec.Struct, frozen=True):
    """Where the model and its pictures are."""

    model: Path
    train: Path
    test: Path


class Peer(msgspec.Struct, frozen=True):
    """What another tool made of the same model."""

    name: str
    bytes: int
    deflated: int
    accuracy: float

    def __str__(self) -> str:
        return (
            f"{self.name} {self.bytes:,} bytes ({self.deflated:,} deflated) at {self.accuracy:.4f}"
        )


def files() -> Files:
    """The files; says so and ends with 77 if they are not there."""
    folder = Path(os.environ.get("EDGE_BENCH_DATA", "."))
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        print(f"skipped: EDGE_BENCH_DATA must name a folder with {', '.join(missing)}")
        sys.exit(SKIPPED)
    return Files(*(folder / name for name in FILES))


def ours(
    given: Files, recipes: tuple[str, ...], out: Path, *, board: str = "raspberry-pi-4",
    max_drop: float = 0.005, key: SigningKey | None = None,
) -> Conversion:  # fmt: skip
    """Our conversion: training file to calibrate and train, all of the test file to evaluate."""
    order = Order(
        model=given.model,
        profiles=(board,),
        data=given.train,
        test=given.test,
        train=given.train,
        out=out,
        name="resnet8",
        recipes=recipes,
        max_drop=max_drop,
        max_class_drop=max(max_drop, 0.1),
    )
    signing = key or SigningKey.generate()
    return convert(order, lambda: signing, lambda step: print(step, flush=True))


def peers(given: Files) -> list[Peer]:
    """TensorFlow's own converter and ai-edge-quantizer, as their documentation uses them."""
    import tensorflow as tf
    import tf_keras
    from ai_edge_quantizer import quantizer, recipe

    rows = np.load(given.train)["x"][:CALIBRATION].astype(np.float32)
    model = tf_keras.models.load_model(given.model, compile=False)
    plain = tf.lite.TFLiteConverter.from_keras_model(model).convert()
    full = tf.lite.TFLiteConverter.from_keras_model(model)
    full.optimizations = [tf.lite.Optimize.DEFAULT]
    full.representative_dataset = lambda: ([row[np.newaxis]] for row in rows)
    full.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    full.inference_input_type = full.inference_output_type = tf.int8
    static = quantizer.Quantizer(plain, recipe.static_wi8_ai8())
    [(signature, tensors)] = _signatures(plain).items()
    ranges = static.calibrate({signature: [{tensors[0]: row[np.newaxis]} for row in rows]})
    made = {
        "tf.lite int8": full.convert(),
        "ai-edge-quantizer static int8": static.quantize(ranges).quantized_model,
        "ai-edge-quantizer dynamic int8": quantizer.Quantizer(plain, recipe.dynamic_wi8_afp32())
        .quantize()
        .quantized_model,
    }
    test = np.load(given.test)
    return [judged(name, bytes(found), test["x"], test["y"]) for name, found in made.items()]


def _signatures(model: bytes) -> dict[str, list[str]]:
    from ai_edge_litert.interpreter import Interpreter

    found = Interpreter(model_content=model).get_signature_list()
    return {name: list(tensors["inputs"]) for name, tensors in found.items()}


def judged(name: str, model: bytes, x: NDArray[np.generic], y: NDArray[np.generic]) -> Peer:
    """A model's size and its accuracy on all test pictures, by the same code as ours."""
    scores = LiteRt(model, Preprocessing()).run_rows(x)
    accuracy = float((scores.argmax(axis=1) == y).mean())
    return Peer(name, len(model), len(zlib.compress(model, 9)), accuracy)
