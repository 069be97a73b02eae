"""TensorFlow and Keras without large libraries that they import only because they are there.

A third of a worker's start. Nothing here hands Keras a data frame, an estimator or a plot; what
imports these libraries later finds them.
"""

import sys

_absent = [name for name in ("matplotlib", "pandas", "sklearn") if name not in sys.modules]
sys.modules.update(dict.fromkeys(_absent))  # type: ignore[arg-type]  # None: as if not installed
try:
    import keras  # noqa: F401
    import tensorflow as tf  # noqa: F401
    import tf_keras  # noqa: F401
finally:
    for _name in _absent:
        del sys.modules[_name]
