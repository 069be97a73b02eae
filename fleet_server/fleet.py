"""The fleet at a glance: stored facts turned into `views.Overview`. Reads only, decides nothing."""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence

import msgspec

from edge_sdk.formats import to_json
from fleet_server.alert_life import SEVERITIES
from fleet_server.records import (
    AlertRecord,
    BundleRecord,
    DeviceRecord,
    RolloutRecord,
)
from fleet_server.store import Store
from fleet_server.store.listing import (
    EVERY_ALERT,
    LATE_PERIODS,
    LIVE_PERIODS,
    PERIOD_OF_SILENT,
    SHORTEST_PERIOD,
    DeviceFilter,
    RolloutFilter,
)
from fleet_server.views import (
    OVER,
    AlertRow,
    DeviceRow,
    EventRow,
    Health,
    Overview,
    RolloutRow,
    VersionRow,
)

RECENT = 10  # windows that tell how a device is
DEVICES_SHOWN = 200
IN_TROUBLE = ("reverted", "refused", "failed")
CLOSED_SHOWN = ROLLOUTS_SHOWN = 20
HEALTHS: tuple[Health, ...] = ("live", "late", "offline", "new")

Describe = Callable[[RolloutRecord], RolloutRow]


def overview(
    store: Store,
    *,
    describe: Describe,
    online: Collection[str],
    drifting: Mapping[str, tuple[str, ...]],
    now: float,
) -> Overview:
    """Everything the first page shows.

    Args:
        store: read, never written.
        describe: tells of one rollout.
        online: devices that have a connection now.
        drifting: channels whose input moved, by device.
        now: Unix seconds.
    """
    total = store.device_count(DeviceFilter())
    counts, offline = _healths(store, online, now)
    shown = _most_in_need(store, total, offline, drifting)
    rows = device_rows(store, shown, online=online, drifting=drifting, now=now)
    newest = store.rollout_page(RolloutFilter(), "", ROLLOUTS_SHOWN)
    rollouts = tuple(describe(record) for record in newest)
    over = store.past_alerts(EVERY_ALERT, None, CLOSED_SHOWN)
    alerts = (*urgent_first(store.open_alerts()), *map(alert_row, over))
    troubles = _troubles(offline, rollouts, alerts)
    bundles, runs = store.bundles(), store.running_counts()
    running = _running(bundles, runs)
    return Overview(
        at=now,
        headline=_headline(troubles, total, counts["live"], running),
        calm=not troubles,
        health={one: counts[one] for one in HEALTHS},
        running=tuple((model, version, n) for (model, version), n in running.most_common()),
        total=total,
        devices=rows,
        versions=bundle_rows(bundles, runs),
        rollouts=rollouts,
        alerts=alerts,
        events=tuple(
            EventRow(at=e.at, source=e.source, name=e.name, detail=e.detail) for e in store.events()
        ),
    )


def _healths(
    store: Store, online: Collection[str], now: float
) -> tuple[Counter[Health], list[str]]:
    """How many devices are how, and the ids of those that are offline."""
    counted, doubtful = store.silences(now)
    counts: Counter[Health] = Counter({one: counted.get(one, 0) for one in HEALTHS})
    offline = []
    for device in doubtful:
        alone = health(device, now, connected=False)
        found = health(device, now, connected=device.id in online)
        counts[alone] -= 1
        counts[found] += 1
        if found == "offline":
            offline.append(device.id)
    return counts, offline


def _most_in_need(
    store: Store, total: int, offline: Sequence[str], drifting: Mapping[str, tuple[str, ...]]
) -> list[DeviceRecord]:
    """All devices, or of a large fleet those that first need a look."""
    if total <= DEVICES_SHOWN:
        return store.devices()
    stuck = store.devices_in(IN_TROUBLE, DEVICES_SHOWN)
    others = [d.id for d in store.device_page(DeviceFilter(), "", DEVICES_SHOWN)]
    names = list(dict.fromkeys([*offline, *stuck, *sorted(drifting), *others]))[:DEVICES_SHOWN]
    found = {device.id: device for device in store.devices_named(names)}
    return [found[name] for name in names if name in found]


def _running(bundles: Sequence[BundleRecord], runs: Mapping[str, int]) -> Counter[tuple[str, str]]:
    """Devices by what they report, an unknown bundle by its digest."""
    known = {bundle.digest: (bundle.model, bundle.version) for bundle in bundles}
    found: Counter[tuple[str, str]] = Counter()
    for digest, devices in runs.items():
        if digest:
            found[known.get(digest, ("", digest[:12]))] += devices
    return found


def health(device: DeviceRecord, now: float, *, connected: bool) -> Health:
    """How a device is, by the time since it was last heard of, in its own reporting periods.

    A device that is connected is never called offline: its link is checked by MQTT itself. One
    whose last will came is offline at once.
    """
    last_seen = device.last_seen
    if last_seen is None:
        return "new"
    if device.left_at is not None and not connected:
        return "offline"
    if connected and not device.period:
        return "live"  # it has nothing to report yet
    periods = (now - last_seen) / max(device.period or PERIOD_OF_SILENT, SHORTEST_PERIOD)
    if periods <= LIVE_PERIODS:
        return "live"
    return "late" if connected or periods <= LATE_PERIODS else "offline"


def bundle_rows(bundles: Sequence[BundleRecord], runs: Mapping[str, int]) -> tuple[VersionRow, ...]:
    """The registry, newest first, with how many devices report to run each bundle."""
    return tuple(
        VersionRow(
            model=b.model,
            version=b.version,
            profile=b.profile,
            digest=b.digest,
            length=b.length,
            recipe=b.manifest.recipe.name,
            accuracy=b.manifest.metrics.accuracy,
            drop=b.manifest.metrics.drop,
            signed_by=b.signed_by,
            published_at=b.published_at,
            devices=runs.get(b.digest, 0),
        )
        for b in sorted(bundles, key=lambda b: (-b.published_at, b.profile))
    )


def urgent_first(alerts: Sequence[AlertRecord]) -> tuple[AlertRow, ...]:
    """What needs a person, the costliest first."""
    return tuple(sorted(map(alert_row, alerts), key=_urgency))


def alert_row(alert: AlertRecord) -> AlertRow:
    """One alert as pages and commands show it."""
    row = msgspec.json.decode(alert.document, type=AlertRow)
    return msgspec.structs.replace(row, state=alert.state)


def alert_record(row: AlertRow, now: float) -> AlertRecord:
    """One alert as it is stored."""
    return AlertRecord(
        id=row.id,
        state=row.state,
        scope=row.scope,
        kind=row.kind,
        document=to_json(row),
        opened_at=row.opened_at,
        updated_at=now,
        closed_at=now if row.state in OVER else None,
    )


def _urgency(row: AlertRow) -> tuple[bool, int, float]:
    return (
        row.state == "muted",
        -SEVERITIES.index(row.severity),
        -(row.loss or 0.0) * row.devices,
    )


def device_rows(
    store: Store,
    devices: Sequence[DeviceRecord],
    *,
    online: Collection[str],
    drifting: Mapping[str, tuple[str, ...]],
    now: float,
) -> tuple[DeviceRow, ...]:
    """Some devices as pages show them; reads no more than is shown."""
    look = _Look(store, online, drifting, now, [device.id for device in devices])
    return tuple(look.row(device) for device in devices)


class _Look:
    """What is known around the devices at one moment."""

    def __init__(
        self,
        store: Store,
        online: Collection[str],
        drifting: Mapping[str, tuple[str, ...]],
        now: float,
        shown: Sequence[str],
    ) -> None:
        self.bundles = {b.digest: b for b in store.bundles()}
        self._assignments = store.assignments(shown)
        self._confidences = store.confidences(shown, RECENT)
        self._online = online
        self._drifting = drifting
        self._now = now

    def row(self, device: DeviceRecord) -> DeviceRow:
        seen, now = device.last_seen, self._now
        order = self._assignments.get(device.id)
        runs = self.bundles.get(device.running_digest)
        return DeviceRow(
            id=device.id,
            profile=device.profile,
            site=device.labels.get("site", ""),
            health=(
                "revoked"
                if device.revoked_at is not None
                else health(device, now, connected=device.id in self._online)
            ),
            seen_seconds_ago=None if seen is None else max(now - seen, 0.0),
            model=runs.model if runs else order.model if order else "",
            wanted=order.version if order else "",
            running=runs.version if runs else device.running_digest[:12],
            phase=device.phase,
            reason=device.reason,
            runtime=device.runtime,
            rows=device.rows,
            confidence=self._confidences.get(device.id),
            drifting=self._drifting.get(device.id, ()),
            resumed_at=device.resumed_at,
        )


def _troubles(
    gone: Sequence[str], rollouts: Sequence[RolloutRow], alerts: Sequence[AlertRow]
) -> list[str]:
    """What needs a person, each in words."""
    found = [alert.title for alert in alerts if alert.state == "open"]
    found += [
        f"the rollout of {r.model} {r.version} is held: {r.reason}"
        for r in rollouts
        if r.status == "held"
    ]
    if gone:
        found.append(
            f"device {gone[0]} is offline" if len(gone) == 1 else f"{len(gone)} devices are offline"
        )
    return found


def _headline(
    troubles: Sequence[str], devices: int, live: int, running: Counter[tuple[str, str]]
) -> str:
    if troubles:
        more = f" (and {len(troubles) - 1} more)" if len(troubles) > 1 else ""
        return f"{troubles[0][0].upper()}{troubles[0][1:]}{more}"
    if not devices:
        return "No device has joined yet: make a key with 'edge enroll key new'"
    most = running.most_common(1)
    what = f", {most[0][0][0]} {most[0][0][1]} runs on {most[0][1]}" if most else ""
    return f"All quiet: {live} of {devices} devices live{what}"
