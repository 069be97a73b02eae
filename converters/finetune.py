"""What recipes that train have in common: a copy of the model, rows to learn from, a way to fit.

Worker only. Training is the same on every run: seeded, and deterministic in TensorFlow.
"""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras
from numpy.typing import NDArray

from converters.dialogue import Rows
from converters.loading import Source
from converters.planes import as_planes
from edge_sdk.bundle import Task

_BATCHES = (8, 32)  # rows of few, so that little data still gives a hundred steps an epoch
_SEED = 1
# Half of what is learnt is the class, half the given model's own answer (distillation), which
# says more about a row than its class and keeps few training rows from being learnt by heart.
_TEACHER = 0.5
_LAST_RATE = 0.02  # of the first


class UntrainableError(Exception):
    """Why a model can't be trained, in words."""


@dataclass(frozen=True)
class Lesson:
    """Rows to learn from.

    Attributes:
        x: model inputs (n, *shape).
        y: classes (n,), target numbers (n, k), or 0 and 1 (n,) for what is normal and what not.
        task: what the answers are.
        teacher: what the given model itself answers (n, ...).
        parallel: whether to train on all devices of this machine (`tf.distribute`).
    """

    x: Rows
    y: NDArray[np.generic]
    task: Task
    teacher: Rows
    parallel: bool = False

    @property
    def batch(self) -> int:
        """Rows in a batch."""
        return max(_BATCHES[0], min(_BATCHES[1], len(self.x) // 100))

    @property
    def steps(self) -> int:
        """Batches in one epoch."""
        return -(-len(self.x) // self.batch)

    @property
    def logits(self) -> bool:
        """Whether the model gives logits of classes."""
        sums = self.teacher.sum(axis=1)
        return not ((self.teacher >= 0).all() and np.allclose(sums, 1, atol=1e-3))

    def targets(self, teacher: float = _TEACHER, temperature: float = 1.0) -> Rows:
        """What training aims at: a share of the teacher's softened answers, the rest the truth."""
        return (1 - teacher) * self._truth() + teacher * self._answers(temperature)

    def _truth(self) -> Rows:
        match self.task:
            case "classification":
                return np.eye(self.teacher.shape[1], dtype=np.float32)[self.y.astype(np.int64)]
            case "regression":
                return self.y.astype(np.float32).reshape(self.teacher.shape)
            case "anomaly":
                return self.x.reshape(self.teacher.shape)

    def _answers(self, temperature: float) -> Rows:
        if self.task != "classification":
            return self.teacher
        scores = self.teacher if self.logits else np.log(np.maximum(self.teacher, 1e-7))
        return np.asarray(tf.nn.softmax(scores / temperature))


def lesson(
    source: Source, x: Rows, y: NDArray[np.generic], task: Task, *, parallel: bool = False
) -> Lesson:
    """Rows `x` with their truth `y`, and what the given model says to them.

    What reconstructs its input learns from normal rows alone.
    """
    if task == "anomaly":
        x, y = x[y == 0], y[y == 0]
    return Lesson(x, y, task, source.score(x), parallel)


def trainable_copy(source: Source) -> Any:  # noqa: ANN401 - tf_keras ships no types
    """The model in tf_keras, to be changed freely.

    Raises:
        UntrainableError: there is none.
    """
    if source.trainable is None:
        raise UntrainableError(source.facts.untrainable)
    seeded()
    copy = tf_keras.models.clone_model(source.trainable)
    copy.set_weights(source.trainable.get_weights())
    return as_planes(copy)


def seeded() -> None:
    """From here on TensorFlow does the same on every run."""
    tf_keras.utils.set_random_seed(_SEED)
    tf.config.experimental.enable_op_determinism()


def fit(
    model: Any,  # noqa: ANN401
    lesson: Lesson,
    epochs: int,
    learning_rate: float,
    callbacks: Sequence[Any] = (),
    targets: Rows | None = None,
) -> None:
    """Train in place, on `targets` or what the lesson aims at.

    The rate stands for half of the steps, then falls by a cosine: one that stands to the end leaves
    the last steps noisy. `learning_rate` is the mean of all. With a parallel lesson the model must
    have been made within `devices`.
    """
    half = max(1, epochs * lesson.steps // 2)
    first = learning_rate / (0.5 + 0.25 * (1 + _LAST_RATE))
    rate = tf_keras.optimizers.schedules.CosineDecay(
        first, half, _LAST_RATE, warmup_target=first, warmup_steps=half
    )
    model.compile(tf_keras.optimizers.Adam(rate), _loss(lesson))
    model.fit(
        lesson.x, lesson.targets() if targets is None else targets, batch_size=lesson.batch,
        epochs=epochs, verbose=0, callbacks=[*callbacks],
    )  # fmt: skip


def _loss(lesson: Lesson) -> Any:  # noqa: ANN401
    if lesson.task == "classification":
        return tf_keras.losses.CategoricalCrossentropy(from_logits=lesson.logits)
    return tf_keras.losses.MeanSquaredError()


def devices(lesson: Lesson) -> contextlib.AbstractContextManager[object]:
    """Where the weights of a model to train are made: mirrored on all devices when told to."""
    if not lesson.parallel:
        return contextlib.nullcontext()
    return tf.distribute.MirroredStrategy().scope()  # type: ignore[no-any-return]
