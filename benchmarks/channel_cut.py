"""Half of ResNet-8's channels cut: what that takes off its time and its memory, and off its score.

Both models are int8 of the same source, timed by turns in one process, so that a noisy minute hits
both; the arena is what TFLite Micro says it took. What is cut is trained again, ten epochs on
10,000 pictures: MLPerf's model learnt from 50,000, so that points are lost.
"""

import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks._resnet8 import Files, files, ours
from converters.gate import Measurement
from edge_sdk.bundle import unpack
from edge_sdk.channels import Preprocessing
from edge_sdk.interpreter import LiteRt
from edge_sdk.signing import SigningKey

WHOLE, CUT = "int8", "cut-int8:share=0.5,epochs=10"
BOARD = "cortex-m7"
ROUNDS, RUNS = 41, 40


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


def block(model: LiteRt, row: NDArray[np.generic]) -> float:
    """Milliseconds that one answer takes, over some."""
    started = time.perf_counter()
    for _ in range(RUNS):
        model.infer(row)
    return (time.perf_counter() - started) / RUNS * 1000


def compare(whole: bytes, cut: bytes, rows: NDArray[np.generic]) -> tuple[float, float, float]:
    """Median ratio of the two times, whole over cut, and the median of each in ms."""
    models = [LiteRt(model, Preprocessing()) for model in (whole, cut)]
    given = [model.prepare(rows[:1])[0] for model in models]
    pairs = [
        [block(*both) for both in zip(models, given, strict=True)]
        for _ in range(ROUNDS + 1)  # the first warms up
    ][1:]
    ratio = statistics.median(slow / quick for slow, quick in pairs)
    slow, quick = (statistics.median(times) for times in zip(*pairs, strict=True))
    return ratio, slow, quick


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
    ratio, slow, quick = compare(whole, cut, np.load(given.test)["x"])
    drops = [one.metrics.drop * 100 for one in (before, after)]
    result = {
        "name": "channel-cut",
        "value": round(ratio, 2),
        "unit": "x faster",
        "better": "higher",
        "against": f"the same model's int8 with all its channels: {slow:.3f} ms, arena "
        f"{arena(before):,} bytes, model {before.model_bytes:,} bytes, drop {drops[0]:+.2f} points",
        "detail": f"{CUT}: {quick:.3f} ms, arena {arena(after):,} bytes "
        f"(x {arena(before) / arena(after):.2f} less), model {after.model_bytes:,} bytes, drop "
        f"{drops[1]:+.2f} points; median of {ROUNDS} pairs of {RUNS} answers, LiteRT, one thread; "
        f"arena of TFLite Micro for {BOARD}",
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
