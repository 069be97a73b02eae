"""Rows through a model in tflite-runtime: `PYTHON on_tflite_runtime.py MODEL ROWS OUT`.

PYTHON is that of an environment of its own, which has none of ours: tflite-runtime 2.14 needs
numpy below 2 and Python 3.11 at most. Rows and answers are .npy files of what the tensors store.
"""

import sys

import numpy as np
from tflite_runtime.interpreter import Interpreter


def main(model: str, rows: str, out: str) -> None:
    """Answer every row, one thread, with the kernels it takes by itself."""
    interpreter = Interpreter(model_path=model, num_threads=1)
    interpreter.allocate_tensors()
    given = interpreter.get_input_details()[0]["index"]
    gives = interpreter.get_output_details()[0]["index"]
    answers = []
    for row in np.load(rows):
        interpreter.set_tensor(given, row[np.newaxis])
        interpreter.invoke()
        answers.append(interpreter.get_tensor(gives)[0])
    np.save(out, np.stack(answers))


if __name__ == "__main__":
    main(*sys.argv[1:])
