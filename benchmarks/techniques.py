"""Every technique on five kinds of model: how many convert, run in LiteRT and are in the table.

An image CNN, a keyword spotter of depthwise convolutions, a regression on a table, an anomaly
detector that reconstructs its input, a series. What a technique is not for (principal components
of pictures) is told by a sentence and is not counted. The drop shows what each costs; no technique
is tuned to a kind. A kind takes minutes, so that what is done is kept in `out/`: a run that was
interrupted goes on, one that came to its end starts anew. The whole table is
`results/techniques.md`.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks._kinds import TASKS
from converters.order import Order
from converters.pipeline import convert
from converters.recipe import RECIPES
from converters.result import Candidate, Conversion
from edge_sdk.formats import from_json, to_json
from edge_sdk.signing import SigningKey

HERE = Path(__file__).parent
KEPT = HERE / "out" / "techniques"
BOARDS = ("raspberry-pi-4", "cortex-m7")
NOT_FOR = ("inputs are reduced for vectors", "a model that reconstructs its input needs all of it")
ALLOWED = 0.03


def converted(kind: str, folder: Path) -> Conversion:
    """One kind with every recipe."""
    order = Order(
        model=folder / f"{kind}.h5",
        profiles=BOARDS,
        data=folder / f"{kind}.npz",
        train_share=0.5,
        task=TASKS[kind],
        out=folder / "out",
        max_drop=ALLOWED,
        recipes=tuple(RECIPES),
    )
    return convert(order, SigningKey.generate)


def found(kind: str) -> Conversion:
    """The same, from an interrupted run if that had it."""
    kept = KEPT / f"{kind}.json"
    if kept.exists():
        return from_json(Conversion, kept.read_bytes(), str(kept))
    with tempfile.TemporaryDirectory() as name:
        command = [sys.executable, "-m", "benchmarks._kinds", name, kind]
        subprocess.run(command, check=True, capture_output=True)
        made = converted(kind, Path(name))
    KEPT.mkdir(parents=True, exist_ok=True)
    kept.write_bytes(to_json(made))
    return made


def cell(one: Candidate) -> str:
    """A candidate in a few words."""
    if one.measurement is None:
        return "not for it" if _not_for(one) else f"**failed**: {one.failed}"
    drop = one.measurement.metrics.drop * 100
    return f"{one.measurement.compressed_bytes:,} B, {drop:+.2f}"


def _not_for(one: Candidate) -> bool:
    return any(words in one.failed for words in NOT_FOR)


def table(kinds: dict[str, Conversion]) -> str:
    """A row a recipe, a column a kind."""
    metrics = {
        kind: next(c.measurement.metrics for c in one.candidates if c.measurement)
        for kind, one in kinds.items()
    }
    heads = [
        f"{kind} (float {metrics[kind].float_accuracy:.3f} {metrics[kind].quality})"
        for kind in kinds
    ]
    lines = [
        "# Every technique on a model of each kind",
        "",
        "Bytes of the .tflite when deflated, and points that it loses against the float model on",
        "rows held out. Each ran in LiteRT. Settings are the recipes' own, tuned to no kind; the",
        "models are tiny, so that what prunes costs more here than on larger ones.",
        "",
        f"| recipe | {' | '.join(heads)} |",
        "|---" * (len(heads) + 1) + "|",
    ]
    for i, recipe in enumerate(RECIPES):
        lines.append(f"| {recipe} | {' | '.join(cell(k.candidates[i]) for k in kinds.values())} |")
    for board, name in enumerate(BOARDS):
        chosen = [str(one.profiles[board].chosen) for one in kinds.values()]
        lines.append(f"| *chosen for {name}* | {' | '.join(chosen)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """All kinds, one after the other."""
    kinds = {}
    for kind in TASKS:
        kinds[kind] = found(kind)
        for one in kinds[kind].candidates:
            print(f"{kind} {one.recipe}: {cell(one)}", flush=True)
    (HERE / "results" / "techniques.md").write_text(table(kinds))
    tried = [(k, c) for k, one in kinds.items() for c in one.candidates if not _not_for(c)]
    failed = [f"{kind} {one.recipe}: {one.failed}" for kind, one in tried if one.failed]
    drops = [c.measurement.metrics.drop for _, c in tried if c.measurement is not None]
    within = sum(drop <= ALLOWED for drop in drops)
    result = {
        "name": "techniques",
        "value": len(drops),
        "unit": f"of {len(tried)} converted and ran",
        "better": "higher",
        "against": f"{len(RECIPES)} recipes on {len(TASKS)} kinds of model",
        "detail": f"{within} of them lose {ALLOWED * 100:.0f} points or less; the whole table: "
        "results/techniques.md" + (f"; failed: {'; '.join(failed)}" if failed else ""),
    }
    shutil.rmtree(KEPT)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
