"""Recipes searched under a budget, by optuna: candidates are made in parallel by any executor.

Two aims: few compressed bytes, a small drop. What a board refuses is a constraint, so that the
search turns away from it. Candidates of an interrupted search are kept and not made again.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from converters.alone import Parcel, attempt, quality
from converters.bench import Made, Missed, Progress
from converters.kept import Kept
from converters.recipe import recipe_named
from converters.search_order import Search
from converters.space import Settings, chosen, grid
from edge_sdk.errors import EdgeError, InvalidInputError

if TYPE_CHECKING:
    import optuna

_SEED = 1
_PATIENCE = 10  # seconds for a scheduler to answer
_VIOLATIONS = "violations"
_STARTUP = 6  # random candidates before what was learnt from them leads
_REPEATS = 20  # suggestions in a row that were made already: the space is exhausted
Tried = Made | Missed
Refused = Callable[[Made], int]


@dataclass(frozen=True)
class Quest:
    """A search.

    Attributes:
        parcel: the model and its rows.
        space: what may be tried.
        wanted: strategy, budget, executor.
        kept: where candidates are kept; those already there count.
        refused: how many boards a candidate does not fit.
    """

    parcel: Parcel
    space: dict[str, Settings]
    wanted: Search
    kept: Kept
    refused: Refused


def search(quest: Quest, now: Callable[[], float], progress: Progress) -> list[Tried]:
    """Every candidate of a search, in the order of their ends.

    Args:
        quest: what is searched.
        now: seconds, of a clock that never goes back.
        progress: told of each candidate.

    Raises:
        EdgeError: optuna, or distributed for a cluster, is not installed.
        InvalidInputError: the executor can't be reached.
    """
    study, ends = _study(quest.space, quest.wanted), now() + quest.wanted.minutes * 60
    most = min(quest.wanted.candidates, len(grid(quest.space)))
    done: dict[str, Tried] = {}
    running: dict[Future[Tried], tuple[str, Any]] = {}
    with executor(quest.wanted) as pool:
        while True:
            while len(running) < quest.wanted.jobs and len(done) + len(running) < most:
                if now() >= ends or (new := _new(study, quest, done, running)) is None:
                    most = 0  # out of time, or of anything new: what runs is waited for
                    break
                words, trial = new
                if (known := quest.kept.load(recipe_named(words))) is not None:
                    done[words] = known
                    _tell(study, trial, known, quest.refused)
                    continue
                progress(f"{words}: candidate {len(done) + len(running) + 1}")
                running[pool.submit(attempt, quest.parcel, recipe_named(words))] = new
            if not running:
                return list(done.values())
            ready, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in ready:
                words, trial = running.pop(future)
                done[words] = _result(future, words)
                quest.kept.save(done[words])
                _tell(study, trial, done[words], quest.refused)


def _new(
    study: "optuna.Study", quest: Quest, done: Mapping[str, Tried],
    running: Mapping[Future[Tried], tuple[str, Any]],
) -> tuple[str, Any] | None:  # fmt: skip
    """A recipe that was not tried yet, and optuna's trial of it; None if it suggests no more."""
    for _ in range(_REPEATS):
        trial = study.ask()
        words = _suggested(trial, quest.space, quest.wanted)
        if words not in done and all(words != other for other, _ in running.values()):
            return words, trial
        _tell(study, trial, done.get(words), quest.refused)
    return None


def _result(future: "Future[Tried]", words: str) -> Tried:
    error = future.exception()
    if error is None:
        return future.result()
    return Missed(recipe_named(words), f"its executor lost it: {type(error).__name__}", 0.0)


def _suggested(trial: "optuna.Trial", space: dict[str, Settings], wanted: Search) -> str:
    if wanted.strategy == "grid":
        return str(trial.suggest_categorical("words", grid(space)))
    return chosen(space, lambda what, among: str(trial.suggest_categorical(what, among)))


def _tell(study: "optuna.Study", trial: Any, one: Tried | None, refused: Refused) -> None:  # noqa: ANN401
    from optuna.trial import TrialState

    if not isinstance(one, Made):
        study.tell(trial, state=TrialState.FAIL)
        return
    trial.set_user_attr(_VIOLATIONS, refused(one))
    study.tell(trial, quality(one))


def _study(space: dict[str, Settings], wanted: Search) -> "optuna.Study":
    try:
        import optuna
    except ModuleNotFoundError as error:
        raise EdgeError(
            "a search needs optuna: pip install 'edge-deployment-sdk[search]'"
        ) from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)

    def violated(trial: "optuna.trial.FrozenTrial") -> tuple[float]:
        return (float(trial.user_attrs.get(_VIOLATIONS, 0)),)

    with warnings.catch_warnings():  # some of what is used here optuna calls experimental
        warnings.simplefilter("ignore")
        samplers = optuna.samplers
        sampler: optuna.samplers.BaseSampler
        match wanted.strategy:
            case "tpe":
                sampler = samplers.TPESampler(
                    seed=_SEED, n_startup_trials=_STARTUP, multivariate=True, group=True,
                    constraints_func=violated,
                )  # fmt: skip
            case "random":
                sampler = samplers.RandomSampler(seed=_SEED)
            case "grid":
                sampler = samplers.GridSampler({"words": grid(space)}, seed=_SEED)
                # at its end it stops optuna's own loop, and raises where there is none
                sampler.after_trial = lambda *_: None  # type: ignore[method-assign]
            case "evolution":
                sampler = samplers.NSGAIISampler(
                    population_size=8, seed=_SEED, constraints_func=violated
                )
        return optuna.create_study(directions=["minimize", "minimize"], sampler=sampler)


@contextmanager
def executor(wanted: Search) -> Iterator[Executor]:
    """What runs candidates: threads here, whose candidates are processes; or a Dask cluster.

    Raises:
        InvalidInputError: an unknown kind, or a scheduler that does not answer.
    """
    if wanted.executor == "local":
        with ThreadPoolExecutor(wanted.jobs) as pool:
            yield pool
        return
    kind, _, address = wanted.executor.partition("://")
    if kind != "dask" or not address:
        raise InvalidInputError(
            f"executor {wanted.executor!r} is unknown: known are local and dask://HOST:PORT"
        )
    try:
        from distributed import Client
    except ModuleNotFoundError as error:
        raise EdgeError("a cluster needs dask: pip install 'edge-deployment-sdk[dask]'") from error
    connect: Any = Client  # distributed ships no types
    try:
        client = connect(f"tcp://{address}", timeout=_PATIENCE)
    except OSError as error:
        raise InvalidInputError(f"no Dask scheduler answers at {address}: {error}") from error
    with client, client.get_executor(pure=False) as pool:
        yield pool
