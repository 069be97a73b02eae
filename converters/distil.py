"""Distillation: a thinner student learns the given model's answers. Worker only."""

from converters.channels import read_channels, shares, thinner
from converters.finetune import Lesson, UntrainableError, devices, fit, trainable_copy
from converters.loading import Source, from_tf_keras
from converters.steps import Distil

_TEACHER = 0.8  # of what is learnt; the rest is the truth


def distil(source: Source, step: Distil, lesson: Lesson) -> Source:
    """A student of the same shape, `width` as wide, that began with weights of its own.

    Raises:
        UntrainableError: the model can't be trained, or has no inner layer to be thinner.
    """
    model = trainable_copy(source)
    found = read_channels(model)
    kept = shares(found, step.width)
    if not kept:
        raise UntrainableError("it has no inner layer that could be thinner")
    with devices(lesson):
        student = thinner(model, found, kept)
    softened = lesson.targets(_TEACHER, step.temperature)
    fit(student, lesson, step.epochs, step.learning_rate, targets=softened)
    if lesson.task == "classification":  # softened answers make it shy: the last epoch is the truth
        fit(student, lesson, 1, step.learning_rate / 4)
    return from_tf_keras(student)
