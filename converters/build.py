"""Architecture search: a model of the user's `build_model(hp)` learns from the given one.

Worker only.
"""

import importlib
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import tf_keras

from converters.finetune import Lesson, UntrainableError, fit, seeded
from converters.hyper import HyperParameters
from converters.loading import Source, from_keras3, from_tf_keras
from converters.space import Hyper
from converters.steps import Build


def build(source: Source, step: Build, lesson: Lesson) -> Source:
    """A model with the step's hyperparameters, trained from its first weights on.

    Raises:
        UntrainableError: there is no such function, it fails, or its model does not fit.
    """
    seeded()
    made, _ = _built(step.function, dict(step.values))
    found = from_tf_keras(made) if isinstance(made, tf_keras.Model) else from_keras3(made)
    if found.trainable is None:
        raise UntrainableError(found.facts.untrainable)
    given, own = source.facts, found.facts
    if (own.input_shape, own.output_shape) != (given.input_shape, given.output_shape):
        raise UntrainableError(
            f"{step.function} built {own.input_shape} to {own.output_shape}, needed is "
            f"{given.input_shape} to {given.output_shape}"
        )
    fit(found.trainable, lesson, step.epochs, step.learning_rate)
    return from_tf_keras(found.trainable)


def hyperparameters(function: str) -> tuple[Hyper, ...]:
    """What `module:function` asks for; raises UntrainableError as `build` does."""
    _, asked = _built(function, {})
    return asked


def _built(function: str, values: Mapping[str, str]) -> tuple[Any, tuple[Hyper, ...]]:
    hp = HyperParameters(values)
    try:
        made = _imported(function)(hp)
    except UntrainableError:
        raise
    except Exception as error:  # the user's code may raise anything
        raise UntrainableError(f"{function} failed: {type(error).__name__}: {error}") from error
    return made, tuple(hp.asked.values())


def _imported(function: str) -> Callable[[HyperParameters], Any]:
    module, _, name = function.partition(":")
    sys.path.insert(0, str(Path.cwd()))
    try:
        found: Callable[[HyperParameters], Any] = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UntrainableError(f"{function} can't be used: {error}") from error
    finally:
        sys.path.pop(0)
    return found
