"""What watching adds to one inference with 64 features and 10 classes, all of it counted.

Ours: keeping a row, and its share of summing a window of 600 rows up, packing it, sealing it and
storing it in the outbox. whylogs beside, where it installs, tracks the same rows one by one.
"""

import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks._peers import peer
from benchmarks._watched import dense, watched
from device_agent.outbox import Outbox, Stamp
from device_agent.window import WindowBuffer
from edge_sdk.channels import Preprocessing, fits
from edge_sdk.packing import packed

ROWS, WINDOWS = 600, 40
WHYLOGS = """
import sys, json, time, statistics, numpy as np
import whylogs as why
from whylogs.core import DatasetProfile
x = np.load(sys.argv[1])
rows = [{f"c{i}": float(v) for i, v in enumerate(row)} for row in x]
profile, times = DatasetProfile(), []
for row in rows:
    begun = time.perf_counter()
    profile.track(row)
    times.append(1e6 * (time.perf_counter() - begun))
print(json.dumps(round(statistics.median(times))))
"""


def one_by_one(window: WindowBuffer, x: np.ndarray, stored: np.ndarray) -> float:
    """Seconds to watch each row of a window as it would come alone, and to hand it in."""
    schema, latency = window._model.manifest.input, np.ones(1)
    begun = time.perf_counter()
    for index in range(len(x)):
        row = x[index : index + 1]
        if fits(schema, row):
            window.answered(row, stored[index : index + 1], latency)
    return time.perf_counter() - begun


def main() -> None:
    """Microseconds a row, the median window of each kind."""
    random = np.random.default_rng(0)
    x = random.normal(0, 1, (ROWS, 64)).astype(np.float32)
    model = watched(dense(64, 32, 10), x, Preprocessing())
    stored = np.concatenate([model.interpreter.infer(r) for r in model.interpreter.prepare(x)])
    window, hot, closing = WindowBuffer(model), [], []
    with tempfile.TemporaryDirectory() as folder:
        outbox = Outbox(Path(folder) / "outbox.sqlite", "b1", 1 << 24)
        for number in range(WINDOWS):
            hot.append(one_by_one(window, x, stored))
            begun = time.thread_time()  # the disk's share of a commit costs no inference
            message = packed(window.close(60.0, 0, 0).window(), model.baseline)
            outbox.put(message, Stamp(0.0, 0.0))
            outbox.take()
            closing.append(time.thread_time() - begun)
            outbox.acked("b1", number + 1)
        outbox.close()
    row, share = (1e6 * statistics.median(times) / ROWS for times in (hot, closing))
    table = np.concatenate([x, model.interpreter.scores(stored)], axis=1)
    whylogs = peer(["whylogs", "numpy", "pandas"], WHYLOGS, table)
    result = {
        "name": "monitoring-cost",
        "value": round(row + share, 2),
        "unit": "us a row",
        "better": "lower",
        "against": f"at most 8; whylogs' track(row) {whylogs}",
        "detail": f"median of {WINDOWS} windows of {ROWS} rows, 64 features and 10 classes: "
        f"{row:.2f} on the way (schema check, keeping the row), {share:.2f} for its share of the "
        "window's sketches, packing and a durable commit (CPU time of another thread)",
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
