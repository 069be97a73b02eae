"""ResNet-8 with retraining: the bytes of a whole signed bundle at a drop of 0.5 points or less.

The peers do not train: what they make is counted without the bundle's other members, deflated.
"""

import json
import tempfile
from pathlib import Path

from benchmarks._resnet8 import files, ours, peers

RECIPE = "cut-pcqat:share=0.125,sparsity=0.6,clusters=16"


def main() -> None:
    """Ours first, then the peers in the same run."""
    given = files()
    with tempfile.TemporaryDirectory() as folder:
        found = ours(given, (RECIPE,), Path(folder))
    [candidate], [board] = found.candidates, found.profiles
    if board.bundle_bytes is None or candidate.measurement is None:
        raise SystemExit(f"no bundle: {'; '.join(board.verdicts[0].reasons)}")
    metrics = candidate.measurement.metrics
    result = {
        "name": "resnet8-trained",
        "value": board.bundle_bytes,
        "unit": "bytes of bundle",
        "better": "lower",
        "against": "; ".join(str(peer) for peer in peers(given)),
        "detail": f"{RECIPE} on 10,000 pictures, {candidate.seconds:.0f} s: "
        f"{metrics.accuracy:.4f} on 5,000 others (float {metrics.float_accuracy:.4f}, drop "
        f"{metrics.drop * 100:+.2f} points [{metrics.drop_low * 100:+.2f}, "
        f"{metrics.drop_high * 100:+.2f}]); model {candidate.measurement.model_bytes:,} bytes, "
        f"{candidate.measurement.compressed_bytes:,} deflated",
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
