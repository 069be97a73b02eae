"""How far the accuracy estimated without labels is from the true one, under faults of a sensor.

CIFAR-10's test pictures through MLPerf Tiny's ResNet-8: the calibration comes from one half, the
faults (six kinds at five strengths; none changes what a picture shows) hit the other half. Beside
ours: the plain mean confidence, and "as accurate as on the held-out rows".
"""

import json
import os
import sys
from pathlib import Path

import numpy as np

from benchmarks.drift_detection import pictures
from edge_sdk.sketch import make_baseline, sketch
from fleet_server.decay.accuracy import CLASSES, CONFIDENCE, calibration, caveat, estimate

SKIPPED = 77
CLOSE = 0.03


def main() -> None:
    """One line a fault, then the share of believed estimates that are close."""
    folder = Path(os.environ.get("EDGE_BENCH_DATA", ""))
    if not (folder / "cifar10_test5000.npz").is_file():
        print("skipped: EDGE_BENCH_DATA must name a folder with cifar10_test5000.npz")
        sys.exit(SKIPPED)
    pool = pictures(folder)
    half = np.arange(len(pool.clean["right"])) % 2 == 0
    held = {n: v[half] for n, v in pool.clean.items() if n != "right"}
    baseline = make_baseline(held, tuple("0123456789"), pool.clean["right"][half])
    known = calibration(baseline)
    usual = float(pool.clean["right"][half].mean())
    believed: list[float] = []
    doubted: list[float] = []
    plain: list[float] = []
    unchanged: list[float] = []
    for (name, strength), columns in {("none", 0): pool.clean, **pool.faulty}.items():
        field = {n: v[~half] for n, v in columns.items()}
        truth = float(field.pop("right").mean())
        seen = {n: sketch(baseline.channels[n], v) for n, v in field.items()}
        found = estimate(known, seen[CONFIDENCE]) if known else None
        if found is None:
            raise RuntimeError("a baseline with right answers gives a calibration and estimates")
        note = caveat(baseline, found, seen[CLASSES])
        error = abs(found.accuracy - truth)
        (doubted if note else believed).append(error)
        plain.append(abs(seen[CONFIDENCE].mean - truth))
        unchanged.append(abs(usual - truth))
        print(
            f"{name} {strength}: true {truth:.3f}, estimated {found.accuracy:.3f} "
            f"[{found.low:.3f}, {found.high:.3f}] {note}",
            flush=True,
        )
    close = float(np.mean([e <= CLOSE for e in believed]))
    result = {
        "name": "estimated-accuracy",
        "value": round(100 * max(believed), 2),
        "unit": "points, worst error where the estimate is not doubted",
        "better": "lower",
        "against": f"mean confidence: worst {100 * max(plain):.0f}, "
        f"mean {100 * np.mean(plain):.1f} points; assuming no change: worst "
        f"{100 * max(unchanged):.0f}",
        "detail": f"{len(believed)} of {len(believed) + len(doubted)} cases not doubted, "
        f"{100 * close:.0f} % of them within 3 points, mean {100 * np.mean(believed):.1f}; doubted "
        f"ones: mean error {100 * np.mean(doubted):.0f}, worst {100 * max(doubted):.0f} points",
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
