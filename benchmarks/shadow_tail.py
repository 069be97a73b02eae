"""What a model that runs beside as a shadow does to the slowest answers of the one that serves.

In turn, again and again, in one process: alone, with the agent's shadow beside, and with the shadow
that anybody would write first (a thread, a queue of rows, no priority). The model is ResNet-8 int8,
or one of about its cost where the data is absent, its shadow the same model once more. Rows come as
fast as they are taken, and then 100 a second.
"""

import json
import queue
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import numpy as np

from benchmarks.agent_loop import Plenty, resnet
from device_agent.inference import Answered, Inference
from device_agent.runtime import Model
from device_agent.sources import NpzReplay, Paced, Source
from edge_sdk.channels import Array
from edge_sdk.interpreter import run

ROUNDS, SECONDS, RATE, WAITING = 5, 3.0, 100.0, 128


class Latencies:
    """Keeps what each answer took, and hands the rows on."""

    wanted = True

    def __init__(self) -> None:
        self.taken: list[Array] = []
        self.beside: queue.Queue[Array | None] | None = None

    def see(self, answered: Answered) -> None:
        """One batch."""
        self.taken.append(answered.latency_ms)
        for row in answered.rows if self.beside else ():
            if self.beside and not self.beside.full():
                self.beside.put_nowait(row)

    def disagreed(self, *_: object) -> None:
        """It is the same model."""


Beside = Callable[[Inference, Latencies], AbstractContextManager[object]]


def with_ours(candidate: Model) -> Beside:
    """The agent's own shadow."""

    @contextmanager
    def beside(loop: Inference, _seen: Latencies) -> Iterator[None]:
        loop.accompany(candidate)
        yield
        loop.accompany(None)

    return beside


def with_a_thread(candidate: Model) -> Beside:
    """A thread that runs every row that its queue has room for."""

    @contextmanager
    def beside(_loop: Inference, seen: Latencies) -> Iterator[None]:
        rows: queue.Queue[Array | None] = queue.Queue(WAITING)

        def work() -> None:
            while (row := rows.get()) is not None:
                run(candidate.interpreter, row)

        thread = threading.Thread(target=work)
        thread.start()
        seen.beside = rows
        yield
        seen.beside = None
        rows.put(None)
        thread.join()

    return beside


def tail(model: Model, source: Source, beside: Beside) -> tuple[float, float]:
    """Milliseconds of the median answer, and of the 99th percentile."""
    seen, stop = Latencies(), threading.Event()
    loop = Inference(source, 1e9, time.monotonic, lambda _: None, seen)
    loop.switch(model)
    thread = threading.Thread(target=loop.run, args=(stop,))
    with beside(loop, seen):
        thread.start()
        threading.Event().wait(SECONDS)
        stop.set()
        thread.join()
    found = np.concatenate(seen.taken)
    return float(np.quantile(found, 0.5)), float(np.quantile(found, 0.99))


def compare(
    model: Model, source: Callable[[], Source], ways: list[Beside]
) -> list[tuple[float, float]]:
    """Of each way the median round's p50 and p99, in milliseconds."""
    rounds = [[tail(model, source(), way) for way in ways] for _ in range(ROUNDS)]
    return [
        (statistics.median(one[way][0] for one in rounds),
         statistics.median(one[way][1] for one in rounds))
        for way in range(len(ways))
    ]  # fmt: skip


def in_words(found: list[tuple[float, float]]) -> str:
    """The medians and 99th percentiles of the three ways."""
    return ", ".join(
        f"{name} {p50:.3f} and {p99:.3f} ms"
        for name, (p50, p99) in zip(("alone", "with a shadow", "plain thread"), found, strict=True)
    )


def main() -> None:
    """The value is how much longer the 99th percentile is, with rows as fast as they are taken."""
    model, x, name = resnet()
    candidate, _, _ = resnet()
    ways = [lambda _loop, _seen: nullcontext(), with_ours(candidate), with_a_thread(candidate)]
    busy = compare(model, lambda: Plenty(x), ways)
    paced = compare(model, lambda: Paced(NpzReplay(x, 0), RATE, time.monotonic), ways)
    result = {
        "name": "shadow-tail",
        "value": round(busy[1][1] / busy[0][1], 3),
        "unit": "x p99",
        "better": "lower",
        "against": f"the same model alone; with a plain thread {busy[2][1] / busy[0][1]:.3f}",
        "detail": f"{name}, p50 and p99 of an answer, medians of {ROUNDS} rounds of "
        f"{SECONDS:.0f} s: as fast as rows are taken {in_words(busy)}; at {RATE:.0f} rows a second "
        f"{in_words(paced)}",
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
