"""What others say of the same windows; runs in an environment of its own, see drift_detection.py.

Each method looks at one device: its first day of rows is the reference, then window after window.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from evidently import Report
from evidently.presets import DataDriftPreset
from river import drift
from scipy import stats

DAY = 24
MISSED = 99.0
Alarms = Callable[[np.ndarray], list[bool]]  # windows (n, rows, channels) -> alarm by window


def ks(reference: np.ndarray) -> Alarms:
    """Any column with a two-sample Kolmogorov-Smirnov p below 0.05."""
    columns = [c[np.isfinite(c)] for c in reference.T]

    def alarm(rows: np.ndarray) -> bool:
        seen = [c[np.isfinite(c)] for c in rows.T]
        return any(
            len(new) == 0 or stats.ks_2samp(old, new, method="asymp").pvalue < 0.05
            for old, new in zip(columns, seen, strict=True)
        )

    return lambda windows: [alarm(rows) for rows in windows]


def psi(reference: np.ndarray) -> Alarms:
    """Any column with a population stability index above 0.2, on ten quantile bins."""
    edges = [np.unique(np.nanquantile(c, np.linspace(0, 1, 11)))[1:-1] for c in reference.T]

    def shares(values: np.ndarray, cuts: np.ndarray) -> np.ndarray:
        counts = np.bincount(np.searchsorted(cuts, values, side="right"), minlength=len(cuts) + 1)
        return (counts + 0.5) / (counts.sum() + 0.5 * len(counts))

    old = [shares(c[np.isfinite(c)], e) for c, e in zip(reference.T, edges, strict=True)]

    def alarm(rows: np.ndarray) -> bool:
        for column, cuts, p in zip(rows.T, edges, old, strict=True):
            q = shares(column[np.isfinite(column)], cuts)
            if ((q - p) * np.log(q / p)).sum() > 0.2:
                return True
        return False

    return lambda windows: [alarm(rows) for rows in windows]


def evidently(reference: np.ndarray) -> Alarms:
    """Evidently's preset: half of the columns drifted, each by the test it chooses."""
    names = [f"c{i}" for i in range(reference.shape[1])]
    old = pd.DataFrame(reference[:3000], columns=names)

    def alarm(rows: np.ndarray) -> bool:
        made = Report([DataDriftPreset()]).run(pd.DataFrame(rows, columns=names), old)
        found = json.loads(made.json())["metrics"][0]
        return found["value"]["share"] >= 0.5

    return lambda windows: [alarm(rows) for rows in windows]


def detector(make: Callable[[], object]) -> Callable[[np.ndarray], Alarms]:
    """One of river's detectors for each column, fed row by row; its first day is the reference."""

    def method(reference: np.ndarray) -> Alarms:
        def run(windows: np.ndarray) -> list[bool]:
            alarms = []
            watching = [make() for _ in reference.T]
            for rows in [reference[-1800:], *windows]:
                found = False
                for one, column in zip(watching, rows.T, strict=True):
                    for value in column[np.isfinite(column)]:
                        one.update(float(value))
                        found = found or one.drift_detected
                alarms.append(found)
            return alarms[1:]

        return run

    return method


METHODS = {
    "any KS p < 0.05": ks,
    "any PSI > 0.2": psi,
    "Evidently preset": evidently,
    "river ADWIN": detector(drift.ADWIN),
    "river Page-Hinkley": detector(drift.PageHinkley),
}


def main() -> None:
    """One JSON line: by method what `drift_detection.Score` holds."""
    out: dict[str, dict] = {}
    for path in sorted(Path(sys.argv[1]).glob("*.npz")):
        with np.load(path) as file:
            data = {name: file[name] for name in file.files}
        clean = data.pop("clean")
        reference = clean[:DAY].reshape(-1, clean.shape[2])
        for name, method in METHODS.items():
            score = out.setdefault(
                name,
                {"clean": 0, "false": 0, "seconds": 0.0, "delays": {s: [] for s in range(1, 6)}},
            )
            begun = time.perf_counter()
            run = method(reference)
            alarms = run(clean[DAY : DAY + 12])
            score["seconds"] += time.perf_counter() - begun
            score["clean"] += len(alarms)
            score["false"] += sum(alarms)
            for key, windows in data.items():
                strength = int(key[0])
                if strength != 3:
                    continue  # the table is about strength 3; the rest only costs time
                found = run(windows[:4])
                delay = found.index(True) + 1 if any(found) else MISSED
                score["delays"][strength].append(delay)
        print(f"peers: {path.stem} done", file=sys.stderr, flush=True)
    print(json.dumps(out))


if __name__ == "__main__":
    main()
