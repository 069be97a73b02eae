"""The slow jobs of an update, one after the other on their own thread: download, load, self-test.

Each ends in an event for the machine. Models that passed their self-test wait here, loaded, until
the machine lets one answer.
"""

import queue
import random
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec

from device_agent.board import Board
from device_agent.download import (
    DeniedDownloadError,
    InterruptedDownloadError,
    Wanted,
    download,
)
from device_agent.endpoint import backoff
from device_agent.enrol import Identity
from device_agent.manners import tighter_rate
from device_agent.runtime import Model, load, verified
from device_agent.selftest import Task, Trial, judged_apart
from device_agent.shortcut import by_delta, newest_other
from device_agent.store import Store
from device_agent.trusted import NotVouchedError, Repository
from device_agent.update_events import Fetched, FetchFailed, Rejected, SelfTested
from edge_sdk.errors import EdgeError, FormatError, RefusedError
from edge_sdk.files import sha256
from edge_sdk.interpreter import lacking
from edge_sdk.messages import Assignment
from edge_sdk.ops import why_lacking
from edge_sdk.profiles import HardwareProfile

MOST_RUNS = 10_000
FIRST_WAIT = 0.5  # seconds; doubles with every try that brought nothing


class Done(msgspec.Struct, frozen=True):
    """A job's result."""

    event: Fetched | FetchFailed | Rejected | SelfTested


class Noticed(msgspec.Struct, frozen=True):
    """Something that a try met, and that the server shall hear of before the last one failed."""

    name: str
    detail: str


class _Job(msgspec.Struct, frozen=True):
    order: Assignment
    attempt: int  # of a fetch; 0 is a self-test
    cancelled: threading.Event
    known: bool = False  # for a self-test: it was confirmed before


class _Timing(msgspec.Struct, frozen=True):
    order: Assignment
    command: int
    runs: int


class Worker:
    """Does fetches and self-tests in the order they are asked for; `done` takes the results."""

    def __init__(  # noqa: PLR0913 - made once, by the agent
        self,
        trial: Trial,
        repository: Repository,
        store: Store,
        identity: Identity,
        profile: HardwareProfile,
        rate: int,
        now: Callable[[], float],
        chance: random.Random,
        done: Callable[[Done | Noticed], None],
        board: Board | None = None,
    ) -> None:
        self._board = board
        self._trial, self._repository = trial, repository
        self._store, self._identity, self._profile = store, identity, profile
        self._rate, self._now, self._chance, self._done = rate, now, chance, done
        self._keys = identity.trust.publisher_keys
        self._jobs: queue.SimpleQueue[_Job | _Timing | None] = queue.SimpleQueue()
        self._cancelled: dict[int, threading.Event] = {}
        self._models: dict[str, Model] = {}

    def fetch(self, order: Assignment, attempt: int) -> None:
        """Bring the bundle and verify it; waits first if earlier attempts failed."""
        self._jobs.put(_Job(order, attempt, self._flag(order)))

    def self_test(self, order: Assignment, *, known: bool) -> None:
        """Load the bundle and try it on its golden samples; in a child first unless `known`."""
        self._jobs.put(_Job(order, 0, self._flag(order), known))

    def measure(self, order: Assignment, command: int, runs: int) -> None:
        """Time answers of a model that runs here, in a process apart; told as `measured`."""
        self._jobs.put(_Timing(order, command, min(runs, MOST_RUNS)))

    def cancel(self, generation: int) -> None:
        """Give up the jobs for this order; their results no longer matter."""
        if flag := self._cancelled.pop(generation, None):
            flag.set()

    def model(self, digest: str) -> Model:
        """A model that passed its self-test since the start; KeyError if it did not."""
        return self._models[digest]

    def keep(self, digests: set[str]) -> None:
        """Forget every other model."""
        for digest in self._models.keys() - digests:
            self._models.pop(digest, None)

    def close(self) -> None:
        """Give up every job; `run` returns."""
        for flag in self._cancelled.values():
            flag.set()
        self._jobs.put(None)

    def run(self) -> None:
        """Work until closed."""
        while (job := self._jobs.get()) is not None:
            if isinstance(job, _Timing):
                self._done(Noticed("measured", self._timed(job)))
            elif not job.cancelled.is_set():
                event = self._fetch(job) if job.attempt else self._self_test(job)
                if not job.cancelled.is_set():  # else it says nothing about the model
                    self._done(Done(event))

    def _flag(self, order: Assignment) -> threading.Event:
        return self._cancelled.setdefault(order.generation, threading.Event())

    def _fetch(self, job: _Job) -> Fetched | FetchFailed | Rejected:
        order, generation = job.order, job.order.generation
        part = self._store.part(order.digest)
        if why := why_lacking(lacking(order.needs)):
            return Rejected(generation, why)
        try:
            job.cancelled.wait(backoff(job.attempt, FIRST_WAIT, self._chance))
            target = self._repository.vouched(order)
            resumed_at = self._bring(order, job.cancelled)
            self._repository.check(target, self._store.bundle(order.digest))
            verified(self._store.bundle(order.digest), order, self._keys)
        except DeniedDownloadError as error:
            return FetchFailed(generation, job.attempt, str(error), final=True)
        except (InterruptedDownloadError, OSError) as error:
            if isinstance(error, NotVouchedError):
                self._done(Noticed(error.name, str(error)))
            got = part.stat().st_size if part.exists() else 0
            return FetchFailed(generation, job.attempt, str(error), got)
        except (RefusedError, FormatError) as error:
            return Rejected(generation, str(error))
        return Fetched(generation, resumed_at)

    def _bring(self, order: Assignment, cancelled: threading.Event) -> int:
        """The whole bundle on disk; the byte at which its download went on."""
        bundle = self._store.bundle(order.digest)
        if bundle.exists():
            if sha256(bundle.read_bytes()) == order.digest:
                return 0
            bundle.unlink()
        carried = self._store.carried(order.digest)
        if carried.exists() and sha256(carried.read_bytes()) == order.digest:
            carried.replace(self._store.part(order.digest))
            self._store.promote(order.digest)
            return 0
        wanted = Wanted(
            order.digest,
            order.length,
            self._identity.device,
            self._identity.secrets.http_token,
            tighter_rate(self._rate, order.policy.rate_limit_bytes),
        )
        part = self._store.part(order.digest)
        if not part.exists() and self._made_of_another(wanted, part, cancelled):
            self._store.promote(order.digest)
            return 0
        resumed_at = download(self._identity.server, wanted, part, self._now, cancelled)
        self._store.promote(order.digest)
        return resumed_at

    def _made_of_another(self, wanted: Wanted, part: Path, cancelled: threading.Event) -> bool:
        """Whether a delta to a bundle that is here gave the wanted one."""
        old = newest_other(self._store.bundles, wanted.digest)
        if old is None:
            return False
        server, path = self._identity.server, self._store.bundle(old)
        made = by_delta(server, wanted, path, self._now, cancelled)
        if made is None:
            return False
        data, came = made
        part.write_bytes(data)
        words = f"{came:,} bytes in place of {wanted.length:,}, from bundle {old[:12]}"
        self._done(Noticed("fetched-as-delta", words))
        return True

    def _timed(self, job: _Timing) -> str:
        """In words, which begin with the command's number: the server finds its answer by it."""
        order, publishers = job.order, self._identity.trust.publishers
        path = str(self._store.bundle(order.digest))
        task = Task(path, order, publishers, self._profile, job.runs)
        found = judged_apart(task, threading.Event())
        what = f"command {job.command}: {order.model} {order.version} ({order.digest[:12]})"
        if not found.runs:
            return f"{what} was not timed: {found.reason}"
        return (
            f"{what} takes {found.latency_ms:.3f} ms p50, {found.p90_ms:.3f} ms p90 "
            f"({found.runs} answers, one after the other)"
        )

    def _self_test(self, job: _Job) -> SelfTested:
        order = job.order
        if job.known and order.digest in self._models:
            return SelfTested(order.generation)  # passed since the start, and was kept: no wait
        path, publishers = self._store.bundle(order.digest), self._identity.trust.publishers
        task = Task(str(path), order, publishers, self._profile)
        if not job.known and (reason := self._trial(task, job.cancelled)):
            return SelfTested(order.generation, reason)
        try:
            model = load(path, order, self._keys, self._profile, self._board)
        except EdgeError as error:
            return SelfTested(order.generation, str(error))
        self._models[order.digest] = model
        return SelfTested(order.generation)
