"""The outbox: numbers without gaps, nothing lost that was promised, bounded on disk."""

import sqlite3
import tempfile
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from device_agent.ledger import Left, SampleLeft, egress, size
from device_agent.outbox import IN_FLIGHT, Outbox, Stamp
from edge_sdk.formats import from_msgpack
from edge_sdk.messages import Event, Report, Sample, Window

NOW = Stamp(1000.0, 5.0)
BIG = 1 << 20


def window(rows: int = 10, pad: int = 0) -> Window:
    return Window(
        model="m" + "x" * pad, version="1", digest="d", edges_id="e", seconds=1.0, rows=rows
    )


@pytest.fixture
def opened():
    """Opens outboxes, and closes those that the test did not."""
    boxes = []

    def make(path, boot: str = "b1", limit: int = BIG) -> Outbox:
        boxes.append(Outbox(path, boot, limit))
        return boxes[-1]

    yield make
    for box in boxes:
        with suppress(sqlite3.ProgrammingError):
            box.close()


def sent(numbered) -> list[tuple[str, int, str]]:
    return [(n.boot, n.seq, n.kind) for n in numbered]


def test_a_message_is_numbered_when_it_is_first_sent_reports_before_telemetry(tmp_path, opened):
    box = opened(tmp_path / "o")
    box.put(window(), NOW)
    box.put(Report(generation=1, phase="trial"), NOW)
    box.put(Event(name="x"), NOW)
    assert sent(box.take()) == [("b1", 1, "report"), ("b1", 2, "event"), ("b1", 3, "telemetry")]
    assert box.take() == []


def test_what_is_not_confirmed_is_sent_again_as_it_was(tmp_path, opened):
    box = opened(tmp_path / "o")
    for rows in (1, 2, 3):
        box.put(window(rows), NOW)
    first = box.take()
    box.acked("b1", 1)
    box.acked("elsewhere", 3)
    assert box.unconfirmed() == first[1:]


def test_a_restart_sends_old_numbers_again_and_counts_its_own_from_one(tmp_path, opened):
    box = opened(tmp_path / "o")
    box.put(window(1), NOW)
    first = box.take()
    box.put(window(2), NOW)
    box.close()
    again = opened(tmp_path / "o", "b2")
    again.put(window(3), Stamp(2000.0, 1.0))
    assert again.unconfirmed() == first
    fresh = again.take()
    assert [(n.boot, n.seq, n.wall, n.uptime) for n in fresh] == [
        ("b2", 1, 1000.0, 0.0),  # made before this start: its uptime says nothing now
        ("b2", 2, 2000.0, 1.0),
    ]


def test_no_more_than_a_bounded_number_is_in_flight(tmp_path, opened):
    box = opened(tmp_path / "o")
    for _ in range(IN_FLIGHT + 10):
        box.put(window(), NOW)
    assert len(box.take()) == IN_FLIGHT
    assert box.take() == []
    box.acked("b1", 4)
    assert [n.seq for n in box.take()] == [IN_FLIGHT + 1 + i for i in range(4)]


def test_short_of_room_the_oldest_unsent_telemetry_goes_first_and_is_counted(tmp_path, opened):
    box = opened(tmp_path / "o", limit=3600)
    box.put(window(1), NOW)
    numbered = box.take()
    box.put(Report(generation=1, phase="trial"), NOW)
    unlike = [msgspec.structs.replace(window(10 + i, 900), digest=str(i)) for i in range(6)]
    dropped = [box.put(one, NOW) for one in unlike]  # of six models: they can't be made one
    assert sum(dropped) == 10 + 11 + 12  # rows of the three oldest
    assert box.unconfirmed() == numbered
    later = box.take()
    assert later[0].kind == "report"
    kept = [from_msgpack(Window, n.body, "window").rows for n in later[1:]]
    assert kept == [13, 14, 15]


def test_weeks_offline_become_coarser_and_nothing_is_lost(tmp_path, opened):
    box, days = opened(tmp_path / "o", limit=20_000), 42
    for hour in range(24 * days):
        assert box.put(window(100), Stamp(3600.0 * hour, 0.0)) == 0
    assert box.put(Report(generation=1, phase="trial"), NOW) == 0
    box.commit()
    assert size(tmp_path / "o")[1] <= 20_000
    history = [from_msgpack(Window, n.body, "w") for n in box.take() if n.kind == "telemetry"]
    while more := [box.acked("b1", n.seq) or n for n in box.unconfirmed()] and box.take():
        history += [from_msgpack(Window, n.body, "w") for n in more if n.kind == "telemetry"]
    assert sum(w.rows for w in history) == 100 * 24 * days
    assert sum(w.seconds for w in history) == 24 * days
    lengths = sorted(w.seconds for w in history)
    assert lengths[-1] <= 4 * lengths[len(lengths) // 2]  # evenly coarse


def test_telemetry_older_than_the_limit_is_forgotten_and_counted(tmp_path):
    box = Outbox(tmp_path / "o", "b1", BIG, max_age=100.0)
    box.put(window(5), Stamp(1000.0, 0.0))
    box.put(Event(name="kept"), Stamp(1000.0, 0.0))
    assert box.put(window(7), Stamp(1101.0, 0.0)) == 5
    assert [n.kind for n in box.take()] == ["event", "telemetry"]
    box.close()


def test_the_ledger_adds_up_what_left_by_day_and_names_each_sample(tmp_path, opened):
    box = opened(tmp_path / "o")
    row = Sample(
        model="m", version="1", digest="d", command=3, policy="margin", id="0f",
        probabilities=(1.0,), dtype="uint8", shape=(4,), data=b"abcd", transforms=("blur 1",),
    )  # fmt: skip
    box.put(row, NOW)
    box.take()
    for day, sent in (("2026-01-01", 100), ("2026-01-01", 50), ("2026-01-02", 7)):
        box.left("sample", sent, day)
    box.put(Event(name="x"), NOW)
    box.commit()
    days, samples = egress(tmp_path / "o")
    assert days == [Left("2026-01-01", "sample", 2, 150), Left("2026-01-02", "sample", 1, 7)]
    assert samples == [SampleLeft(1000.0, "0f", 3, "margin", "m", 4, "blur 1")]


def test_reports_alone_are_bounded_too(tmp_path, opened):
    box = opened(tmp_path / "o", limit=2000)
    for generation in range(100):
        box.put(Report(generation=generation, phase="trial", reason="x" * 500), NOW)
    left = box.take()
    assert 0 < len(left) < 5
    assert from_msgpack(Report, left[-1].body, "report").generation == 99


def test_a_confirmed_message_is_gone_after_a_restart(tmp_path, opened):
    box = opened(tmp_path / "o")
    box.put(window(), NOW)
    box.take()
    box.acked("b1", 1)
    box.close()
    assert size(tmp_path / "o") == (0, 0)


def test_a_damaged_file_is_set_aside_and_said(tmp_path, opened):
    path = tmp_path / "outbox.sqlite"
    path.write_bytes(b"this is not a database" * 500)
    box = opened(path, "b1")
    assert "damaged" in box.trouble
    box.put(window(), NOW)
    assert len(box.take()) == 1
    box.close()
    assert (tmp_path / "outbox.damaged").exists()
    assert opened(path, "b2").trouble == ""


def test_waiting_for_the_server_costs_one_commit_for_all_that_was_queued(tmp_path, opened):
    box = opened(tmp_path / "o")
    for _ in range(5):
        box.put(window(), NOW)
    assert size(tmp_path / "o") == (0, 0)
    box.commit()
    assert size(tmp_path / "o")[0] == 5


class Traffic(RuleBasedStateMachine):
    """A device that fills, sends, loses, hears and restarts, and a server that keeps numbers."""

    @initialize(folder=st.builds(tempfile.TemporaryDirectory))
    def begin(self, folder) -> None:
        self.folder, self.boots = folder, 0
        self.server: dict[tuple[str, int], bytes] = {}
        self.start()

    def start(self) -> None:
        self.boots += 1
        self.box = Outbox(Path(self.folder.name) / "o", str(self.boots), 1500)

    @rule(message=st.sampled_from([window(pad=300), Report(generation=1, phase="trial")]))
    def put(self, message) -> None:
        self.box.put(message, NOW)

    @rule()
    def sent_and_lost(self) -> None:
        self.box.take()

    @rule()
    def sent(self) -> None:
        self.arrive(self.box.take())

    @rule()
    def reconnects_and_hears(self) -> None:
        self.arrive(self.box.unconfirmed())
        for boot in {boot for boot, _ in self.server}:
            top = 0
            while (boot, top + 1) in self.server:
                top += 1
            self.box.acked(boot, top)
        assert self.box.unconfirmed() == [], "a gap: the server can never confirm these"

    def arrive(self, numbered) -> None:
        for n in numbered:
            assert self.server.setdefault((n.boot, n.seq), n.body) == n.body, "a number twice"

    @rule()
    def restarts(self) -> None:
        self.box.close()
        self.start()

    @rule()
    def loses_power(self) -> None:
        self.box._database.close()  # whatever was not committed is gone
        self.start()

    def teardown(self) -> None:
        self.box.close()
        self.folder.cleanup()


Traffic.TestCase.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
TestTraffic = Traffic.TestCase
