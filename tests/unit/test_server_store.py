"""The database: migrated at the first start, written all or nothing, orders only ever newer."""

import sqlite3
import threading
from collections import Counter

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import MetaData, create_engine, func, insert, select

from edge_sdk.errors import EdgeError, InvalidInputError, RefusedError
from edge_sdk.messages import Assignment, sign_assignment
from edge_sdk.signing import SigningKey
from fleet_server.records import AlertRecord, DeviceRecord, NewWindow, Poison
from fleet_server.store import Store, tables
from fleet_server.store.engines import open_engine
from tests.server_side import NOW, every_alert

DIRECTOR = SigningKey.generate()


@pytest.fixture
def store(database):
    with Store(database) as opened:
        yield opened


def an_order(device="pi-1", generation=1, version="1"):
    assignment = Assignment(
        device=device,
        generation=generation,
        model="digits",
        version=version,
        profile="raspberry-pi-4",
        digest="a" * 64,
        length=10,
        rollout="r1",
        not_before=NOW,
    )
    return assignment, sign_assignment(assignment, DIRECTOR)


def a_device(name):
    return DeviceRecord(id=name, public="00", profile="p", labels={"site": "s"}, enrolled_at=NOW)


def a_window(seq, *, version="1"):
    return NewWindow(
        device="pi-1",
        boot="b",
        seq=seq,
        received_at=NOW,
        wall=NOW,
        model="digits",
        version=version,
        digest="d",
        edges_id="e",
        seconds=5.0,
        rows=10,
        errors=0,
        skew=0,
        confidence_mean=0.9,
        confidence_rows=10,
        latency_mean=None,
        body=b"\x00\xff",
    )


def test_migrations_from_nothing_give_the_tables_that_the_code_uses(database, store):
    engine = open_engine(database)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), tables.metadata) == []
    engine.dispose()


def test_a_database_of_the_first_schema_keeps_its_devices_and_tokens(tmp_path):
    path = tmp_path / "old.db"
    engine = create_engine(f"sqlite:///{path}")
    config = Config()
    config.set_main_option("script_location", "fleet_server:migrations")
    config.set_main_option("path_separator", "os")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        connection.exec_driver_sql(
            "INSERT INTO devices VALUES ('pi-1', 'ab', 'p', '{}', 5.0, 6.0, 'b', 1, 2,"
            " 'm', '1', 'd', 'confirmed', '', 3, 'r', 'a', 0, 700)"
        )
        connection.exec_driver_sql(
            "INSERT INTO enrolment_keys VALUES ('t1', x'00', 1.0, 2.0, 3, 'old')"
        )
    engine.dispose()
    with Store(path) as store:
        device, key = store.device("pi-1"), store.enrolment_key("t1")
        assert (device.rows, device.generation, device.last_seen) == (700, 3, 6.0)
        assert (device.revoked_at, device.tls_key) == (None, "")
        assert (key.uses_left, key.device) == (3, "")


def a_row(table, number):
    """A row that differs from others in every column; documents are JSON or MessagePack."""
    kinds = {int: number, float: float(number), bytes: b"\x90", str: f"name-{number}"}
    row = {c.name: kinds[c.type.python_type] for c in table.columns}
    return row | {name: "{}" for name in ("labels", "manifest", "baseline") if name in row}


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_rows_of_every_schema_there_ever_was_survive_to_the_newest(kind, tmp_path, request):
    """Each migration finds rows of all schemas before it; at the end none is missing."""
    where = tmp_path / "old.db"
    if kind == "postgresql":
        where = request.getfixturevalue("postgres").new_database()
    engine = open_engine(where).execution_options(writes=True)
    config, written = Config(), Counter()
    config.set_main_option("script_location", "fleet_server:migrations")
    config.set_main_option("path_separator", "os")
    revisions = [s.revision for s in ScriptDirectory.from_config(config).walk_revisions()][::-1]
    for number, revision in enumerate(revisions, start=1):
        with engine.begin() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, revision)
            found = MetaData()
            found.reflect(connection)
            for table in found.sorted_tables:
                if table.name != "alembic_version":
                    connection.execute(insert(table).values(a_row(table, number)))
                    written[table.name] += 1
    with engine.begin() as connection:
        counts = {
            name: connection.execute(select(func.count()).select_from(table)).scalar_one()
            for name, table in tables.metadata.tables.items()
        }
    engine.dispose()
    assert counts == dict(written)


def test_readers_see_the_last_commit_and_do_not_wait_for_the_writer(database, store):
    other = open_engine(database)
    with store.transaction():
        store.add_device(a_device("pi-1"))
        with other.connect() as reader:
            assert reader.exec_driver_sql("SELECT count(*) FROM devices").scalar() == 0
    other.dispose()
    assert len(store.devices()) == 1


def test_writers_of_other_processes_take_turns_so_ids_rise_in_the_order_of_commits(database, store):
    began, done = threading.Event(), []

    def second():
        with Store(database) as other, other.transaction():
            began.set()
            other.add_event(NOW, "second", "x", "")
        done.append("second")

    with store.transaction():
        store.add_event(NOW, "first", "x", "")
        writer = threading.Thread(target=second)
        writer.start()
        assert not began.wait(0.2)
        done.append("first")
    writer.join(30)
    assert done == ["first", "second"]
    assert [event.source for event in store.events()] == ["second", "first"]


def test_in_sqlite_a_commit_is_on_the_disk(tmp_path):
    with Store(tmp_path / "fleet.db") as store, store._write() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2


def test_text_that_postgresql_does_not_hold_is_refused_in_words(pool):
    with pool.lent() as url, Store(url) as store:
        with pytest.raises(InvalidInputError, match="the database can't hold this"):
            store.add_event(NOW, "s", "a\0b", "")
        with pytest.raises(InvalidInputError, match="the database can't hold this"):
            store.device("a\0b")
        with pytest.raises(InvalidInputError, match="the database can't hold this"):
            store.add_windows([a_window(1), a_window(2, version="a\0b")])
        assert store.windows("digits", 0.0) == []


def test_a_database_that_is_not_there_is_told_without_its_password():
    told = r"fleet:\*\*\*@127.0.0.1:1/fleet can't be used.*is it running"
    with pytest.raises(EdgeError, match=told) as caught:
        Store("postgresql://fleet:secret@127.0.0.1:1/fleet")
    assert "secret" not in str(caught.value)
    with pytest.raises(InvalidInputError, match="'mysql' is no database we know"):
        Store("mysql://fleet@127.0.0.1/fleet")


def killed_amid(store, postgres):
    with store.transaction():
        postgres.kill()
        store.add_windows([a_window(1)])


def test_a_database_that_went_and_came_back_is_used_again(postgres):
    url = postgres.new_database()
    with Store(url) as store:
        store.add_device(a_device("pi-1"))
        postgres.kill()
        with pytest.raises(EdgeError, match="can't be read"):
            store.devices()
        with pytest.raises(EdgeError, match="can't be written"):
            store.add_device(a_device("pi-2"))
        postgres.start()
        with pytest.raises(EdgeError, match="can't be written"):
            killed_amid(store, postgres)
        postgres.start()
        store.add_device(a_device("pi-2"))
        assert [device.id for device in store.devices()] == ["pi-1", "pi-2"]
    postgres.drop(url)


def test_a_database_of_a_newer_program_is_refused_in_words_and_left_alone(tmp_path):
    path = tmp_path / "fleet.db"
    Store(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(EdgeError, match=r"schema 9999.*knows up to \d{4}: upgrade"):
        Store(path)
    assert path.read_bytes() == before


def test_a_file_that_is_no_database_is_refused_in_words(tmp_path):
    (tmp_path / "fleet.db").write_bytes(b"something else entirely" * 100)
    with pytest.raises(EdgeError, match="can't be used as a database"):
        Store(tmp_path / "fleet.db")


def test_a_transaction_that_fails_leaves_nothing_behind(store):
    def half_done():
        with store.transaction():
            store.add_device(a_device("pi-1"))
            store.order([an_order()])
            store.add_event(NOW, "test", "something", "happened")
            raise KeyError

    with pytest.raises(KeyError):
        half_done()
    assert store.devices() == []
    assert store.assignments() == {}
    assert store.events() == []


def test_a_newer_order_replaces_the_older_and_an_older_one_is_refused(store):
    store.order([an_order(generation=1)])
    store.order([an_order(generation=3, version="2")])
    for generation in (1, 2, 3):
        with pytest.raises(RefusedError, match="its current one has generation 3"):
            store.order([an_order(generation=generation)])
    assert store.assignments()["pi-1"].version == "2"
    assert store.assignment("pi-1").envelope == an_order(generation=3, version="2")[1]


def test_of_several_orders_none_is_given_if_one_is_refused(store):
    store.order([an_order("pi-2", generation=5)])
    with pytest.raises(RefusedError):
        store.order([an_order("pi-1"), an_order("pi-2", generation=5)])
    assert set(store.assignments()) == {"pi-2"}


def test_a_rollout_keeps_its_birthday_and_its_decisions_their_order(store):
    store.save_rollout("r1", "digits", "2", "running", b"{}", NOW)
    store.save_rollout("r1", "digits", "2", "promoted", b'{"a":1}', NOW + 9)
    for number in range(3):
        store.add_decision("r1", NOW + number, b"%d" % number)
    [record] = store.rollouts("promoted")
    assert (record.created_at, record.updated_at) == (NOW, NOW + 9)
    assert record.document == b'{"a":1}'
    assert store.rollouts("running") == []
    assert [d.document for d in store.decisions("r1", 2)] == [b"2", b"1"]


def test_an_alert_is_one_row_however_often_it_is_saved(store):
    for state in ("open", "acknowledged", "closed"):
        store.save_alert(
            AlertRecord(
                id="a1",
                state=state,
                scope="north",
                kind="drift",
                document=b"{}",
                opened_at=NOW,
                updated_at=NOW,
                closed_at=NOW if state == "closed" else None,
            )
        )
    assert [alert.state for alert in every_alert(store)] == ["closed"]
    assert store.open_alerts() == []


def test_windows_that_are_there_already_stay_as_they_are(store):
    store.add_windows([a_window(1), a_window(2)])
    store.add_windows([a_window(2, version="2"), a_window(3)])
    assert [w.version for w in store.windows("digits", 0.0)] == ["1", "1", "1"]


def test_messages_set_aside_are_cut_and_counted(store):
    poison = [
        Poison(at=NOW, device="pi-1", kind="event", reason=f"bad {n}", payload=b"x" * 9000)
        for n in range(1200)
    ]
    store.set_aside(poison)
    kept = store.poison(5000)
    assert len(kept) == 1000
    assert kept[0].reason == "bad 1199"
    assert len(kept[0].payload) == 4096


def test_last_seen_never_goes_back(store):
    store.add_device(a_device("pi-1"))
    store.seen({"pi-1": NOW}, {"pi-1": 5})
    store.seen({"pi-1": NOW - 60}, {"pi-1": 2})
    device = store.device("pi-1")
    assert (device.last_seen, device.rows) == (NOW, 7)
