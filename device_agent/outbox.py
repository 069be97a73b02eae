"""What is not yet known to be in the server: store and forward, in SQLite, bounded in bytes.

A message gets its (boot, seq) when it is first sent and keeps it until the server confirms it, so
numbers have no gaps and a message is applied once however often it is sent. When room is short, the
telemetry that was never sent becomes coarser: neighbouring windows are made one. Only when that no
longer helps is the oldest of it dropped, then samples, then other unsent messages; numbered ones
never.

Beside the queue it holds the ledger of what left this device, in the same commits.

On a disk that can't be written the queue goes on in memory until the next start, and says so.
"""

import math
import secrets
import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from device_agent.coarser import coarser
from edge_sdk.formats import from_msgpack, to_msgpack
from edge_sdk.messages import KIND_OF, Body, Sample, Window
from edge_sdk.topics import Upward

IN_FLIGHT = 64
SCHEMA = """
CREATE TABLE IF NOT EXISTS message (
    id INTEGER PRIMARY KEY,
    kind TEXT NOT NULL,
    body BLOB NOT NULL,
    rows INTEGER NOT NULL,
    wall REAL NOT NULL,
    uptime REAL NOT NULL,
    made TEXT NOT NULL,
    boot TEXT,
    seq INTEGER
);
CREATE TABLE IF NOT EXISTS egress (
    day TEXT NOT NULL,
    kind TEXT NOT NULL,
    messages INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    PRIMARY KEY (day, kind)
);
CREATE TABLE IF NOT EXISTS sample (
    wall REAL NOT NULL,
    id TEXT NOT NULL,
    command INTEGER NOT NULL,
    policy TEXT NOT NULL,
    model TEXT NOT NULL,
    bytes INTEGER NOT NULL,
    transforms TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS numbered ON message (boot, seq);
"""
ORDER = "CASE kind WHEN 'telemetry' THEN 0 WHEN 'sample' THEN 1 ELSE 2 END"  # what is dropped first


class Stamp(msgspec.Struct, frozen=True):
    """When a message was made: wall clock, and seconds since this process's start."""

    wall: float
    uptime: float


class Numbered(msgspec.Struct, frozen=True):
    """A message ready to be sealed and sent."""

    kind: Upward
    body: bytes
    wall: float
    uptime: float
    boot: str
    seq: int


class Outbox:
    """The queue of one device; `boot` is the random id of this process start. One thread only."""

    def __init__(self, path: Path, boot: str, limit: int, max_age: float = math.inf) -> None:
        self._boot, self._limit, self._max_age = boot, limit, max_age
        self._database, self.trouble = _open(path)
        self._acked: dict[str, int] = {}
        self._seq = self._durable_seq = self._unsent = self._bytes = 0
        self._flying: list[tuple[str, int]] = []
        self._fresh: list[tuple[Body, Stamp]] = []  # put since the last commit
        self._egress: dict[tuple[str, str], tuple[int, int]] = {}
        self._count()

    @property
    def waiting(self) -> int:
        """Messages that the server has not confirmed."""
        return self._unsent + len(self._flying)

    @property
    def flying(self) -> int:
        """Messages that were sent and are not confirmed."""
        return len(self._flying)

    def put(self, message: Body, stamp: Stamp) -> int:
        """Queue a message; how many rows of older windows had to be dropped for it.

        Durable after the next `take` or `commit`.
        """
        try:
            return self._put(message, stamp)
        except sqlite3.OperationalError as error:
            self._go_on_in_memory(error)
            return self._put(message, stamp)

    def _put(self, message: Body, stamp: Stamp) -> int:
        body = to_msgpack(message)
        rows = message.rows if isinstance(message, Window) else 0
        self._run(
            "INSERT INTO message (kind, body, rows, wall, uptime, made) VALUES (?, ?, ?, ?, ?, ?)",
            (KIND_OF[type(message)], body, rows, stamp.wall, stamp.uptime, self._boot),
        )
        if isinstance(message, Sample):
            self._run(
                "INSERT INTO sample VALUES (?, ?, ?, ?, ?, ?, ?)",
                (stamp.wall, message.id, message.command, message.policy, message.model,
                 len(message.data), ", ".join(message.transforms)),
            )  # fmt: skip
        self._fresh.append((message, stamp))
        self._unsent += 1
        self._bytes += len(body)
        return self._forget(stamp.wall - self._max_age) + self._shrink()

    def take(self, allowed: float = math.inf) -> list[Numbered]:
        """Number what may be sent now (reports and events first), durably, and give it.

        Of telemetry at most `allowed` bytes, but for the one message that goes beyond them.
        """
        try:
            return self._take(allowed)
        except sqlite3.OperationalError as error:
            self._go_on_in_memory(error)
            return self._take(allowed)

    def _take(self, allowed: float) -> list[Numbered]:
        room = IN_FLIGHT - len(self._flying)
        if room <= 0 or not self._unsent:
            return []
        found = self._all(
            "SELECT id, length(body), kind FROM message WHERE seq IS NULL "  # noqa: S608 - ours
            f"ORDER BY {ORDER} DESC, id LIMIT ?",
            (room,),
        )
        chosen = []
        for identity, length, kind in found:
            if kind == "telemetry":
                if allowed <= 0:
                    break
                allowed -= length
            chosen.append((identity, length))
        first = self._seq + 1
        for identity, length in chosen:
            self._seq += 1
            # Its uptime counts from another start if an earlier process made it: 0 says unknown.
            self._run(
                "UPDATE message SET boot = ?, seq = ?, "
                "uptime = CASE WHEN made = ? THEN uptime ELSE 0 END WHERE id = ?",
                (self._boot, self._seq, self._boot, identity),
            )
            self._flying.append((self._boot, self._seq))
            self._unsent -= 1
            self._bytes -= length
        self._commit()
        return self._numbered("WHERE boot = ? AND seq >= ?", (self._boot, first))

    def widen(self, limit: float) -> None:
        """Make unsent telemetry coarser until it takes at most `limit` bytes, if that can be."""
        try:
            self._widen(limit, "kind = 'telemetry'")
        except sqlite3.OperationalError as error:
            self._go_on_in_memory(error)

    def left(self, kind: Upward, size: int, day: str) -> None:
        """For the ledger: a message of `size` bytes was handed to the network on `day`."""
        key = (day, kind)
        messages, total = self._egress.get(key, (0, 0))
        self._egress[key] = (messages + 1, total + size)

    def unconfirmed(self) -> list[Numbered]:
        """What was sent and not confirmed, also by earlier processes, as it was sent."""
        return self._numbered("WHERE seq > 0", ())

    def acked(self, boot: str, seq: int) -> None:
        """The server has everything of `boot` up to `seq`; deleted with the next commit."""
        self._acked[boot] = max(seq, self._acked.get(boot, 0))
        self._flying = [(b, s) for b, s in self._flying if b != boot or s > seq]

    def commit(self) -> None:
        """Make everything up to now survive a power cut: one write, and none if nothing waits."""
        try:
            self._commit()
        except sqlite3.OperationalError as error:
            self._go_on_in_memory(error)

    def _commit(self) -> None:
        if self._database.in_transaction:
            self._write_egress()
            for acked in self._acked.items():
                self._run("DELETE FROM message WHERE boot = ? AND seq <= ?", acked)
            self._database.commit()
            self._acked.clear()
            self._durable_seq = self._seq
            self._fresh.clear()

    def close(self) -> None:
        """Commit and close."""
        with suppress(sqlite3.OperationalError):  # then they are sent once more
            self._write_egress()
            for acked in self._acked.items():
                self._run("DELETE FROM message WHERE boot = ? AND seq <= ?", acked)
            self._database.commit()
        self._database.close()

    def _go_on_in_memory(self, error: sqlite3.OperationalError) -> None:
        """Take along what the disk still gives, and what was queued since the last commit."""
        memory = sqlite3.connect(":memory:")
        try:
            self._database.rollback()
            self._database.backup(memory)
        except sqlite3.DatabaseError:
            memory.close()
            memory = sqlite3.connect(":memory:")
            # What was numbered is lost, and a gap would hold up everything after it.
            self._boot, self._seq, self._durable_seq = secrets.token_hex(8), 0, 0
        self._database.close()
        self._database = memory
        _prepare(memory)
        self.trouble = f"the outbox can't be written ({error}): it goes on in memory"
        self._count()
        fresh, self._fresh = self._fresh, []
        for message, stamp in fresh:
            self._put(message, stamp)

    def _count(self) -> None:
        found = self._all("SELECT boot, seq FROM message WHERE seq > 0")
        numbered = [(str(boot), int(seq)) for boot, seq in found]
        self._flying = [(b, s) for b, s in numbered if s > self._acked.get(b, 0)]
        mine = [seq for boot, seq in numbered if boot == self._boot]
        self._seq = max([self._durable_seq, *mine])
        [(unsent, total)] = self._all(
            "SELECT count(*), coalesce(sum(length(body)), 0) FROM message WHERE seq IS NULL"
        )
        self._unsent, self._bytes = int(unsent), int(total)

    def _write_egress(self) -> None:
        for key, counted in self._egress.items():
            self._run(
                "INSERT INTO egress VALUES (?, ?, ?, ?) ON CONFLICT (day, kind) DO UPDATE "
                "SET messages = messages + excluded.messages, bytes = bytes + excluded.bytes",
                (*key, *counted),
            )
        self._egress.clear()

    def _forget(self, before: float) -> int:
        """Telemetry made before that wall clock is dropped; its rows."""
        if not math.isfinite(before):
            return 0
        where = "seq IS NULL AND kind = 'telemetry' AND wall < ?"
        sql = f"SELECT count(*), coalesce(sum(rows), 0), coalesce(sum(length(body)), 0) FROM message WHERE {where}"  # noqa: E501, S608
        [(count, rows, size)] = self._all(sql, (before,))
        if count:
            self._run(f"DELETE FROM message WHERE {where}", (before,))  # noqa: S608
            self._unsent -= int(count)
            self._bytes -= int(size)
        return int(rows)

    def _shrink(self) -> int:
        if self._bytes <= self._limit or self._unsent < 2:
            return 0
        self._widen(0.9 * self._limit)
        dropped = 0
        while self._bytes > self._limit and self._unsent > 1:
            [(identity, length, rows)] = self._all(
                "SELECT id, length(body), rows FROM message WHERE seq IS NULL "  # noqa: S608 - ours
                f"ORDER BY {ORDER}, id LIMIT 1"
            )
            self._run("DELETE FROM message WHERE id = ?", (identity,))
            self._unsent -= 1
            self._bytes -= length
            dropped += rows
        return dropped

    def _widen(self, limit: float, where: str = "1") -> None:
        """Pairs of neighbours become one, the shortest first, until all takes `limit` bytes."""
        sql = f"SELECT coalesce(sum(length(body)), 0) FROM message WHERE seq IS NULL AND {where}"  # noqa: S608
        [(size,)] = self._all(sql)
        while size > limit and (saved := self._halve(size - limit)):
            size -= saved

    def _halve(self, wanted: float) -> int:
        """One pass over the unsent windows, oldest first; the bytes it saved."""
        found = self._all(
            "SELECT id, body, rows FROM message WHERE seq IS NULL AND kind = 'telemetry' "
            "ORDER BY id"
        )
        windows = [
            (i, from_msgpack(Window, body, "a kept window"), len(body)) for i, body, _ in found
        ]
        shortest = min((window.seconds for _, window, _ in windows), default=0.0)
        saved, at = 0, 0
        while at + 1 < len(windows) and saved < wanted:
            (first, one, size), (second, other, more) = windows[at : at + 2]
            both = coarser(one, other) if one.seconds <= 1.5 * shortest else None
            if both is None:
                at += 1
                continue
            body = to_msgpack(both)
            self._run("DELETE FROM message WHERE id = ?", (first,))
            self._run(
                "UPDATE message SET body = ?, rows = ? WHERE id = ?", (body, both.rows, second)
            )
            self._unsent -= 1
            self._bytes += len(body) - size - more
            saved += size + more - len(body)
            at += 2
        return saved

    def _numbered(self, where: str, values: tuple[object, ...]) -> list[Numbered]:
        sql = f"SELECT kind, body, wall, uptime, boot, seq FROM message {where} ORDER BY boot, seq"  # noqa: S608
        flying = set(self._flying)
        found = (Numbered(*row) for row in self._all(sql, values))
        return [numbered for numbered in found if (numbered.boot, numbered.seq) in flying]

    def _run(self, sql: str, values: tuple[object, ...] = ()) -> None:
        self._database.execute(sql, values)

    def _all(self, sql: str, values: tuple[object, ...] = ()) -> list[tuple[Any, ...]]:
        return self._database.execute(sql, values).fetchall()


def _open(path: Path) -> tuple[sqlite3.Connection, str]:
    """The database, and what was wrong with it; a damaged one is set aside, not mended."""
    try:
        return _connect(path), ""
    except sqlite3.OperationalError as error:
        memory = sqlite3.connect(":memory:")
        _prepare(memory)
        return memory, f"the outbox can't be written ({error}): it goes on in memory"
    except sqlite3.DatabaseError as error:
        damaged = path.with_suffix(".damaged")
        path.replace(damaged)
        for side in ("-wal", "-shm"):
            path.with_name(path.name + side).unlink(missing_ok=True)
        why = f"the outbox was damaged ({error}), was set aside as {damaged.name}, and begins anew"
        return _connect(path), why


def _connect(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path)
    try:
        database.execute("PRAGMA journal_mode = WAL")
        # A number that was sent must not be forgotten by a power cut: it would be given twice.
        database.execute("PRAGMA synchronous = FULL")
        [(found,)] = database.execute("PRAGMA quick_check").fetchall()
        if found != "ok":
            raise sqlite3.DatabaseError(found)
        _prepare(database)
    except sqlite3.DatabaseError:
        database.close()
        raise
    return database


def _prepare(database: sqlite3.Connection) -> None:
    database.executescript(SCHEMA)
