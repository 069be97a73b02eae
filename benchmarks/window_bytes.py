"""What one telemetry window of 74 channels and 600 rows costs on the wire.

Ours is the whole MQTT payload: sketches, names, counters, digest, numbers and HMAC. The other side
is the bytes of 74 KLL sketches (datasketches, k = 200) and of whylogs' profile of the same rows,
where these install into an environment of the benchmark's own.
"""

import json
import statistics

import numpy as np

from benchmarks._peers import peer
from edge_sdk.channels import LATENCY, output_channels
from edge_sdk.formats import to_msgpack
from edge_sdk.messages import Sealed, Window, seal
from edge_sdk.packing import packed
from edge_sdk.sketch import Floats, make_baseline, sketch_all
from edge_sdk.subspace import NOVELTY

ROWS, FEATURES, CLASSES, WINDOWS = 600, 64, 10, 30
# 74 with 64 features, how novel they are together, class, confidence, margin, latency, and five of
# the board
HARDWARE = ("cpu", "temperature", "throttled", "rss", "disk")
KLL = """
import sys, json, numpy as np
from datasketches import kll_floats_sketch
x = np.load(sys.argv[1])
total = 0
for column in x.T:
    one = kll_floats_sketch(200)
    one.update(column.astype(np.float32))
    total += len(one.serialize())
print(json.dumps(total))
"""
WHYLOGS = """
import sys, json, numpy as np, pandas as pd
import whylogs as why
x = np.load(sys.argv[1])
frame = pd.DataFrame(x, columns=[f"c{i}" for i in range(x.shape[1])])
view = why.log(frame).profile().view()
print(json.dumps(len(view.serialize())))
"""


def rows(random: np.random.Generator, count: int) -> dict[str, Floats]:
    """Columns of features of different spread, a classifier's answers, and the rest."""
    columns = {f"input.x{i}": random.normal(i, 1 + i, count) for i in range(FEATURES)}
    columns |= output_channels(random.dirichlet(np.full(CLASSES, 0.3), count))
    columns["latency_ms"] = random.gamma(4.0, 0.1, count)
    columns |= {f"hardware.{name}": random.normal(50, 5, count) for name in HARDWARE}
    return columns | {NOVELTY: np.sqrt(random.chisquare(FEATURES, count) / FEATURES)}


def main() -> None:
    """The median window."""
    random = np.random.default_rng(0)
    baseline = make_baseline(rows(random, 5000), tuple("0123456789"))
    channels = {**baseline.channels, "latency_ms": LATENCY}
    wire, sketches, plain = [], [], []
    for number in range(WINDOWS):
        columns = rows(random, ROWS)
        window = Window(
            model="field",
            version="12",
            digest="ab" * 32,
            edges_id=baseline.edges_id,
            seconds=60.0,
            rows=ROWS,
            dropped=2,
            channels=sketch_all(channels, columns),
            rss_bytes=50_123_456,
        )
        small = packed(window, baseline)
        sealed = Sealed(
            device="pi-kitchen-7",
            boot="0123456789abcdef",
            seq=1000 + number,
            wall=1.7e9 + 0.5,
            uptime=60.5 * number,
            body=to_msgpack(small),
        )
        wire.append(len(seal(sealed, "telemetry", b"k" * 32)))
        sketches.append(len(small.packed))
        plain.append(len(to_msgpack(window)))
    table = np.stack(list(columns.values()), axis=1)
    kll, whylogs = peer(["datasketches"], KLL, table), peer(["whylogs", "pandas"], WHYLOGS, table)
    result = {
        "name": "window-bytes",
        "value": statistics.median(wire),
        "unit": "bytes",
        "better": "lower",
        "against": f"at most 1,024; 74 KLL sketches {kll}; a whylogs profile {whylogs}",
        "detail": f"median of {WINDOWS} windows of {ROWS} rows and {len(columns)} channels: the "
        f"whole payload, of which the sketches are {statistics.median(sketches):.0f} "
        f"(unpacked {statistics.median(plain):,.0f})",
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
