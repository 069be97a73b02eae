"""How soon drift is found, and how often it is cried without any: ours beside those people use.

Worlds (all windows are 600 rows):

- a *quiet fleet*: 200 devices, 74 channels, 30 days of hourly windows that wander and have a rhythm
  of the day, without a fault. Every alert is false.
- *pictures*: MLPerf Tiny's test pictures of CIFAR-10 with six faults of a sensor at five strengths
  (EDGE_BENCH_DATA; skipped without it).
- *real streams*: scikit-learn's digits and breast cancer, river's bundled files, with faults of a
  sensor at five strengths.

In the last two, 12 devices at 3 sites draw their windows at random from their set; after a clean
day the fault hits one site. The delay is counted in windows of the devices there. The peers look at
one device's channels as their documentation shows, against its first day as the reference.
"""

import copy
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from benchmarks._drift_faults import PICTURE_FAULTS, SENSOR_FAULTS, Columns
from benchmarks._drift_fleet import HOUR, ROWS, START, Fleet
from edge_sdk.channels import InputSchema, input_channels
from edge_sdk.messages import Window
from edge_sdk.sketch import Baseline, make_baseline, sketch
from fleet_server.decay import Place, Taken, Watch, findings

UV = shutil.which("uv") or str(Path(__file__).parents[1] / ".tools" / "bin" / "uv")
STRENGTHS = (1, 2, 3, 4, 5)
DEVICES, SITES = 12, 3
DAY_WINDOWS, AFTER = 24, 12
MISSED = 99.0  # a delay that stands for never


class Pool(msgspec.Struct):
    """A set of rows, clean and under each fault and strength; all have the same row order."""

    name: str
    baseline: Baseline
    clean: Columns
    faulty: dict[tuple[str, int], Columns]


class Score(msgspec.Struct):
    """One method on all pools."""

    clean: int = 0
    false: int = 0
    delays: dict[int, list[float]] = msgspec.field(
        default_factory=lambda: {s: [] for s in STRENGTHS}
    )
    seconds: float = 0.0

    def words(self) -> str:
        """Share of clean windows with an alarm, delay and misses at strength 3, cost."""
        third = self.delays[3]
        found = [delay for delay in third if delay < MISSED]
        missed = len(third) - len(found)
        median = np.median(found) if found else MISSED
        return (
            f"false {self.false / max(self.clean, 1):.3f} of windows, strength 3 missed "
            f"{missed}/{len(third)}, median delay {median:.0f}, worst found {max(found):.0f}, "
            f"{1000 * self.seconds / max(self.clean, 1):.1f} ms a window"
        )


def pictures(folder: Path) -> Pool:
    """CIFAR-10's test pictures through ResNet-8, with inputs and answers as channels."""
    from ai_edge_litert.interpreter import Interpreter

    from edge_sdk.channels import output_channels

    test = np.load(folder / "cifar10_test5000.npz")
    x, y = test["x"].astype(np.float64), test["y"]
    schema = InputSchema(name="x", kind="image", shape=(32, 32, 3), low=0.0, high=255.0)
    model = Interpreter(str(folder / "pretrainedResnet.tflite"), num_threads=1)
    given, got = model.get_input_details()[0]["index"], model.get_output_details()[0]["index"]
    model.resize_tensor_input(given, (500, 32, 32, 3))
    model.allocate_tensors()

    def channels(rows: NDArray[np.float64]) -> Columns:
        seen = np.clip(np.round(rows), 0, 255)
        answers = []
        for start in range(0, len(seen), 500):
            model.set_tensor(given, seen[start : start + 500].astype(np.float32))
            model.invoke()
            answers.append(model.get_tensor(got).astype(np.float64))
        scores = np.concatenate(answers)
        right = {"right": (scores.argmax(axis=1) == y).astype(np.float64)}
        return {**input_channels(schema, seen), **output_channels(scores), **right}

    clean = channels(x)
    labels = tuple("0123456789")
    columns = {name: values for name, values in clean.items() if name != "right"}
    return Pool(
        "pictures",
        make_baseline(columns, labels, clean["right"]),
        clean,
        {
            (name, s): channels(fault(x, s))
            for name, fault in PICTURE_FAULTS.items()
            for s in STRENGTHS
        },
    )


def real_streams() -> Iterator[Pool]:
    """Sets that ship inside scikit-learn and river."""
    from river import datasets
    from sklearn.datasets import load_breast_cancer, load_digits

    found = {
        "digits": load_digits().data[:, load_digits().data.std(axis=0) > 1],
        "breast cancer": load_breast_cancer().data,
        "image segments": _rows(datasets.ImageSegments()),
        "bananas": _rows(datasets.Bananas()),
    }
    for name, data in found.items():
        clean = {f"input.x{i}": data[:, i].astype(np.float64) for i in range(data.shape[1])}
        faulty = {
            (fault, s): how(clean, s) for fault, how in SENSOR_FAULTS.items() for s in STRENGTHS
        }
        yield Pool(name, make_baseline(clean, ()), clean, faulty)


def _rows(dataset: object) -> NDArray[np.float64]:
    return np.array([list(x.values()) for x, _ in dataset], dtype=np.float64)  # type: ignore[attr-defined]


def draw(columns: Columns, rng: np.random.Generator) -> Columns:
    """A window's rows."""
    size = len(next(iter(columns.values())))
    chosen = rng.integers(0, size, ROWS)
    return {name: values[chosen] for name, values in columns.items() if name != "right"}


def window(columns: Columns, baseline: Baseline) -> Window:
    """The rows as a device sends them."""
    return Window(
        model="m", version="1", digest="d", edges_id="e", seconds=HOUR, rows=ROWS,
        channels={n: sketch(baseline.channels[n], values) for n, values in columns.items()},
    )  # fmt: skip


def ours(pool: Pool, score: Score) -> None:
    """The engine: a fleet of 12, the fault at one site of 4 devices and at one device alone."""
    rng = np.random.default_rng(11)
    watch = Watch()
    places = [Place(f"d{i}", f"s{i % SITES}") for i in range(DEVICES)]

    def hour(at: int, hit: set[int], faulty: Columns, into: Watch) -> bool:
        took = time.perf_counter()
        for i, place in enumerate(places):
            made = window(draw(faulty if i in hit else pool.clean, rng), pool.baseline)
            into.add(Taken(place.device, START + at * HOUR, made, pool.baseline))
        found = bool(findings(into.states(places)))
        score.seconds += time.perf_counter() - took
        score.clean += len(places)
        return found

    for at in range(2 * DAY_WINDOWS):
        score.false += hour(at, set(), pool.clean, watch)
    for (_, strength), columns in pool.faulty.items():
        for hit in ({1, 4, 7, 10}, {5}):
            after = copy.deepcopy(watch)
            delay = next(
                (k for k in range(1, AFTER + 1) if hour(2 * DAY_WINDOWS + k, hit, columns, after)),
                MISSED,
            )
            score.delays[strength].append(delay)


def quiet_fleet(devices: int, days: int) -> tuple[int, dict[str, int]]:
    """False alerts of ours in a fleet without a fault; those of naive rules on the same windows."""
    from scipy import stats

    fleet, watch = Fleet(devices, 10, 74, seed=2), Watch()
    first: dict[str, NDArray[np.float64]] = {}
    naive = {"any chi-squared p < 0.05": 0, "any PSI > 0.2": 0}
    alerts: set[str] = set()
    for hour in range(24 * days):
        for taken in fleet.next_hour():
            watch.add(taken)
            counts = np.array([c.counts for c in taken.window.channels.values()], dtype=float)
            if hour < DAY_WINDOWS:
                first[taken.device] = first.get(taken.device, 0.0) + counts
                continue
            reference = first[taken.device]
            expected = reference / reference.sum(axis=1, keepdims=True) * ROWS + 1e-9
            statistic = (np.square(counts - expected) / expected).sum(axis=1).max()
            naive["any chi-squared p < 0.05"] += (
                stats.chi2.sf(statistic, counts.shape[1] - 1) < 0.05
            )
            p, q = expected / ROWS + 1e-4, counts / ROWS + 1e-4
            naive["any PSI > 0.2"] += bool(((q - p) * np.log(q / p)).sum(axis=1).max() > 0.2)
        for found in findings(watch.states(fleet.places)):
            if f"{found.kind} {found.scope}" not in alerts:
                alerts.add(f"{found.kind} {found.scope}")
                print(f"false alert after {hour / 24:.1f} days: {found.title}", flush=True)
        if hour % 120 == 0:
            print(f"quiet fleet: day {hour // 24}, {len(alerts)} alerts", flush=True)
    return len(alerts), naive


def peers(pools: list[Pool]) -> dict[str, Score]:
    """Evidently, river's detectors, plain KS and PSI, in an environment made for them."""
    with tempfile.TemporaryDirectory() as folder:
        for i, pool in enumerate(pools):
            np.savez(Path(folder) / f"pool{i}.npz", **_windows(pool))
        command = [
            UV, "run", "--no-project", "--python", sys.executable, "--with", "evidently",
            "--with", "pandas<3", "--with", "river", "--with", "scipy", "python",
            str(Path(__file__).parent / "_drift_peers.py"), folder,
        ]  # fmt: skip
        alone = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
        alone |= {"NML_DISABLE_USAGE_LOGGING": "1", "DO_NOT_TRACK": "1"}
        done = subprocess.run(command, env=alone, stdout=subprocess.PIPE, text=True, check=True)
    return msgspec.json.decode(done.stdout.splitlines()[-1], type=dict[str, Score])


def _windows(pool: Pool) -> dict[str, NDArray[np.float64]]:
    """Two clean days of one device, then some windows of each fault: (windows, rows, channels)."""
    rng = np.random.default_rng(12)

    def drawn(columns: Columns, windows: int) -> NDArray[np.float64]:
        return np.stack(
            [np.stack(list(draw(columns, rng).values()), axis=1) for _ in range(windows)]
        )

    faulty = {f"{s} {fault}": drawn(columns, AFTER) for (fault, s), columns in pool.faulty.items()}
    return {"clean": drawn(pool.clean, 2 * DAY_WINDOWS), **faulty}


def main() -> None:
    """The table, and the worst delay at strength 3."""
    folder = Path(os.environ.get("EDGE_BENCH_DATA", ""))
    pools = list(real_streams())
    if (folder / "cifar10_test5000.npz").is_file():
        pools.append(pictures(folder))
    else:
        print("without pictures: EDGE_BENCH_DATA must name a folder with cifar10_test5000.npz")
    score = Score()
    for pool in pools:
        ours(pool, score)
        print(f"ours after {pool.name}: {score.words()}", flush=True)
    table = {"ours": score, **peers(pools)}
    for name, found in table.items():
        print(f"{name}: {found.words()}", flush=True)
    false, naive = quiet_fleet(200, 30)
    windows = 200 * 29 * 24
    crying = ", ".join(f"{name} {count / windows:.2f} of windows" for name, count in naive.items())
    worst = max(score.delays[3])
    beside = "; ".join(f"{n}: {s.words()}" for n, s in table.items() if n != "ours")
    result = {
        "name": "drift-detection",
        "value": worst,
        "unit": "windows, worst delay at strength 3",
        "better": "lower",
        "against": beside,
        "detail": f"ours: {score.words()}; 200 devices x 74 channels x 30 days that wander with a "
        f"rhythm of the day and no fault: {false} false alerts (naive on the same: {crying}); "
        f"{', '.join(p.name for p in pools)}",
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
