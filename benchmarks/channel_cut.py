"""A quarter of ResNet-8's channels cut: what that takes off its time, its memory, and its score.

Both models are int8 of the same source, timed by turns in one process by its processor time, on
three kinds of kernels: TFLite Micro's, the board's own (whose arena is told too), and LiteRT's two.
XNNPACK works in tiles that a narrow layer does not fill: it may gain nothing. What is cut is
trained again, on 10,000 pictures; MLPerf's model learnt from 50,000, so points are lost.
"""

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tflite_micro import runtime

from benchmarks._resnet8 import Files, files, ours
from converters.gate import Measurement
from edge_sdk.bundle import unpack
from edge_sdk.channels import Preprocessing
from edge_sdk.interpreter import LiteRt
from edge_sdk.signing import SigningKey

WHOLE, CUT = "int8", "cut-int8:share=0.25,epochs=10"
BOARD = "cortex-m7"
MICRO = "TFLite Micro"
ARENA = 16 * 1024 * 1024
ROUNDS, RUNS = 15, 20


def made(given: Files, recipe: str) -> tuple[bytes, Measurement]:
    """The .tflite of a recipe, whatever it loses, and what was measured of it."""
    key = SigningKey.generate()
    with tempfile.TemporaryDirectory() as name:
        found = ours(given, (recipe,), Path(name), board=BOARD, max_drop=1.0, key=key)
        [one] = found.candidates
        bundle = found.profiles[0].bundle
        if one.measurement is None or bundle is None:
            raise SystemExit(f"{recipe}: {one.failed or found.profiles[0].verdicts}")
        model = unpack(Path(name, bundle).read_bytes(), [key.public]).model
    return model, one.measurement


def kernels(model: bytes, row: NDArray[np.generic]) -> dict[str, Callable[[], object]]:
    """One answer to the same row, by each kind of kernels."""
    found: dict[str, Callable[[], object]] = {}
    for family in ("xnnpack", "builtin"):
        lite = LiteRt(model, Preprocessing(), family=family)
        found[f"LiteRT {family}"] = partial(lite.infer, lite.prepare(row)[0])
    micro = runtime.Interpreter.from_bytes(model, arena_size=ARENA)
    micro.set_input(LiteRt(model, Preprocessing()).prepare(row)[0], 0)
    return {MICRO: micro.invoke, **found}


def block(answer: Callable[[], object]) -> float:
    """Milliseconds of processor time that one answer takes, over some."""
    started = time.process_time()
    for _ in range(RUNS):
        answer()
    return (time.process_time() - started) / RUNS * 1000


def compare(whole: bytes, cut: bytes, row: NDArray[np.generic]) -> dict[str, tuple[float, ...]]:
    """For each kind of kernels the median ratio of the times, and the median of each in ms."""
    found = {}
    both = (kernels(whole, row), kernels(cut, row))
    for kind in both[0]:
        pairs = [
            [block(answers[kind]) for answers in both]
            for _ in range(ROUNDS + 1)  # the first warms up
        ][1:]
        ratio = statistics.median(slow / quick for slow, quick in pairs)
        found[kind] = (ratio, *(statistics.median(times) for times in zip(*pairs, strict=True)))
    return found


def arena(one: Measurement) -> int:
    """Bytes that TFLite Micro took."""
    found = one.elsewhere["tflite-micro"]
    if found.arena_bytes is None:
        raise SystemExit(f"tflite-micro: {found.problem or found.unchecked}")
    return found.arena_bytes


def main() -> None:
    """Convert both, then time both."""
    given = files()
    whole, before = made(given, WHOLE)
    cut, after = made(given, CUT)
    found = compare(whole, cut, np.load(given.test)["x"][:1])
    times = "; ".join(
        f"{kind} {slow:.3f} to {quick:.3f} ms, x {ratio:.2f}"
        for kind, (ratio, slow, quick) in found.items()
    )
    drops = [one.metrics.drop * 100 for one in (before, after)]
    result = {
        "name": "channel-cut",
        "value": round(found[MICRO][0], 2),
        "unit": f"x faster in {MICRO}",
        "better": "higher",
        "against": f"the same model's int8 with all its channels: arena {arena(before):,} bytes, "
        f"model {before.model_bytes:,} bytes, drop {drops[0]:+.2f} points",
        "detail": f"{CUT}: {times}; arena {arena(after):,} bytes "
        f"(x {arena(before) / arena(after):.2f} less), model {after.model_bytes:,} bytes, drop "
        f"{drops[1]:+.2f} points; processor time, median of {ROUNDS} pairs of {RUNS} answers",
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
