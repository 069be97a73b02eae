"""Rows through a model in TFLite Micro: `python -m converters.on_micro MODEL ROWS OUT`.

Rows and answers are .npy files of what the tensors store. What the arena took is printed by
TFLite Micro itself, on stderr. A process of its own: too small an arena ends it by a signal.
"""

import sys
from pathlib import Path

import numpy as np
from tflite_micro import runtime

_ROOM = 64 * 1024 * 1024  # for models whose arena is ten times their file, or more


def main(model: str, rows: str, out: str) -> None:
    """Answer every row."""
    data = Path(model).read_bytes()
    interpreter = runtime.Interpreter.from_bytes(data, arena_size=len(data) * 10 + _ROOM)
    answers = []
    for row in np.load(rows):
        interpreter.set_input(row[np.newaxis], 0)
        interpreter.invoke()
        answers.append(np.array(interpreter.get_output(0)[0]))
    np.save(out, np.stack(answers))
    interpreter.print_allocations()


if __name__ == "__main__":
    main(*sys.argv[1:])
