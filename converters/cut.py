"""Structured pruning: whole channels leave, so that memory and time shrink too. Worker only."""

from converters.channels import cut_weights, read_channels, shares, thinner
from converters.finetune import Lesson, UntrainableError, devices, fit, trainable_copy
from converters.loading import Source, from_tf_keras
from converters.steps import CutChannels


def cut_channels(source: Source, step: CutChannels, lesson: Lesson) -> Source:
    """A thinner copy of the model, fine-tuned.

    Raises:
        UntrainableError: the model can't be trained, or has no channel to cut.
    """
    model = trainable_copy(source)
    found = read_channels(model)
    kept = shares(found, 1 - step.share)
    if not kept:
        raise UntrainableError("it has no inner layer whose channels could be cut")
    with devices(lesson):
        thin = thinner(model, found, kept)
    cut_weights(model, thin, found, kept)
    fit(thin, lesson, step.epochs, step.learning_rate)
    return from_tf_keras(thin)
