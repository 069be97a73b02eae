"""`make bench [ONLY=name]`: run the benchmarks, keep their results, render README.md.

A benchmark is a module here whose `main()` prints its result as one JSON object, last;
it runs in a process of its own. One that needs data outside the repository finds it in the folder
that EDGE_BENCH_DATA names, and says so and exits with 77 if it is not there.
"""

import datetime as dt
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
RESULTS = HERE / "results"
SKIPPED = 77
KEYS = {"name", "value", "unit", "better", "against", "detail"}


def names() -> list[str]:
    """Every benchmark, by the name of its module with dashes."""
    modules = sorted(p.stem for p in HERE.glob("*.py") if not p.stem.startswith("_"))
    return [m.replace("_", "-") for m in modules]


def run(name: str) -> dict[str, object] | None:
    """One benchmark's result; None if it was skipped. Raises SystemExit if it failed."""
    module = f"benchmarks.{name.replace('-', '_')}"
    print(f"--- {name}", flush=True)
    with subprocess.Popen(
        [sys.executable, "-m", module], stdout=subprocess.PIPE, text=True, cwd=HERE.parent
    ) as process:
        lines = []
        for line in process.stdout or ():
            print(line, end="", flush=True)
            lines.append(line)
    if process.returncode == SKIPPED:
        return None
    if process.returncode or not lines:
        raise SystemExit(f"benchmark {name} failed with exit code {process.returncode}")
    result: dict[str, object] = json.loads(lines[-1])
    if set(result) != KEYS or result["name"] != name or result["better"] not in ("lower", "higher"):
        raise SystemExit(f"benchmark {name} printed {sorted(result)} as its last line, not {KEYS}")
    return result


def machine() -> str:
    """What the numbers were taken on, without anything that names the machine."""
    model = "unknown CPU"
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    return (
        f"{model}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}, "
        f"Python {platform.python_version()}"
    )


def figure(value: float) -> str:
    """Counts whole, ratios to four digits."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def render() -> None:
    """Write README.md from the stored results."""
    rows = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))]
    lines = [
        "# Benchmarks",
        "",
        "Written by `make bench`; each row is one run of both sides on one machine. Machines are",
        "shared and noisy: a figure is worth its comparison in the same row, not its third digit.",
        "",
        "| benchmark | value | better | against | detail | machine, day |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r['name']} | {figure(r['value'])} {r['unit']} | {r['better']} | {r['against']} "
        f"| {r['detail']} | {r['machine']}, {r['day']} |"
        for r in rows
    ]
    (HERE / "README.md").write_text("\n".join(lines) + "\n")


def main() -> None:
    """Run all, or the one named."""
    wanted = sys.argv[1:] or names()
    unknown = [name for name in wanted if name not in names()]
    if unknown:
        raise SystemExit(f"no benchmark {', '.join(unknown)}; there are {', '.join(names())}")
    RESULTS.mkdir(exist_ok=True)
    for name in wanted:
        result = run(name)
        if result is not None:
            stamp = {"machine": machine(), "day": dt.datetime.now(dt.UTC).date().isoformat()}
            text = json.dumps({**result, **stamp}, indent=2) + "\n"
            (RESULTS / f"{name}.json").write_text(text)
    render()


if __name__ == "__main__":
    main()
