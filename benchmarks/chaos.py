"""Twenty agents and their server, killed and hung at random for ten minutes (CHAOS_SECONDS).

The value is how many windows are missing or doubled in the server when it is over; `tests/chaos.py`
says how that is counted.
"""

import json
import os
import tempfile
from pathlib import Path

from tests.chaos import chaos


def main() -> None:
    """One run."""
    seconds = float(os.environ.get("CHAOS_SECONDS", "600"))
    with tempfile.TemporaryDirectory() as folder:
        found = chaos(Path(folder), devices=20, seconds=seconds)
    result = {
        "name": "chaos",
        "value": found.gaps + found.doubled + found.waiting + found.silent,
        "unit": "lost or doubled",
        "better": "lower",
        "against": "0",
        "detail": f"20 agents for {seconds:.0f} s: the server killed {found.server_kills} times, "
        f"agents {found.agent_kills} times; {found.windows:,} windows of {found.boots} boots, "
        f"{found.gaps} gaps, {found.doubled} doubled, {found.waiting} boots unconfirmed at the end",
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
