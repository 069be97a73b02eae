"""The demo's data and models: scikit-learn's 1,797 scanned digits and a small CNN on them.

Run as a program, since TensorFlow is only needed here: `python -m edge_sdk.demo.digits FOLDER`.
"""

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

RAW_MAX = 16.0  # the scanner's grey levels; the models take raw / 16
TRAIN, DATA = 800, 500  # rows to train on, rows to convert with; the rest is the field
MODELS = {"v1": (20, 1), "v2": (40, 2), "v3": (40, 3), "v4": (40, 4)}  # name: epochs, seed
NIGHT = 0.3  # how bright the pictures of one night are

Images = NDArray[np.float32]


def load() -> tuple[Images, NDArray[np.int64]]:
    """The digits (1797, 8, 8, 1), raw 0..16, in a fixed random order, and their classes."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    images = digits.images[order].astype(np.float32)[..., np.newaxis]
    return images, digits.target[order].astype(np.int64)


def split(folder: Path) -> None:
    """Write train.npz, data.npz, field.npz (what the devices see) and night.npz."""
    x, y = load()
    parts = {
        "train": slice(0, TRAIN),
        "data": slice(TRAIN, TRAIN + DATA),
        "field": slice(TRAIN + DATA, None),
    }
    for name, part in parts.items():
        np.savez_compressed(folder / f"{name}.npz", x=x[part], y=y[part])
    night = x[parts["data"]] * np.float32(NIGHT)
    np.savez_compressed(folder / "night.npz", x=night)


def build() -> Any:  # noqa: ANN401 - tf_keras ships no types
    """A CNN of 21,546 weights."""
    import tf_keras

    layers = tf_keras.layers
    return tf_keras.Sequential(
        [
            layers.Input((8, 8, 1)),
            layers.Conv2D(16, 3, padding="same", activation="relu"),
            layers.Conv2D(32, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dense(32, activation="relu"),
            layers.Dense(10, activation="softmax"),
        ]
    )


def train(folder: Path) -> None:
    """Write v1.keras to v4.keras: the same net, trained for longer and anew."""
    import tf_keras

    with np.load(folder / "train.npz") as data:
        x, y = data["x"] / np.float32(RAW_MAX), data["y"]
    for name, (epochs, seed) in MODELS.items():
        tf_keras.utils.set_random_seed(seed)
        model = build()
        model.compile(optimizer="adam", loss="sparse_categorical_crossentropy")
        model.fit(x, y, epochs=epochs, batch_size=64, verbose=0)
        model.save(folder / f"{name}.keras")


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    target = Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    split(target)
    train(target)
