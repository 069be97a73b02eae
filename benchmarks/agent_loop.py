"""The agent's loop against a bare set_tensor / invoke / get_tensor loop on the same model.

The agent's side is everything that `edge agent run` does with a row: schema check, preprocessing,
quantising, the window, its sketches and the outbox's commit. Both sides run in turn in one process,
and are compared by processor time, of all threads, so that a neighbour's load hits neither: on one
core that is the throughput.
"""

import json
import os
import queue
import statistics
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from benchmarks._watched import dense, watched
from device_agent.inference import Closed, Inference
from device_agent.outbox import Outbox, Stamp
from device_agent.runtime import Model
from device_agent.sources import Taken
from edge_sdk.channels import Array, Preprocessing
from edge_sdk.packing import packed

SECONDS, WINDOW, PAIRS = 10.0, 10.0, 3


class Plenty:
    """A source that always has rows: what is measured is the loop, not the wait."""

    def __init__(self, x: Array) -> None:
        self._x, self._at, self.given = x, 0, 0

    def take(self, limit: int) -> Taken:
        """The next rows of the recording."""
        if self._at + limit > len(self._x):
            self._at = 0
        rows = self._x[self._at : self._at + limit]
        self._at += limit
        self.given += limit
        return Taken(rows)

    def wait(self, _seconds: float) -> None:
        """Never asked."""

    def restart(self) -> None:
        """Nothing was due."""


def agent_rate(model: Model, x: Array, seconds: float) -> float:
    """Rows a second of processor time; another thread sums the windows up and keeps them."""
    windows: queue.SimpleQueue[Closed | None] = queue.SimpleQueue()
    source, stop = Plenty(x), threading.Event()
    with tempfile.TemporaryDirectory() as folder:

        def keep() -> None:
            outbox = Outbox(Path(folder) / "outbox.sqlite", "b1", 1 << 24)
            while (closed := windows.get()) is not None:
                window = packed(closed.filled.window(), model.baseline)
                outbox.put(window, Stamp(time.time(), 1.0))
                outbox.take()
            outbox.close()

        keeper = threading.Thread(target=keep)
        keeper.start()
        inference = Inference(source, WINDOW, time.monotonic, windows.put)
        inference.switch(model)
        until = time.monotonic() + WINDOW  # the first window of a process learns the rate
        while time.monotonic() < until:
            inference.turn()
        begun, given = time.process_time(), source.given
        threading.Timer(seconds, stop.set).start()
        inference.run(stop)
        windows.put(None)
        keeper.join()
        return (source.given - given) / (time.process_time() - begun)


def bare_rate(model: Model, x: Array, seconds: float) -> float:
    """The same with nothing but the three calls, on rows that are prepared already."""
    bare = model.interpreter
    rows = list(bare.prepare(x))
    interpreter, inward, outward = bare._interpreter, bare._in, bare._out
    set_tensor, invoke, get_tensor = (
        interpreter.set_tensor,
        interpreter.invoke,
        interpreter.get_tensor,
    )
    count, begun, until = 0, time.process_time(), time.perf_counter() + seconds
    while time.perf_counter() < until:
        for row in rows:
            set_tensor(inward, row)
            invoke()
            get_tensor(outward)
        count += len(rows)
    return count / (time.process_time() - begun)


def compare(model: Model, x: Array) -> tuple[float, float]:
    """Median ratio of rows a second, agent over bare, and the bare loop's microseconds a row."""
    ratios, bare = [], []
    for _ in range(PAIRS):
        one = bare_rate(model, x, SECONDS / 2)
        mine = agent_rate(model, x, SECONDS)
        other = bare_rate(model, x, SECONDS / 2)
        bare.append(2e6 / (one + other))
        ratios.append(2 * mine / (one + other))
    return statistics.median(ratios), statistics.median(bare)


def resnet() -> tuple[Model, Array, str]:
    """ResNet-8 int8 on CIFAR-10, or a dense model of about its cost where the data is absent."""
    folder = os.environ.get("EDGE_BENCH_DATA")
    path = Path(folder or ".") / "pretrainedResnet_quant.tflite"
    if folder and path.exists():
        with np.load(Path(folder) / "cifar10_test5000.npz") as data:
            x = data["x"][:512].astype(np.uint8)
        return watched(path.read_bytes(), x, Preprocessing()), x, "ResNet-8 int8"
    x = np.random.default_rng(0).integers(0, 256, (512, 32 * 32 * 3)).astype(np.uint8)
    model = watched(dense(x.shape[1], 450, 10), x, Preprocessing(1 / 255))
    return model, x, "a dense model in place of ResNet-8, whose data is absent,"


def main() -> None:
    """Both models; the value is ResNet-8's ratio."""
    model, x, name = resnet()
    large, large_us = compare(model, x)
    small_x = np.random.default_rng(0).normal(0, 1, (512, 64)).astype(np.float32)
    small, small_us = compare(watched(dense(64, 700, 10), small_x, Preprocessing()), small_x)
    result = {
        "name": "agent-loop",
        "value": round(large, 3),
        "unit": "x",
        "better": "higher",
        "against": "a bare set_tensor/invoke/get_tensor loop (at least 0.97; 0.5 for the small)",
        "detail": f"median of {PAIRS} pairs: {name} ({large_us:.0f} us bare) {large:.3f}, "
        f"64 columns and 10 classes ({small_us:.1f} us bare) {small:.3f}; every row watched, "
        f"windows of {WINDOW:.0f} s summed up and stored by another thread; after the first window",
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
