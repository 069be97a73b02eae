"""Rows that a microcontroller senses and answers by itself, told to the gateway unasked.

A row comes with its answer and the model that gave it. What another model answered than the one
that runs is answered anew on the board by the one that does: no row is lost, and none is counted
under a version that did not answer it.
"""

import time
from collections.abc import Iterable

import numpy as np

from device_agent.board import Board
from device_agent.runtime import Model
from device_agent.sources import Taken, Told
from edge_sdk.bundle import MODEL, TensorSpec
from edge_sdk.channels import Array, InputSchema


class BoardSource:
    """A `Source` of what a board tells."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self.trouble = ""

    def take(self, limit: int) -> Taken:
        """At most `limit` rows that came, and how many were missed on the line."""
        self._listen(wait=False)
        found, missed = self._board.heard(limit)
        rows = [np.frombuffer(result.row, "<f4") for result in found]
        told = tuple(
            Told(result.model.hex(), result.output, result.microseconds / 1000) for result in found
        )
        return Taken(rows, dropped=missed, told=told)

    def wait(self, seconds: float) -> None:
        """Nothing came just now; while the board is busy with a request, leave it alone."""
        if not self._listen(wait=True):
            time.sleep(seconds)

    def restart(self) -> None:
        """Rows that came while nobody listened are gone, uncounted."""
        while self._board.heard(64)[0]:
            pass

    def close(self) -> None:
        """The port belongs to the board, not to this."""

    def _listen(self, *, wait: bool) -> bool:
        try:
            listened = self._board.listen(wait=wait)
        except OSError as error:
            self.trouble = f"the board's port failed: {error}"
            return False
        self.trouble = ""
        return listened


def shaped(rows: Iterable[Array], schema: InputSchema) -> list[Array]:
    """Rows as they came, flat, in the schema's shape; one that has other values is left flat."""
    size = int(np.prod(schema.shape))
    return [row.reshape(schema.shape) if row.size == size else row for row in rows]


def answer(told: Told, model: Model) -> Array | None:
    """The stored answer (1, classes) if `model` gave it; else None."""
    listed, spec = model.manifest.members.get(MODEL), model.manifest.model_output
    if listed is None or not told.output or not listed.sha256.startswith(told.model):
        return None
    if len(told.output) != _bytes(spec):
        return None
    return np.frombuffer(told.output, spec.dtype).reshape(1, -1)


def _bytes(spec: TensorSpec) -> int:
    return int(np.prod(spec.shape)) * np.dtype(spec.dtype).itemsize
