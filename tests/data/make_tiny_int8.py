"""Makes `tiny_int8.tflite` beside this file: a small int8 CNN for 8x8 images in 0..16.

Run it by hand (needs the convert extra) when the model must change; agent tests only read the
result. The task: which quarter of the image is the brightest (4 classes).
"""

from pathlib import Path

import numpy as np
import tensorflow as tf

LABELS = 4
SEED = 7


def quarters(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Noise with one bright quarter: x (rows, 8, 8) in 0..16 and y (rows,) which one it is."""
    random = np.random.default_rng(seed)
    y = random.integers(0, LABELS, rows)
    x = random.uniform(0, 8, (rows, 8, 8)).astype(np.float32)
    for image, label in zip(x, y, strict=True):
        top, left = 4 * (label // 2), 4 * (label % 2)
        image[top : top + 4, left : left + 4] += random.uniform(2, 8)
    return x.clip(0, 16), y.astype(np.int64)


def main() -> None:
    tf.keras.utils.set_random_seed(SEED)
    tf.config.experimental.enable_op_determinism()
    x, y = quarters(2000, SEED)
    model = tf.keras.Sequential(
        [
            tf.keras.Input((8, 8, 1)),
            tf.keras.layers.Conv2D(4, 3, strides=2, activation="relu"),
            tf.keras.layers.Flatten(),
            tf.keras.layers.Dense(LABELS, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(x[..., None] / 16, y, epochs=20, verbose=0)
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([row[None, ..., None] / 16] for row in x[:200])
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    Path(__file__).with_name("tiny_int8.tflite").write_bytes(converter.convert())


if __name__ == "__main__":
    main()
