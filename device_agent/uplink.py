"""The way up: bodies go into the outbox, and from there sealed onto the link until confirmed."""

import itertools
import math
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import msgspec

from device_agent.budget import Budget
from device_agent.enrol import Identity
from device_agent.outbox import Numbered, Outbox, Stamp
from edge_sdk.formats import to_msgpack
from edge_sdk.messages import Body, Connection, Sealed, Window, seal
from edge_sdk.stick import Report
from edge_sdk.topics import Upward

RESEND = 30.0  # seconds without a confirmation before what is in flight is sent once more


class Clock(Protocol):
    """The two clocks of a device."""

    def wall(self) -> float: ...
    def monotonic(self) -> float: ...


class Bounds(msgspec.Struct, frozen=True):
    """What may wait, and what may go out; `bytes_per_day` 0 is no limit."""

    bytes: int
    days: float = math.inf
    bytes_per_day: int = 0


class Uplink:
    """Every message of one process start; `publish` may lose what it is given."""

    def __init__(
        self,
        identity: Identity,
        path: Path,
        bounds: Bounds,
        clock: Clock,
        publish: Callable[[Upward, bytes], None],
    ) -> None:
        boot = self._boot = secrets.token_hex(8)
        self._identity, self._clock, self._publish = identity, clock, publish
        self._outbox = Outbox(path, boot, bounds.bytes, bounds.days * 86_400)
        self._budget = Budget(bounds.bytes_per_day, clock.monotonic())
        self._started = self._moved = clock.monotonic()
        self._lost_rows = 0
        self._connections = itertools.count(1)
        self.sent_bytes = 0
        self.online = False

    @property
    def trouble(self) -> str:
        """What is wrong with the outbox."""
        return self._outbox.trouble

    @property
    def waiting(self) -> int:
        """Messages that the server has not confirmed."""
        return self._outbox.waiting

    def put(self, body: Body) -> None:
        """Queue a message; what had to make room for it is counted in the next window."""
        if isinstance(body, Window):
            body = msgspec.structs.replace(body, dropped=body.dropped + self._lost_rows)
            self._lost_rows = 0
        now = Stamp(self._clock.wall(), self._clock.monotonic() - self._started)
        self._lost_rows += self._outbox.put(body, now)

    def will(self) -> tuple[int, bytes]:
        """The next connection's number, and what is told should it break; from any thread."""
        number = next(self._connections)
        return number, self._connection(number, up=False)

    def connected(self, number: int) -> None:
        """A new connection: whatever was not confirmed may be lost, so it goes again.

        What is told about a connection first makes its last will count; a `number` of 0 has none.
        """
        self.online = True
        if number:
            self._hand_over("link", self._connection(number, up=True))
        self._resend()

    def disconnected(self) -> None:
        """Keep everything until the next connection."""
        self.online = False

    def acked(self, boot: str, seq: int) -> None:
        """The server has committed everything of `boot` up to `seq`."""
        self._outbox.acked(boot, seq)
        self._moved = self._clock.monotonic()

    def pump(self) -> None:
        """Make durable what was queued, and send what may be sent."""
        if not self.online:
            self._outbox.commit()
            return
        if self._budget.limited:
            allowed = self._budget.left(self._clock.monotonic())
            if allowed <= 0:
                self._outbox.widen(self._budget.horizon)
            self._send(self._outbox.take(allowed))
        else:
            self._send(self._outbox.take())
        if self._outbox.flying and self._clock.monotonic() - self._moved > RESEND:
            self._resend()

    def carry(self) -> list[Report]:
        """What the server has not confirmed, sealed, for a stick; it is sent again all the same."""
        self._outbox.take()
        device = self._identity.device
        return [Report(device, one.kind, self._sealed(one)) for one in self._outbox.unconfirmed()]

    def close(self) -> None:
        """Make durable what was queued; nothing is sent any more."""
        self._outbox.close()

    def _connection(self, number: int, *, up: bool) -> bytes:
        uptime = self._clock.monotonic() - self._started
        body = to_msgpack(Connection(number=number, up=up))
        return self._sealed(Numbered("link", body, self._clock.wall(), uptime, self._boot, 0))

    def _resend(self) -> None:
        self._moved = self._clock.monotonic()
        self._send(self._outbox.unconfirmed())

    def _send(self, messages: list[Numbered]) -> None:
        for one in messages:
            self._hand_over(one.kind, self._sealed(one))

    def _hand_over(self, kind: Upward, payload: bytes) -> None:
        self.sent_bytes += len(payload)
        self._budget.spend(len(payload))
        day = time.strftime("%Y-%m-%d", time.gmtime(self._clock.wall()))
        self._outbox.left(kind, len(payload), day)
        self._publish(kind, payload)

    def _sealed(self, one: Numbered) -> bytes:
        sealed = Sealed(
            device=self._identity.device,
            boot=one.boot,
            seq=one.seq,
            wall=one.wall,
            uptime=one.uptime,
            body=one.body,
        )
        return seal(sealed, one.kind, self._identity.secrets.mac)
