"""Tiny models for tests, trained in seconds; run in a child: `python -m tests.micro_models FOLDER`.

The data is synthetic and separable: pictures of 8 x 8 whose bright quarter says the class, and
vectors of five columns around one centre per class.
"""

import sys
from pathlib import Path

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

CLASSES = 4


def pictures(rows, seed):
    """Raw pictures (n, 8, 8, 1) of 0..255 and their classes: which quarter is the bright one."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, CLASSES, rows)
    x = rng.integers(0, 120, (rows, 8, 8, 1))
    for picture, quarter in zip(x, y, strict=True):
        top, left = 4 * (quarter // 2), 4 * (quarter % 2)
        picture[top : top + 4, left : left + 4] += 90
    return x.astype(np.uint8), y


def vectors(rows, seed):
    """Raw vectors (n, 5) and their classes."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, rows)
    return (rng.normal(0, 1, (rows, 5)) + 4 * np.eye(5)[y]).astype(np.float32), y


def tables(rows, seed):
    """Sixteen columns that six hidden ones mix, and their classes: separable, with redundancy."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, rows)
    hidden = rng.normal(0, 1, (rows, 6)) + 4 * np.eye(6)[y]
    mixed = hidden @ np.random.default_rng(0).normal(0, 0.5, (6, 16))
    return (mixed + rng.normal(0, 0.1, (rows, 16))).astype(np.float32), y


def waves(rows, seed):
    """Series of 32 steps and two sensors, and their classes: how often they swing."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, rows)
    steps = np.arange(32) / 32 + rng.random((rows, 1))
    clean = np.sin(2 * np.pi * (2 + 2 * y[:, np.newaxis]) * steps)
    pair = np.stack([clean, -clean], axis=2)
    return (pair + rng.normal(0, 0.3, pair.shape)).astype(np.float32), y


def save(path, x, y=None):
    """A .npz as `edge convert` reads it."""
    np.savez(path, **({"x": x} if y is None else {"x": x, "y": y}))
    return path


def dense_net(width, seed=1):
    """A float .tflite file: input (1, 16) -> dense `width`, ReLU -> dense 4, as bytes."""
    rng = np.random.default_rng(seed)
    shapes = {"input": (1, 16), "w1": (width, 16), "b1": (width,), "a/one/Relu;x": (1, width),
              "w2": (4, width), "b2": (4,), "scores": (1, 4)}  # fmt: skip
    root, graph = schema.ModelT(), schema.SubGraphT()
    root.version, root.description, root.subgraphs = 3, b"made by hand", [graph]
    root.buffers, graph.tensors, graph.operators = [schema.BufferT()], [], []
    for name, shape in shapes.items():
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.type, tensor.buffer = name.encode(), list(shape), 0, 0
        if name[0] in "wb":
            buffer = schema.BufferT()
            values = rng.normal(0, 1 / np.sqrt(shape[-1]), shape).astype(np.float32)
            buffer.data = np.frombuffer(values.tobytes(), np.uint8)
            tensor.buffer = len(root.buffers)
            root.buffers.append(buffer)
        graph.tensors.append(tensor)
    graph.inputs, graph.outputs = [0], [6]
    for given, made, relu in (([0, 1, 2], 3, 1), ([3, 4, 5], 6, 0)):
        op, options = schema.OperatorT(), schema.FullyConnectedOptionsT()
        options.fusedActivationFunction = relu
        op.opcodeIndex, op.inputs, op.outputs = 0, given, [made]
        op.builtinOptionsType = schema.BuiltinOptions.FullyConnectedOptions
        op.builtinOptions = options
        graph.operators.append(op)
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.FULLY_CONNECTED
    code.version, root.operatorCodes = 1, [code]
    builder = flatbuffers.Builder(1024)
    builder.Finish(root.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def cnn(folder):
    """`cnn.h5` by tf_keras."""
    import tf_keras

    tf_keras.utils.set_random_seed(3)
    layers = tf_keras.layers
    model = tf_keras.Sequential(
        [
            layers.Input((8, 8, 1)),
            layers.Conv2D(16, 3, padding="same", activation="relu"),
            layers.MaxPool2D(),
            layers.Flatten(),
            layers.Dense(24, activation="relu"),  # 6,144 weights: under 1,024 stay float
            layers.Dense(CLASSES, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    x, y = pictures(800, seed=1)
    model.fit(x / 255.0, y, epochs=6, verbose=0)
    model.save(folder / "cnn.h5")


def wide(folder):
    """`wide.h5` by tf_keras, on what `tables` gives."""
    import tf_keras

    tf_keras.utils.set_random_seed(3)
    layers = tf_keras.layers
    model = tf_keras.Sequential(
        [
            layers.Input((16,)),
            layers.Dense(64, activation="relu"),
            layers.Dense(32, activation="relu"),
            layers.Dense(3, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(*tables(800, seed=1), epochs=8, verbose=0)
    model.save(folder / "wide.h5")


def series(folder):
    """`series.h5` by tf_keras, on what `waves` gives: one of each that has a twin for pictures."""
    import tf_keras

    tf_keras.utils.set_random_seed(3)
    layers = tf_keras.layers
    model = tf_keras.Sequential(
        [
            layers.Input((32, 2)),
            layers.ZeroPadding1D((1, 0)),
            layers.Conv1D(16, 5, strides=2, padding="same", use_bias=False),
            layers.BatchNormalization(momentum=0.8),
            layers.ReLU(),
            layers.MaxPooling1D(2, strides=1),
            layers.Conv1D(16, 3, activation="relu"),
            layers.AveragePooling1D(2),
            layers.Conv1D(12, 3, padding="same", activation="relu"),
            layers.GlobalAveragePooling1D(),
            layers.Dense(3, activation="softmax"),
        ]
    )
    model.compile(tf_keras.optimizers.Adam(5e-3), "sparse_categorical_crossentropy")
    model.fit(*waves(800, seed=1), epochs=6, verbose=0)
    model.save(folder / "series.h5")


def mlp(folder):
    """`mlp.keras` by Keras 3."""
    import keras

    keras.utils.set_random_seed(3)
    inputs = keras.Input((5,))
    hidden = keras.layers.Dense(32, activation="relu")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(3)(hidden))
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    x, y = vectors(800, seed=1)
    model.fit(x, y, epochs=12, verbose=0)
    model.save(folder / "mlp.keras")


def broken(folder):
    """Models that can't be converted, each for a reason of its own."""
    import tf_keras

    layers = tf_keras.layers
    pair = [layers.Input((4,)), layers.Input((4,))]
    added = layers.Dense(2)(layers.Add()(pair))
    tf_keras.Model(pair, added).save(folder / "two-inputs.h5")
    tf_keras.Sequential([layers.Input((4,)), layers.Dense(1)]).save(folder / "one-output.h5")
    tf_keras.Sequential([layers.Input(batch_shape=(7, 4)), layers.Dense(2)]).save(
        folder / "batch.h5"
    )


def main(folder):
    """All of them."""
    for make in (cnn, wide, series, mlp, broken):
        make(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
