"""Five kinds of small model with data of their own, trained in seconds.

Each has a layer of 1,024 weights or more: smaller ones stay float in a dynamic range.

Run in a child, `python -m benchmarks._kinds FOLDER KIND`: writes KIND.h5 and KIND.npz (all rows)
into the folder. Pictures and tables are scikit-learn's, sensors, sounds and
series are made here.
"""

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Data = tuple[NDArray[np.float32], NDArray[np.generic]]
TASKS = {
    "image": "classification", "keyword": "classification", "table": "regression",
    "anomaly": "anomaly", "series": "classification",
}  # fmt: skip
EPOCHS = {"image": 12, "keyword": 16, "table": 60, "anomaly": 40, "series": 8}


def data(kind: str) -> Data:
    """Rows of a kind, as its model takes them, and what is right for them."""
    rng = np.random.default_rng(7)
    match kind:
        case "image":
            return _digits()
        case "keyword":
            return _tones(rng)
        case "table":
            return _friedman()
        case "anomaly":
            return _sick(rng)
        case "series":
            return _waves(rng)
    raise ValueError(kind)


def _digits() -> Data:
    from sklearn.datasets import load_digits

    found = load_digits()
    return (found.images[..., np.newaxis] / 16).astype(np.float32), found.target.astype(np.int64)


def _tones(rng: np.random.Generator) -> Data:
    """Spectrograms (16 steps, 10 bands): which of four sweeps is in the noise."""
    y = rng.integers(0, 4, 1600)
    x = rng.random((1600, 16, 10, 1)).astype(np.float32)
    for row, word in zip(x, y, strict=True):
        for step in range(16):
            band = [step // 2, 9 - step // 2, 4, abs(8 - step)][word] + rng.integers(0, 2)
            row[step, min(band, 9), 0] += 0.8
    return x / 1.8, y


def _friedman() -> Data:
    """Sixteen columns, six of them mixtures of the others; Friedman's function of five."""
    from sklearn.datasets import make_friedman1

    x, y = make_friedman1(1600, n_features=10, noise=1.0, random_state=3)
    rng = np.random.default_rng(3)
    wide = np.concatenate([x, x @ rng.normal(0, 0.5, (10, 6)) + rng.normal(0, 0.01, (1600, 6))], 1)
    standard = (wide - wide.mean(axis=0)) / wide.std(axis=0)
    return standard.astype(np.float32), ((y - y.mean()) / y.std()).astype(np.float32)


def _sick(rng: np.random.Generator) -> Data:
    """Readings of sixteen sensors that move together; some rows have one that does not."""
    hidden = rng.normal(0, 1, (1600, 3))
    x = np.tanh(hidden @ rng.normal(0, 1, (3, 16))) + rng.normal(0, 0.05, (1600, 16))
    y = (rng.random(1600) < 0.2).astype(np.int64)
    bad = np.flatnonzero(y)
    x[bad, rng.integers(0, 16, len(bad))] += rng.choice([-1, 1], len(bad)) * rng.uniform(
        0.3, 1.2, len(bad)
    )
    return x.astype(np.float32), y


def _waves(rng: np.random.Generator) -> Data:
    """Series of 64 steps, two sensors: which of three shapes they have."""
    y = rng.integers(0, 3, 1500)
    steps = np.arange(64) / 64 + rng.random((1500, 1))
    shapes = [np.sin(12 * np.pi * steps), np.sign(np.sin(12 * np.pi * steps)), (12 * steps) % 2 - 1]
    clean = np.choose(y[:, np.newaxis], shapes)
    pair = np.stack([clean, np.roll(clean, 5, axis=1)], axis=2)
    return (pair + rng.normal(0, 0.6, pair.shape)).astype(np.float32), y


def _model(kind: str) -> object:
    import tf_keras

    layers = tf_keras.layers
    conv = {"padding": "same", "activation": "relu"}
    match kind:
        case "image":
            parts = [
                layers.Input((8, 8, 1)), layers.Conv2D(16, 3, **conv), layers.Conv2D(16, 3, **conv),
                layers.MaxPool2D(), layers.Flatten(), layers.Dense(48, activation="relu"),
                layers.Dense(10, activation="softmax"),
            ]  # fmt: skip
        case "keyword":
            parts = [layers.Input((16, 10, 1)), layers.Conv2D(16, (5, 3), strides=2, **conv)]
            for _ in range(2):
                parts += [
                    layers.DepthwiseConv2D(3, padding="same", use_bias=False),
                    layers.BatchNormalization(momentum=0.9), layers.ReLU(),
                    layers.Conv2D(40, 1, use_bias=False),
                    layers.BatchNormalization(momentum=0.9), layers.ReLU(),
                ]  # fmt: skip
            parts += [layers.GlobalAveragePooling2D(), layers.Dense(4, activation="softmax")]
        case "table":
            parts = [
                layers.Input((16,)), layers.Dense(64, activation="relu"),
                layers.Dense(32, activation="relu"), layers.Dense(1),
            ]  # fmt: skip
        case "anomaly":
            parts = [
                layers.Input((16,)), layers.Dense(64, activation="relu"),
                layers.Dense(6, activation="relu"), layers.Dense(64, activation="relu"),
                layers.Dense(16),
            ]  # fmt: skip
        case _:
            parts = [
                layers.Input((64, 2)), layers.Conv1D(16, 5, strides=2, **conv),
                layers.Conv1D(24, 5, strides=2, **conv), layers.GlobalAveragePooling1D(),
                layers.Dense(24, activation="relu"), layers.Dense(3, activation="softmax"),
            ]  # fmt: skip
    return tf_keras.Sequential(parts)


def main(folder: Path, kind: str) -> None:
    """Train on the rows that `edge convert --train-share 0.5` would not hold out."""
    import tf_keras

    from converters.dataset import Dataset, split

    x, y = data(kind)
    np.savez(folder / f"{kind}.npz", x=x, y=y)
    train = split(Dataset(x, y, ""), 0.5).train
    if train is None:
        raise RuntimeError("half of the rows are none")
    tf_keras.utils.set_random_seed(1)
    model = _model(kind)
    given, wanted = train.x, train.y
    if TASKS[kind] == "anomaly":
        given = wanted = train.x[train.y == 0]
    loss = "sparse_categorical_crossentropy" if TASKS[kind] == "classification" else "mse"
    model.compile(tf_keras.optimizers.Adam(3e-3), loss)
    model.fit(given, wanted, epochs=EPOCHS[kind], verbose=0)
    model.save(folder / f"{kind}.h5")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
