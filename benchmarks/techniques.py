"""Every technique on five kinds of model: how many convert, run in LiteRT and are in the table.

An image CNN, a keyword spotter of depthwise convolutions, a regression on a table, an anomaly
detector that reconstructs its input, a series. What a technique is not for (principal components
of pictures) is told by a sentence and is not counted. The drop shows what each costs; no technique
is tuned to a kind.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks._kinds import TASKS
from converters.order import Order
from converters.pipeline import convert
from converters.recipe import RECIPES
from converters.result import Conversion
from edge_sdk.signing import SigningKey

NOT_FOR = ("inputs are reduced for vectors", "a model that reconstructs its input needs all of it")


def converted(kind: str, folder: Path) -> Conversion:
    """One kind with every recipe."""
    order = Order(
        model=folder / f"{kind}.h5",
        profiles=("raspberry-pi-4", "cortex-m7"),
        data=folder / f"{kind}.npz",
        train_share=0.5,
        task=TASKS[kind],
        out=folder / "out",
        max_drop=0.03,
        recipes=tuple(RECIPES),
    )
    return convert(order, SigningKey.generate())


def main() -> None:
    """All kinds, one after the other."""
    made, failed, said, drops = 0, [], [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        command = [sys.executable, "-m", "benchmarks._kinds", str(folder)]
        subprocess.run(command, check=True, capture_output=True)
        for kind in TASKS:
            found = converted(kind, folder)
            for one in found.candidates:
                if one.measurement is not None:
                    made += 1
                    drops.append((one.measurement.metrics.drop, kind, one.recipe))
                    figures = f"{one.measurement.compressed_bytes:,} bytes deflated, drop "
                    print(f"{kind} {one.recipe}: {figures}{drops[-1][0] * 100:+.2f}", flush=True)
                elif not any(words in one.failed for words in NOT_FOR):
                    failed.append(f"{kind} {one.recipe}: {one.failed}")
                    print(failed[-1], flush=True)
            boards = (f"{r.profile} {r.chosen or 'nothing'}" for r in found.profiles)
            said.append(f"{kind}: {', '.join(boards)}")
    within = sum(drop <= 0.03 for drop, _, _ in drops)
    result = {
        "name": "techniques",
        "value": made,
        "unit": f"of {made + len(failed)} converted and ran",
        "better": "higher",
        "against": f"{len(RECIPES)} recipes on {len(TASKS)} kinds of model",
        "detail": f"{within} of them lose 3 points or less; chosen at 3 points: {'; '.join(said)}"
        + (f"; failed: {'; '.join(failed)}" if failed else ""),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
