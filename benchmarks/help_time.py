"""How long `edge --help` takes, over an interpreter that only imports click (limit 1.5)."""

import json
import statistics
import subprocess
import sys
import time

RUNS = 25
EDGE = [sys.executable, "-m", "edge_sdk.cli", "--help"]
CLICK = [sys.executable, "-c", "import click"]


def seconds(command: list[str]) -> float:
    """Wall time of one whole process."""
    begun = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begun


def main() -> None:
    """Both in turn, so that a noisy machine hits both alike; the median ratio counts."""
    pairs = [(seconds(EDGE), seconds(CLICK)) for _ in range(RUNS)]
    edge, click = (statistics.median(column) for column in zip(*pairs, strict=True))
    result = {
        "name": "help-time",
        "value": round(statistics.median(a / b for a, b in pairs), 3),
        "unit": "x",
        "better": "lower",
        "against": "python -c 'import click' (at most 1.5)",
        "detail": f"median of {RUNS} pairs: {1000 * edge:.0f} ms over {1000 * click:.0f} ms",
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
