"""What somebody wants searched, and for how long. Pure."""

from pathlib import Path
from typing import Literal

import msgspec

from edge_sdk.errors import InvalidInputError

Strategy = Literal["tpe", "random", "grid", "evolution"]


class Search(msgspec.Struct, frozen=True, kw_only=True):
    """A search and its budget.

    Attributes:
        strategy: `tpe` is Bayesian (tree-structured Parzen estimators), `evolution` NSGA-II.
        candidates, minutes: whichever is used up first ends it; what runs then is waited for.
        jobs: candidates at a time.
        executor: `local`, or `dask://HOST:PORT` for the scheduler of a cluster.
        study: folder that keeps the candidates, so that an interrupted search goes on.
    """

    strategy: Strategy
    candidates: int = 20
    minutes: float = 60.0
    jobs: int = 1
    executor: str = "local"
    study: Path | None = None


def check(wanted: Search) -> None:
    """Raises InvalidInputError for a budget that nothing can be done with."""
    if wanted.candidates < 1 or wanted.jobs < 1 or not wanted.minutes > 0:
        raise InvalidInputError(
            f"a search needs candidates ({wanted.candidates}), minutes ({wanted.minutes:g}) and "
            f"jobs ({wanted.jobs}) above 0"
        )
    if wanted.executor != "local" and not wanted.executor.startswith("dask://"):
        raise InvalidInputError(
            f"executor {wanted.executor!r} is unknown: known are local and dask://HOST:PORT"
        )
