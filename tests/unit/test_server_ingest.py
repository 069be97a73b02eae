"""Messages in: stored before they are acknowledged, once, in any order, and only if believable."""

import asyncio
from contextlib import asynccontextmanager

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import event

from edge_sdk.errors import EdgeError
from edge_sdk.messages import Connection, Event, Report, Running, unseal_ack
from edge_sdk.packing import packed
from edge_sdk.sketch import Sketch
from fleet_server.credentials import Credentials
from fleet_server.ingest import Ingest
from fleet_server.store import Store
from tests.databases import new_file
from tests.server_side import NOW, Clock, backend

TRAP = {
    "sqlite": "CREATE TRIGGER t BEFORE INSERT ON events WHEN new.name = 'trap' "
    "BEGIN SELECT RAISE(ABORT, 'trapped'); END",
    "postgresql": "ALTER TABLE events ADD CHECK (name <> 'trap')",
}
READ_ONLY = {
    "sqlite": ["DROP TABLE windows"],
    "postgresql": [
        "DO $$ BEGIN EXECUTE 'ALTER DATABASE ' || current_database() "
        "|| ' SET default_transaction_read_only = on'; END $$"
    ],
}


@pytest.fixture
def back(tmp_path, database):
    with backend(tmp_path, database) as made:
        yield made


class Rig:
    """An ingest whose acknowledgements are kept, opened and checked."""

    def __init__(self, back):
        self.back, self.clock = back, Clock()
        self.acks, self.commits = [], 0
        self.devices = {}
        self.ingest = Ingest(
            back.store,
            Credentials(back.store, back.keyring.exchange),
            acknowledge=self._acknowledge,
            changed=self._changed,
            now=self.clock,
        )

    def _acknowledge(self, device, payload):
        ack = unseal_ack(payload, device, self.devices[device].secrets.mac)
        self.acks.append((device, ack.boot, ack.seq))

    def _changed(self):
        self.commits += 1

    async def send(self, device, *messages):
        """All at once, as they come over one connection."""
        self.devices[device.name] = device
        async with asyncio.TaskGroup() as group:
            for kind, payload in messages:
                group.create_task(self._sent(device.name, kind, payload))

    async def _sent(self, device, kind, payload):
        await self.ingest.received(device, [(kind, payload)])

    @asynccontextmanager
    async def running(self):
        task = asyncio.create_task(self.ingest.run())
        yield self
        await self.ingest.close()
        await task


def drive(back, story):
    """Run `story(rig)` with the writer running; the rig."""

    async def main():
        async with Rig(back).running() as rig:
            await story(rig)
        return rig

    return asyncio.run(main())


def reasons(back):
    return [poison.reason for poison in back.store.poison()]


def test_when_received_returns_the_window_is_on_the_disk(back, database):
    device = back.device()

    async def story(rig):
        await rig.send(device, device.message(back.window(rows=12, errors=2)))
        with Store(database) as other:
            [window] = other.windows("digits", 0)
            assert (window.device, window.rows, window.errors) == ("pi-1", 12, 2)
            assert window.confidence_rows == 12
            assert 0 < window.confidence_mean <= 1
            assert window.latency_mean is None

    rig = drive(back, story)
    assert rig.acks == [("pi-1", "boot-1", 1)]
    record = back.store.device("pi-1")
    assert (record.last_seen, record.rows) == (NOW, 12)


def test_many_messages_share_one_commit(back):
    device = back.device()
    messages = [device.message(back.window()) for _ in range(200)]

    async def story(rig):
        await rig.send(device, *messages)

    rig = drive(back, story)
    assert len(back.store.windows("digits", 0)) == 200
    assert rig.commits <= 3
    assert rig.acks[-1] == ("pi-1", "boot-1", 200)


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.integers(1, 12), min_size=1, max_size=30))
def test_however_often_and_in_whatever_order_each_message_is_stored_once(back, numbers):
    device = back.device(f"pi-{len(back.store.devices())}")

    async def story(rig):
        for seq in numbers:
            await rig.send(device, device.message(back.window(rows=seq), seq=seq))

    rig = drive(back, story)
    stored = [w.seq for w in back.store.windows("digits", 0) if w.device == device.name]
    assert sorted(stored) == sorted(set(numbers))
    prefix = next(n for n in range(40) if n + 1 not in numbers)
    assert [seq for _, _, seq in rig.acks][-1:] == ([prefix] if prefix else [])
    assert back.store.device(device.name).rows == sum(set(numbers))


def test_a_duplicate_is_acknowledged_again_since_the_first_answer_may_be_lost(back):
    device = back.device()
    message = device.message(Event(name="started"))

    async def story(rig):
        await rig.send(device, message)
        await rig.send(device, message)

    rig = drive(back, story)
    assert rig.acks == [("pi-1", "boot-1", 1)] * 2
    assert [e.name for e in back.store.events() if e.device] == ["started"]


def test_kinds_share_one_count_and_boots_have_their_own(back):
    device = back.device()

    async def story(rig):
        await rig.send(
            device,
            device.message(Event(name="started")),
            device.message(back.report()),
            device.message(back.window()),
        )
        device.restarted("boot-2")
        await rig.send(device, device.message(back.window()))

    assert drive(back, story).acks == [("pi-1", "boot-1", 3), ("pi-1", "boot-2", 1)]


def test_a_report_says_what_runs_and_an_older_one_does_not_undo_it(back):
    device = back.device()
    fetching = device.message(back.report(2, "fetching", running=None))
    confirmed = device.message(back.report(2, "confirmed", runtime="litert", agent="0.1"))

    async def story(rig):
        await rig.send(device, confirmed)
        await rig.send(device, fetching)

    drive(back, story)
    record = back.store.device("pi-1")
    assert (record.phase, record.generation, record.runtime) == ("confirmed", 2, "litert")
    assert record.running_digest == back.bundle.digest


def test_late_reports_of_an_older_boot_do_not_undo_what_the_newer_boot_said(back):
    device = back.device()
    first = device.message(back.report(1, "trial"))
    late = device.message(back.report(1, "confirmed"))
    device.restarted("boot-2")
    newer = device.message(back.report(2, "fetching"))

    async def story(rig):
        for message in (first, newer, late):
            await rig.send(device, message)

    rig = drive(back, story)
    record = back.store.device("pi-1")
    assert (record.boot, record.phase, record.generation) == ("boot-2", "fetching", 2)
    assert ("pi-1", "boot-1", 2) in rig.acks


def test_reports_in_one_batch_leave_the_newest(back):
    device = back.device()
    messages = [device.message(back.report(n, "fetching")) for n in range(1, 6)]

    async def story(rig):
        await rig.send(device, *reversed(messages))

    drive(back, story)
    assert back.store.device("pi-1").generation == 5


def test_a_message_with_a_wrong_key_is_set_aside_and_never_acknowledged(back):
    device, other = back.device(), back.device("pi-2")

    async def story(rig):
        await rig.send(device, device.message(back.window(), key=b"0" * 32))
        await rig.send(device, other.message(back.window()))
        await rig.send(device, ("telemetry", b"\x00junk"), ("telemetry", b""))
        _, payload = device.message(Event(name="x"), seq=1)
        await rig.send(device, ("telemetry", payload))  # a right HMAC, but for another kind

    rig = drive(back, story)
    assert rig.acks == []
    assert back.store.windows("digits", 0) == []
    assert len(reasons(back)) == 5
    assert any("wrong HMAC" in reason for reason in reasons(back))
    assert any("in the name of" in reason for reason in reasons(back))


def test_a_packed_window_is_stored_with_its_sketches(back):
    device, plain = back.device(), back.window()
    damaged = msgspec.structs.replace(packed(plain, back.bundle.baseline), packed=b"junk")

    async def story(rig):
        await rig.send(
            device,
            device.message(packed(plain, back.bundle.baseline)),
            device.message(damaged),
        )

    rig = drive(back, story)
    assert rig.acks
    [stored] = [one.window for one in back.store.window_bodies(0)]
    sent, got = ({n: s.counts for n, s in w.channels.items()} for w in (plain, stored))
    assert got == sent
    assert any("can't be read" in reason for reason in reasons(back))


def unlike(back):
    """Windows that no device of ours sends, by what is wrong with them."""
    window = back.window()
    good = window.channels["input.brightness"]
    broken = {
        "bins": Sketch([1, 2, 3], rows=6),
        "sum": msgspec.structs.replace(good, rows=good.rows + 1),
        "negative": msgspec.structs.replace(
            good, counts=[-1, good.counts[0] + 1 + good.counts[1], *good.counts[2:]]
        ),
        "nan": msgspec.structs.replace(good, total=float("nan")),
    }
    return {
        "no bundle": back.window(digest="b" * 64),
        "not as claimed": back.window(version="7"),
        "uses edges": back.window(edges_id="other"),
        "rows": back.window(rows=4, errors=-1),
        "huge": back.window(rows=4, dropped=2**63),
        "seconds": back.window(seconds=float("inf")),
        "channels": back.window(channels={f"c{n}": Sketch([]) for n in range(601)}),
        "unknown": back.window(channels={"c": Sketch([0] * 5000)}),
        **{
            name: back.window(channels={"input.brightness": sketch})
            for name, sketch in broken.items()
        },
    }


def test_windows_that_can_not_be_are_set_aside_but_acknowledged(back):
    device = back.device()
    windows = unlike(back)

    async def story(rig):
        for window in windows.values():
            await rig.send(device, device.message(window))
        await rig.send(device, device.message(back.window()))

    rig = drive(back, story)
    assert len(reasons(back)) == len(windows)
    assert len(back.store.windows("digits", 0)) == 1
    assert rig.acks[-1] == ("pi-1", "boot-1", len(windows) + 1)


def test_reports_and_events_beyond_measure_are_set_aside_but_acknowledged(back):
    device = back.device()

    async def story(rig):
        await rig.send(
            device,
            device.message(Report(generation=-1, phase="empty")),
            device.message(Report(generation=1, phase="failed", reason="x" * 5000)),
            device.message(back.report(running=Running("m", "1", "d" * 5000))),
            device.message(Event(name="")),
            device.message(Event(name="x", detail="y" * 5000)),
        )

    rig = drive(back, story)
    assert len(reasons(back)) == 5
    assert back.store.device("pi-1").phase == "empty"
    assert rig.acks[-1] == ("pi-1", "boot-1", 5)


def test_numbers_that_no_table_holds_are_refused_without_harm(back):
    device = back.device()

    async def story(rig):
        await rig.send(
            device,
            device.message(back.window(), seq=2**63),
            device.message(back.window(), seq=2**64 - 1),
            device.message(back.window(), wall=float("nan")),
            device.message(back.window(), uptime=float("inf")),
        )

    assert drive(back, story).acks == []
    assert len(reasons(back)) == 4


def test_a_stream_full_of_holes_is_bounded(back):
    device = back.device()
    messages = [device.message(Event(name="x"), seq=2 * n) for n in range(1, 1100)]

    async def story(rig):
        await rig.send(device, *messages)

    drive(back, story)
    with back.store.transaction():
        [(_, stream)] = back.store.streams([("pi-1", "boot-1")]).values()
    assert len(stream.ahead) == 1000
    assert reasons(back)


def test_one_message_that_breaks_the_database_does_not_hold_up_the_others(back):
    good, bad = back.device(), back.device("pi-2")
    with back.store._write() as connection:
        connection.exec_driver_sql(TRAP[connection.dialect.name])

    async def story(rig):
        fallen = asyncio.create_task(rig.send(bad, bad.message(Event(name="trap"))))
        await rig.send(good, *(good.message(back.window()) for _ in range(5)))
        with pytest.raises(ExceptionGroup):
            await fallen

    rig = drive(back, story)
    assert len(back.store.windows("digits", 0)) == 5
    assert {ack[0] for ack in rig.acks} == {"pi-1"}


def test_a_database_that_can_not_be_written_is_no_acknowledgement(back):
    device = back.device()
    with back.store._write() as connection:
        for statement in READ_ONLY[connection.dialect.name]:
            connection.exec_driver_sql(statement)
    back.store._engine.dispose()  # the setting holds for new connections

    async def story(rig):
        with pytest.raises(ExceptionGroup) as caught:
            await rig.send(device, device.message(back.window()))
        assert caught.group_contains(EdgeError, match="can't be written")

    assert drive(back, story).acks == []


def test_a_full_disk_is_told_once_is_no_acknowledgement_and_what_comes_again_is_stored_once(
    tmp_path, caplog
):
    with backend(tmp_path, new_file(tmp_path)) as back:
        device, most = back.device(), [1]

        @event.listens_for(back.store._engine, "begin")
        def limit(connection):  # SQLite's own "database or disk is full"
            connection.exec_driver_sql(f"PRAGMA max_page_count={most[0]}")

        messages = [device.message(back.window()) for _ in range(300)]

        async def story(rig):
            for _ in range(3):
                with pytest.raises(ExceptionGroup) as caught:
                    await rig.send(device, *messages)
                assert caught.group_contains(EdgeError, match="is full")
                rig.clock.now += 60
            assert rig.acks == []
            [gone] = [r.getMessage() for r in caplog.records if r.name == "fleet_server.ingest"]
            assert gone.startswith("it fails that messages are stored; it is tried again: ")
            most[0] = 2**30
            await rig.send(device, *messages)

        assert drive(back, story).acks[-1] == ("pi-1", "boot-1", 300)
        assert [w.seq for w in back.store.windows("digits", 0)] == list(range(1, 301))
        [_, over] = [r.getMessage() for r in caplog.records if r.name == "fleet_server.ingest"]
        assert over.startswith("messages are stored again, after 180 s and 900 failures; the last")


def test_a_subscriber_gets_its_order_and_nothing_else(back):
    back.device()
    rig = Rig(back)
    assert rig.ingest.retained("pi-1", "desired") is None
    assert rig.ingest.retained("pi-1", "ack") is None


def test_only_the_devices_own_password_opens_the_door(back):
    one, other = back.device(), back.device("pi-2")
    ingest = Rig(back).ingest
    assert ingest.authenticate("pi-1", one.secrets.mqtt_password.encode()) == "pi-1"
    assert ingest.authenticate("pi-1", other.secrets.mqtt_password.encode()) is None
    assert ingest.authenticate("pi-1", b"") is None
    assert ingest.authenticate("pi-9", b"") is None
    assert ingest.authenticate("no/such", b"\xff") is None


def test_coming_and_going_is_seen(back):
    device = back.device()

    async def story(rig):
        rig.ingest.connected(device.name)
        assert rig.ingest.online == {"pi-1"}
        rig.clock.now += 5
        rig.ingest.disconnected(device.name)
        assert rig.ingest.online == set()

    drive(back, story)
    assert back.store.device("pi-1").last_seen == NOW + 5


def test_a_last_will_shows_the_device_gone_and_leaves_the_numbering_alone(back):
    device = back.device()

    def link(number, *, up, boot="boot-1"):
        return device.message(Connection(number=number, up=up), seq=0, boot=boot)

    gone = []

    async def story(rig):
        for message in (
            link(1, up=True),
            device.message(back.window()),
            link(1, up=False),  # the connection broke
            device.message(back.window()),  # yet the device is heard of
            link(1, up=False),
            link(2, up=True),  # and connects again
            link(1, up=False),  # somebody sends the old will once more
            link(2, up=False),
        ):
            await rig.send(device, message)
            gone.append(back.store.device("pi-1").left_at is not None)
        await rig.send(device, device.message(back.window(), seq=0))  # nothing else is outside it
        for beyond in (0, -1, 2**64 - 1):
            await rig.send(device, link(beyond, up=True))

    rig = drive(back, story)
    assert gone == [False, False, True, False, True, False, False, True]
    assert rig.acks[-1] == ("pi-1", "boot-1", 2)
    assert len(back.store.windows("digits", 0)) == 2
    outside, *connections = sorted(reasons(back), key=lambda reason: "connection" in reason)
    assert "is numbered 0" in outside
    assert sorted(connections) == [
        f"its connection is numbered {beyond}" for beyond in (-1, 0, 2**64 - 1)
    ]
    assert back.store.device("pi-1").link_number == 2
