"""A worker's side of the protocol: requests on stdin, replies on stdout, one a line.

It may die at any request; `foreman` is made for that.
"""

import os
import resource
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import BinaryIO, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from converters.protocol import (
    Convert,
    Describe,
    Done,
    Failed,
    Open,
    Opened,
    Reply,
    Request,
    Score,
)
from converters.recipe import SourceFacts
from converters.space import Hyper
from edge_sdk.features import Feature

MEMORY = "EDGE_WORKER_MEMORY"  # bytes that a worker may take
Rows = NDArray[np.float32]


class UnreadableModelError(Exception):
    """Why a model can't be loaded or used, in words."""


class Converted(msgspec.Struct, frozen=True):
    """A .tflite file, and the feature steps that its input takes besides the given model's."""

    model: bytes
    features: tuple[Feature, ...] = ()


class Loaded(Protocol):
    """A model that was opened."""

    @property
    def facts(self) -> SourceFacts: ...
    @property
    def tools(self) -> tuple[str, ...]: ...
    def score(self, rows: Rows) -> Rows: ...
    def convert(self, request: Convert) -> Converted: ...
    def hyperparameters(self, function: str) -> tuple[Hyper, ...]: ...


def serve(load: Callable[[Path], Loaded], requests: BinaryIO, replies: BinaryIO) -> None:
    """Answer until the other side closes."""
    model: Loaded | None = None
    for line in requests:
        request: Request = msgspec.json.decode(line, type=Request)
        reply: Reply
        try:
            if isinstance(request, Open):
                model = load(Path(request.model))
                reply = Opened(model.facts, {name: metadata.version(name) for name in model.tools})
            elif model is None:
                reply = Failed("no model is open")
            else:
                reply = _carry_out(model, request)
        except UnreadableModelError as error:
            reply = Failed(str(error))
        except MemoryError:
            reply = Failed(f"it needs more than its memory limit of {_limit() / 2**20:,.0f} MiB")
        except Exception as error:  # noqa: BLE001 - converters raise anything; the reply says it
            reply = Failed(first_line(error))
        replies.write(msgspec.json.encode(reply) + b"\n")
        replies.flush()


def _carry_out(model: Loaded, request: Score | Convert | Describe) -> Done:
    match request:
        case Score():
            np.save(request.out, model.score(np.load(request.rows)))
            return Done()
        case Convert():
            made = model.convert(request)
            Path(request.out).write_bytes(made.model)
            return Done(features=made.features)
        case Describe():
            return Done(hyper=model.hyperparameters(request.function))


def converse(load: Callable[[Path], Loaded]) -> None:
    """Keep stdout for replies alone: what libraries print goes to stderr. Memory is limited."""
    if limit := _limit():
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    serve(load, sys.stdin.buffer, replies)


def _limit() -> int:
    """Bytes that this worker may take; 0 where nobody limits it."""
    return int(os.environ.get(MEMORY, "0"))


def first_line(error: BaseException) -> str:
    """An exception of a large library in one short line."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:200]}" if text else type(error).__name__
