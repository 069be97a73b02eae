"""What many tests need: an empty database of the server, of each kind in turn.

Who takes `database` or `new_database`, itself or through a fixture, runs twice: on SQLite and on
PostgreSQL.
"""

import contextlib
import os
from pathlib import Path

import pytest

from tests.databases import Pool, new_file
from tests.postgres import missing
from tests.postgres import postgres as running_postgres

os.environ["PYTHONPATH"] = os.pathsep.join(
    [str(Path(__file__).parent / "without"), *filter(None, [os.environ.get("PYTHONPATH")])]
)


def pytest_xdist_auto_num_workers():
    """One more than there are cores: many tests wait for agents, servers and brokers."""
    return len(os.sched_getaffinity(0)) + 1


def pytest_collection_modifyitems(items):
    """Those that may take longest first, lest one process be left alone with them at the end."""
    items.sort(key=_allowed, reverse=True)


def _allowed(item):
    own = item.get_closest_marker("timeout")
    return own.args[0] if own else 0


@pytest.fixture(scope="session")
def postgres():
    """A real PostgreSQL, one for the whole run."""
    if missing():
        pytest.skip(missing())
    with running_postgres() as running:
        yield running


@pytest.fixture(scope="session")
def pool(postgres):
    """The databases in it that one test has after the other."""
    with contextlib.closing(Pool(postgres)) as made:
        yield made


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def new_database(request):
    """A function: a context in which `Store` finds all its tables, empty, at the place given.

    Its argument is the folder in which the file shall be, if it is one.
    """
    if request.param == "sqlite":
        return lambda folder: contextlib.nullcontext(new_file(folder))
    pool = request.getfixturevalue("pool")
    return lambda _folder: pool.lent()


@pytest.fixture
def database(new_database, tmp_path):
    """Where a test's `Store` shall be: `fleet.db` in its folder, or a PostgreSQL database's URL."""
    with new_database(tmp_path) as where:
        yield where
