"""What many tests need: a place for the server's database, in SQLite and in PostgreSQL."""

import pytest

from fleet_server.store import Store
from tests.postgres import missing
from tests.postgres import postgres as running_postgres


@pytest.fixture(scope="session")
def postgres():
    """A real PostgreSQL, one for the whole run."""
    if missing():
        pytest.skip(missing())
    with running_postgres() as running:
        yield running


@pytest.fixture(scope="session")
def migrated(postgres):
    """The URL of a database with our tables, to be copied."""
    url = postgres.new_database()
    Store(url).close()
    return url


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request, tmp_path):
    """Where a test's `Store` shall be."""
    if request.param == "sqlite":
        yield tmp_path / "fleet.db"
        return
    running, template = (request.getfixturevalue(name) for name in ("postgres", "migrated"))
    url = running.new_database(template)
    yield url
    running.drop(url)
