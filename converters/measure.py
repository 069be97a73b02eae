"""One converted model measured in LiteRT, in a fresh process without TensorFlow.

Started as `python -m converters.measure JOB`; writes a `Measured` on stdout and the scores beside
the model. A process of its own makes the memory figure mean something and survives a crash.
"""

import contextlib
import resource
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import numpy as np

from converters.accuracy import agreement
from converters.layers import LayerError
from edge_sdk.bundle import KernelFamily, Task, TensorSpec
from edge_sdk.channels import Array, Preprocessing
from edge_sdk.errors import NotConvertibleError
from edge_sdk.interpreter import LiteRt, Scores

_COMMAND = (sys.executable, "-P", "-m", "converters.measure")
_WARM_UP, _MIN_RUNS, _MAX_RUNS, _SECONDS = 30, 50, 500, 1.0
_WORST = 5  # layers named
_KERNEL_ROWS = 200  # built-in kernels can be 50 times slower than XNNPACK's


class Job(msgspec.Struct, frozen=True):
    """Files: the model, raw rows to run, where its answers go; which rows are golden.

    Attributes:
        reference: the float model's .tflite file to compare layers with; empty if there is none.
    """

    model: str
    rows: str
    answers: str
    golden: tuple[int, ...]
    preprocessing: Preprocessing
    reference: str = ""
    task: Task = "classification"


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """See `gate.Measurement` for the figures."""

    input: TensorSpec
    output: TensorSpec
    embedding: TensorSpec | None
    ms_p50: float
    ms_p90: float
    runs: int
    peak_bytes: int
    kernel_agreement: float
    kernel_difference: float
    finite: bool
    worst_layers: tuple[LayerError, ...]


class Answers(msgspec.Struct, frozen=True):
    """Scores (n, classes) of all rows by XNNPACK kernels, and of the golden rows by both."""

    scores: Scores
    golden: dict[KernelFamily, Scores]


def measure(job: Job) -> tuple[Measured, Answers]:
    """Run a model in a process of its own and measure it.

    Raises:
        NotConvertibleError: LiteRT does not run it, or dies of it.
    """
    done = subprocess.run(  # noqa: S603 - our own module
        _COMMAND, input=msgspec.json.encode(job), capture_output=True, check=False
    )
    if done.returncode:
        words = done.stderr.decode(errors="replace").strip().splitlines() or ["no word"]
        how = f"signal {-done.returncode}" if done.returncode < 0 else words[-1][:300]
        raise NotConvertibleError(f"running it in LiteRT failed: {how}")
    with np.load(job.answers) as found:
        answers = Answers(
            found["scores"], {"xnnpack": found["xnnpack"], "builtin": found["builtin"]}
        )
    return msgspec.json.decode(done.stdout, type=Measured), answers


def _run(job: Job) -> Measured:
    rows = np.load(job.rows, mmap_mode="r")
    first = np.array(rows[0])
    before = _fresh_peak()
    reconstructs = job.task == "anomaly"
    fast = LiteRt(Path(job.model), job.preprocessing, reconstructs=reconstructs)
    fast.run(first)
    peak = _peak() - before
    timings = _timings(fast, rows)
    scores = fast.run_rows(rows)
    plain = LiteRt(Path(job.model), job.preprocessing, family="builtin", reconstructs=reconstructs)
    some = np.linspace(0, len(rows) - 1, min(_KERNEL_ROWS, len(rows))).astype(np.intp)
    plain_scores = plain.run_rows(rows[some])
    golden = list(job.golden)
    np.savez(
        job.answers, scores=scores, xnnpack=scores[golden], builtin=plain.run_rows(rows[golden])
    )
    finite = bool(np.isfinite(scores).all() and np.isfinite(plain_scores).all())
    return Measured(
        input=fast.input,
        output=fast.output,
        embedding=fast.embedding,
        ms_p50=float(np.quantile(timings, 0.5)),
        ms_p90=float(np.quantile(timings, 0.9)),
        runs=len(timings),
        peak_bytes=max(peak, 0),
        kernel_agreement=agreement(scores[some], plain_scores, job.task) if finite else 0.0,
        kernel_difference=float(np.abs(plain_scores - scores[some]).max()) if finite else 0.0,
        finite=finite,
        worst_layers=_worst(job, rows),
    )


def _worst(job: Job, rows: Array) -> tuple[LayerError, ...]:
    if not job.reference:
        return ()
    from converters.layerwise import layer_errors  # with all of LiteRT, which callers do not need

    wanted, given = (Path(path).read_bytes() for path in (job.reference, job.model))
    try:
        errors = layer_errors(wanted, given, rows, job.preprocessing)
    except NotConvertibleError:  # other operators: layers can't be paired
        return ()
    return tuple(sorted(errors, key=lambda layer: -layer.error)[:_WORST])


def _timings(model: LiteRt, rows: Array) -> list[float]:
    """Milliseconds of single runs, over different rows, for about a second."""
    some = [np.array(row) for row in rows[:_WARM_UP]]
    for row in some:
        model.run(row)
    taken: list[float] = []
    start = time.perf_counter()
    while len(taken) < _MAX_RUNS:
        before = time.perf_counter()
        if len(taken) >= _MIN_RUNS and before - start > _SECONDS:
            break
        model.run(some[len(taken) % len(some)])
        taken.append((time.perf_counter() - before) * 1e3)
    return taken


def _fresh_peak() -> int:
    """The peak so far, set back to what is resident now where the kernel lets us (Linux)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _peak()


def _peak() -> int:
    """Peak resident bytes of this process.

    Linux hands a parent's peak down through exec in `ru_maxrss`, so its own account is read.
    """
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def main() -> None:
    """Read a job, write what was measured."""
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=Job)
    sys.stdout.buffer.write(msgspec.json.encode(_run(job)))


if __name__ == "__main__":
    try:
        main()
    except NotConvertibleError as error:
        sys.exit(str(error))
