"""How far the accuracy estimated without labels is from the true one, under faults of a sensor.

CIFAR-10's test pictures through MLPerf Tiny's ResNet-8: calibration and disturbances are of one
half of them (as `edge convert` makes them), the faults (six kinds at five strengths; none changes
what a picture shows) hit the other half. "Withheld": the disturbances that resemble the fault were
left out of what was learnt from. Beside ours: CBPE from calibrated confidences alone, plain mean
confidence, and "as accurate as on the held-out rows".
"""

import json
import os
import sys
import time
from pathlib import Path

import msgspec
import numpy as np

from benchmarks.drift_detection import pictures
from converters.disturb import disturbed
from edge_sdk.calibration import Disturbed
from edge_sdk.channels import InputSchema, Preprocessing
from edge_sdk.interpreter import LiteRt
from edge_sdk.sketch import make_baseline, sketch
from fleet_server.decay.accuracy import NORMAL, Estimator, Seen, fit, seen_of

SKIPPED = 77
CLOSE = 0.03
ALIKE = {
    "none": (),
    "blur": ("smeared", "coarse"),
    "noise": ("noise", "speckle"),
    "brightness": ("lower", "bent", "weaker"),
    "stuck pixels": ("specks", "outliers"),
    "crop": ("nearer",),
    "colour shift": ("tinted", "greyer"),
}


class Method(msgspec.Struct):
    """How one way of estimating did, fault by fault."""

    errors: list[float] = []
    doubted: list[bool] = []
    covered: list[bool] = []

    def words(self) -> str:
        """Errors in points of accuracy, where it is believed."""
        believed = [e for e, no in zip(self.errors, self.doubted, strict=True) if not no]
        others = [e for e, no in zip(self.errors, self.doubted, strict=True) if no]
        return (
            f"{_words(self.errors)}; not doubted {_words(believed)}; doubted {_words(others)}; the "
            f"95 % interval holds the truth in {sum(self.covered)} of {len(self.covered)}"
        )

    @property
    def close(self) -> float:
        """Share of the cases within 3 points."""
        return float(np.mean([error <= CLOSE for error in self.errors]))


def _words(errors: list[float]) -> str:
    if not errors:
        return "none"
    close = sum(error <= CLOSE for error in errors)
    return (
        f"{close} of {len(errors)} within 3 points (mean {100 * np.mean(errors):.1f}, worst "
        f"{100 * max(errors):.1f})"
    )


def main() -> None:
    """One line a fault, then each method's errors."""
    folder = Path(os.environ.get("EDGE_BENCH_DATA", ""))
    if not (folder / "cifar10_test5000.npz").is_file():
        print("skipped: EDGE_BENCH_DATA must name a folder with cifar10_test5000.npz")
        sys.exit(SKIPPED)
    pool = pictures(folder)
    half = np.arange(len(pool.clean["right"])) % 2 == 0
    held = {n: v[half] for n, v in pool.clean.items() if n != "right"}
    plain = make_baseline(held, tuple("0123456789"), pool.clean["right"][half])
    test, schema = np.load(folder / "cifar10_test5000.npz"), _schema()
    model = LiteRt((folder / "pretrainedResnet.tflite").read_bytes(), Preprocessing())
    rows = test["x"][half], test["y"][half]
    begun = time.perf_counter()
    known = disturbed(plain, schema, "probabilities", rows, model.run_rows)
    cost = f"{len(known) - 1} sets of {known[1].rows} pictures tried at conversion in "
    cost += f"{time.perf_counter() - begun:.0f} s"
    print(cost, flush=True)
    ours, withheld, cbpe, unchanged, mean = (Method() for _ in range(5))
    usual = float(pool.clean["right"][half].mean())
    without = {
        fault: Estimator(
            msgspec.structs.replace(
                plain, disturbed=tuple(one for one in known if one.kind not in alike)
            )
        )
        for fault, alike in ALIKE.items()
    }
    everything = Estimator(msgspec.structs.replace(plain, disturbed=known))
    alone = Estimator(plain)
    for (name, strength), columns in {("none", 0): pool.clean, **pool.faulty}.items():
        field = {n: v[~half] for n, v in columns.items()}
        truth = float(field.pop("right").mean())
        sketches = {n: sketch(plain.channels[n], v) for n, v in field.items()}
        seen = seen_of(sketches)
        if seen is None:
            raise RuntimeError("answers of classes have confidences")
        told = f"{name} {strength}: true {truth:.3f}"
        for method, by in ((ours, everything), (withheld, without[name]), (cbpe, alone)):
            told += _estimate(method, by, seen, truth)
        for method, value in ((unchanged, usual), (mean, sketches["output.confidence"].mean)):
            method.errors.append(abs(value - truth))
        print(told, flush=True)
    result = {
        "name": "estimated-accuracy",
        "value": round(ours.close, 3),
        "unit": f"of {len(ours.errors)} cases within 3 points of the true accuracy",
        "better": "higher",
        "against": f"CBPE alone: {cbpe.words()}; mean confidence: mean "
        f"{100 * np.mean(mean.errors):.1f}; assuming no change: mean "
        f"{100 * np.mean(unchanged.errors):.1f} points",
        "detail": f"{ours.words()}; like disturbances withheld: {withheld.words()}; "
        f"{_left_out(known)}; {cost}",
    }
    print(json.dumps(result))


def _left_out(known: tuple[Disturbed, ...]) -> str:
    """How well each kind of disturbance is foretold from the others, none of the faults seen."""
    errors, covered = [], []
    for kind in sorted({one.kind for one in known} - {""}):
        process = fit(tuple(one for one in known if one.kind != kind))
        for one in (one for one in known if one.kind == kind):
            [found], [spread] = process(np.array([one.looks]))
            truth = one.right / one.rows
            errors.append(abs(float(found) - truth))
            half = NORMAL * np.hypot(spread, np.sqrt(found * (1 - found) / one.rows))
            covered.append(bool(errors[-1] <= half))
    return (
        f"kinds of disturbance left out in turn: mean {100 * np.mean(errors):.1f} points off, the "
        f"95 % interval holds {sum(covered)} of {len(covered)}"
    )


def _schema() -> InputSchema:
    return InputSchema(name="x", kind="image", shape=(32, 32, 3), low=0.0, high=255.0)


def _estimate(method: Method, by: Estimator, seen: Seen, truth: float) -> str:
    found = by(seen)
    if found is None:
        raise RuntimeError("rows give an estimate")
    method.errors.append(abs(found.accuracy - truth))
    method.doubted.append(bool(found.note))
    method.covered.append(found.low <= truth <= found.high)
    doubt = " doubted" if found.note else ""
    return f"; {found.accuracy:.3f} [{found.low:.3f}, {found.high:.3f}]{doubt}"


if __name__ == "__main__":
    main()
