"""Bytes of a delta over the whole new version compressed by zstd -19, for a fine-tuned model.

The model is a small CNN for handwritten digits (scikit-learn's), trained, converted to int8, and
changed in three ways: (a) fine-tuned for one epoch, (b) trained on for five epochs and quantised
anew on other rows, (c) given other labels. Beside it: zstd --patch-from, where zstd is installed.
The whole version is compressed from its files as they are, not from their zip.
"""

import contextlib
import json
import lzma
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import msgspec
import numpy as np
import tensorflow as tf
from sklearn.datasets import load_digits

from edge_sdk import delta
from edge_sdk.bundle import contents, pack, unpack
from edge_sdk.flatbuffer import weights
from edge_sdk.signing import SigningKey
from tests.bundles import make_bundle

KEY = SigningKey.generate()
PAIR = ("old", "new")


def tflite(model: tf.keras.Model, rows: np.ndarray) -> bytes:
    """The model in int8, quantised on `rows`."""
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([row[None]] for row in rows)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    with Path(os.devnull).open("w") as nothing, contextlib.redirect_stdout(nothing):
        return bytes(converter.convert())


def versions() -> dict[str, bytes]:
    """Bundles: the old one under "", and what became of it."""
    tf.keras.utils.set_random_seed(1)
    digits = load_digits()
    x = (digits.images[..., None] / 16).astype(np.float32)
    y = digits.target
    layers = tf.keras.layers
    model = tf.keras.Sequential(
        [
            tf.keras.Input((8, 8, 1)),
            layers.Conv2D(32, 3, padding="same", activation="relu"),
            layers.Conv2D(64, 3, padding="same", activation="relu"),
            layers.MaxPool2D(),
            layers.Flatten(),
            layers.Dense(256, activation="relu"),
            layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile(tf.keras.optimizers.Adam(1e-3), "sparse_categorical_crossentropy")
    model.fit(x[:1200], y[:1200], epochs=8, verbose=0)
    old = tflite(model, x[:100])
    model.compile(tf.keras.optimizers.Adam(1e-4), "sparse_categorical_crossentropy")
    model.fit(x[1200:1700], y[1200:1700], epochs=1, verbose=0)
    tuned = tflite(model, x[:100])
    model.compile(tf.keras.optimizers.Adam(1e-3), "sparse_categorical_crossentropy")
    model.fit(x[:1700], y[:1700], epochs=5, verbose=0)
    again = tflite(model, x[800:900])
    labelled = unpack(make_bundle(KEY, model=old), [KEY.public])
    named = tuple(f"digit {n}" for n in range(10))
    manifest = msgspec.structs.replace(labelled.manifest, version="2", labels=named)
    return {
        "": make_bundle(KEY, model=old),
        "fine-tuned": make_bundle(KEY, version="2", model=tuned),
        "trained on, quantised anew": make_bundle(KEY, version="2", model=again),
        "new labels": pack(manifest, labelled.members, KEY),
    }


def zstd(old: bytes, new: bytes, folder: Path) -> tuple[int, int | None]:
    """The new files' bytes by zstd -19 (LZMA if there is no zstd), and by --patch-from."""
    paths = [folder / name for name in PAIR]
    for path, bundle in zip(paths, (old, new), strict=True):
        path.write_bytes(b"".join(contents(bundle).values()))
    if shutil.which("zstd") is None:
        return len(lzma.compress(paths[1].read_bytes())), None
    sizes = []
    for option in ((), (f"--patch-from={paths[0]}",)):
        out = folder / "out.zst"
        command = ["zstd", "-q", "-f", "-19", *option, str(paths[1]), "-o", str(out)]
        subprocess.run(command, check=True)
        sizes.append(out.stat().st_size)
    return sizes[0], sizes[1]


def main() -> None:
    """All three; (a) is the value."""
    made = versions()
    old = made.pop("")
    shares, words = [], []
    with tempfile.TemporaryDirectory() as folder:
        for name, new in made.items():
            whole, patch = zstd(old, new, Path(folder))
            change = delta.make(old, new, PAIR)
            if delta.apply(old, change, PAIR) != new:
                raise SystemExit(f"the delta of {name} does not give the bundle")
            shares.append(len(change) / whole)
            beside = "no zstd here" if patch is None else f"patch-from {patch / whole:.3f}"
            words.append(f"{name} {shares[-1]:.3f} ({len(change):,} of {whole:,} B, {beside})")
    count = sum(region.length for region in weights(unpack(old, [KEY.public]).model))
    result = {
        "name": "delta-bytes",
        "value": round(shares[0], 4),
        "unit": "of the whole",
        "better": "lower",
        "against": "the new version's files by zstd -19, and zstd --patch-from",
        "detail": f"int8 CNN, {count:,} B of weights: " + "; ".join(words),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
