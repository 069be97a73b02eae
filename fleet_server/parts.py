"""What the server's HTTP side is made of, and what it expects of the controller."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import msgspec

from fleet_server.credentials import Credentials
from fleet_server.decay import State
from fleet_server.guard import Guard
from fleet_server.keyring import Keyring
from fleet_server.metrics import Meters
from fleet_server.oidc import Oidc
from fleet_server.planning import Wish
from fleet_server.records import DeviceRecord, RolloutRecord
from fleet_server.registry import Registry
from fleet_server.rollout.state import Order, Rollout
from fleet_server.store import Store
from fleet_server.store.listing import MemberFilter
from fleet_server.views import (
    AlertRow,
    DeviceRow,
    Overview,
    RolloutDevice,
    RolloutPlan,
    RolloutRow,
)


class Controls(Protocol):
    """What an operator may ask of the controller."""

    def plan(self, wish: Wish, now: float) -> RolloutPlan: ...
    def create(self, wish: Wish, now: float) -> str: ...
    def command(self, rollout_id: str, order: Order) -> None: ...
    def read(self, record: RolloutRecord) -> Rollout: ...
    def devices(
        self, record: RolloutRecord, wanted: MemberFilter, after: str, limit: int
    ) -> list[RolloutDevice]: ...
    def drift_states(self, model: str) -> Sequence[State]: ...
    def rebaseline(self, alert: AlertRow, now: float) -> AlertRow: ...
    def forget(self, device: str, now: float) -> dict[str, int]: ...


class Parts(msgspec.Struct, frozen=True, kw_only=True):
    """One running server.

    Attributes:
        look: the fleet as it is now.
        rows: some devices as they are now.
        describe: one rollout.
        command: sends a device its signed command, if it is connected; from any thread.
        mqtt_port: where devices connect.
        mqtt: a connection of a device whose MQTT came as a WebSocket; None where a broker has them.
        mutual: devices must show their certificate, since there is TLS to show it in.
        dismiss: ends what a device has open, since it was revoked or has another key; on the event
            loop only.
        mails: whether there is an SMTP server to send e-mail by.
        meters: what Prometheus reads.
        oidc: where people may log in too.
        guard: who operators are, and what they may.
        changed: tells those who watch; on the event loop only.
        posted: takes a device's message that came over HTTP; its acknowledgement, if there is one.
        now: Unix seconds.
    """

    store: Store
    keyring: Keyring
    credentials: Credentials
    registry: Registry
    controls: Controls
    look: Callable[[], Overview]
    rows: Callable[[Sequence[DeviceRecord]], tuple[DeviceRow, ...]]
    describe: Callable[[RolloutRecord], RolloutRow]
    command: Callable[[str, bytes], None]
    mqtt_port: Callable[[], int]
    mqtt: Callable[[], asyncio.Protocol] | None = None
    mutual: bool = False
    mails: bool = False
    dismiss: Callable[[str], None]
    changed: Callable[[], None]
    meters: Meters
    guard: Guard
    oidc: Oidc | None = None
    posted: Callable[[str, str, bytes], Awaitable[bytes]]
    now: Callable[[], float]
