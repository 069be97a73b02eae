"""Whether an Edge TPU is here and works, found out in a process of its own.

The delegate's library is old and is known to crash with newer runtimes: what it breaks there it
can't break here. `python -m device_agent.accelerator` is the child.
"""

import subprocess
import sys
from functools import cache

LIBRARY = "libedgetpu.so.1"
TIMEOUT = 30.0


@cache
def why_no_edge_tpu() -> str:
    """Why its delegate can't be loaded, in words; nothing if it can. Tried once in a process."""
    command = [sys.executable, "-P", "-m", "device_agent.accelerator"]
    try:
        done = subprocess.run(command, capture_output=True, timeout=TIMEOUT, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"its probe did not end: {type(error).__name__}"
    if done.returncode < 0:
        return f"{LIBRARY} crashed its probe by signal {-done.returncode}"
    said = done.stdout.decode(errors="replace").strip()
    return "" if done.returncode == 0 else (said or f"its probe ended with {done.returncode}")


def main() -> int:
    """The child: load the delegate, which opens the device."""
    from ai_edge_litert.interpreter import load_delegate

    try:
        load_delegate(LIBRARY)
    except (OSError, ValueError) as error:
        print(str(error).splitlines()[0][:200] or f"{LIBRARY} finds no device")  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
