"""What recipes that train have in common: a copy of the model, rows to learn from, a way to fit.

Worker only. Training is the same on every run: seeded, and deterministic in TensorFlow.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras
from numpy.typing import NDArray

from converters.dialogue import Rows
from converters.loading import Source

_BATCH = 32
_SEED = 1
# Half of what is learnt is the class, half the given model's own answer (distillation), which
# says more about a row than its class and keeps few training rows from being learnt by heart.
_TEACHER = 0.5


class UntrainableError(Exception):
    """Why a model can't be trained, in words."""


@dataclass(frozen=True)
class Lesson:
    """Rows to learn from.

    Attributes:
        x: model inputs (n, *shape).
        targets: the share of each class (n, classes) that training aims at.
        logits: whether the model gives logits.
    """

    x: Rows
    targets: Rows
    logits: bool

    @property
    def steps(self) -> int:
        """Batches in one epoch."""
        return -(-len(self.x) // _BATCH)


def lesson(source: Source, x: Rows, y: NDArray[np.int64]) -> Lesson:
    """Rows `x` with classes `y`, and what the given model itself says to them."""
    scores = source.score(x)
    logits = not ((scores >= 0).all() and np.allclose(scores.sum(axis=1), 1, atol=1e-3))
    teacher = np.asarray(tf.nn.softmax(scores)) if logits else scores
    known = np.eye(scores.shape[1], dtype=np.float32)[y]
    return Lesson(x, (1 - _TEACHER) * known + _TEACHER * teacher, bool(logits))


def trainable_copy(source: Source) -> Any:  # noqa: ANN401 - tf_keras ships no types
    """The model in tf_keras, to be changed freely.

    Raises:
        UntrainableError: there is none.
    """
    if source.trainable is None:
        raise UntrainableError(source.facts.untrainable)
    tf_keras.utils.set_random_seed(_SEED)
    tf.config.experimental.enable_op_determinism()
    copy = tf_keras.models.clone_model(source.trainable)
    copy.set_weights(source.trainable.get_weights())
    return copy


def fit(
    model: Any,  # noqa: ANN401
    lesson: Lesson,
    epochs: int,
    learning_rate: float,
    callbacks: Sequence[Any] = (),
) -> None:
    """Train in place."""
    model.compile(
        tf_keras.optimizers.Adam(learning_rate),
        tf_keras.losses.CategoricalCrossentropy(from_logits=lesson.logits),
    )
    model.fit(
        lesson.x, lesson.targets, batch_size=_BATCH, epochs=epochs, verbose=0,
        callbacks=[*callbacks],
    )  # fmt: skip
