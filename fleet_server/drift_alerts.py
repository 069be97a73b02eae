"""From findings to alerts: one cause is opened once, kept up to date, closed when it is gone."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import get_args

import msgspec

from edge_sdk.formats import to_json
from fleet_server.decay import DAY, Finding, Kind, Place, Taken, Watch, findings
from fleet_server.records import AlertRecord, BundleRecord, DeviceRecord
from fleet_server.store import Store
from fleet_server.views import AlertRow

KINDS = get_args(Kind)
GONE_AFTER = 10  # looks in a row without the finding


class DriftAlerts:
    """Follows the stored windows of every model and keeps the alerts about them."""

    def __init__(self, store: Store, past_seconds: float = DAY) -> None:
        self._store = store
        self._past_seconds = past_seconds
        self._watches: dict[str, Watch] = {}
        self._read_to = 0
        self._missing: dict[tuple[str, str], int] = {}
        self._drifting: dict[str, tuple[str, ...]] = {}

    @property
    def drifting(self) -> Mapping[str, tuple[str, ...]]:
        """Device to the input channels that moved there, as last looked at."""
        return self._drifting

    def look(
        self, devices: Iterable[DeviceRecord], bundles: Sequence[BundleRecord], now: float
    ) -> bool:
        """Take in what arrived since the last look; returns whether an alert changed."""
        if not self._take_in({b.digest: b for b in bundles}):
            return False
        fleet = list(devices)
        changed = False
        drifting: dict[str, tuple[str, ...]] = {}
        for model, watch in self._watches.items():
            members = [d for d in fleet if d.running_model == model]
            states = watch.states(
                [Place(d.id, d.labels.get("site", ""), d.profile) for d in members]
            )
            drifting.update(
                {s.device: tuple(m.channel for m in s.moved) for s in states if s.alarmed}
            )
            changed |= self._settle(model, findings(states), now)
        self._drifting = drifting
        return changed

    def _take_in(self, bundles: dict[str, BundleRecord]) -> bool:
        before = self._read_to
        for stored in self._store.window_bodies(self._read_to):
            self._read_to = stored.id
            window = stored.window
            bundle = bundles.get(window.digest)
            if bundle is not None and bundle.edges_id == window.edges_id:
                watch = self._watches.setdefault(window.model, Watch(self._past_seconds))
                budget = bundle.manifest.latency_budget_ms
                watch.add(Taken(stored.device, stored.at, window, bundle.baseline, budget))
        return self._read_to > before

    def _settle(self, model: str, found: Sequence[Finding], now: float) -> bool:
        """Open, update or close the model's alerts so that they say what was found."""
        known = {
            (alert.kind, alert.scope): alert
            for alert in self._store.alerts()
            if alert.kind in KINDS and alert.state != "closed"
        }
        changed = False
        for finding in found:
            scope = f"{model} {finding.scope}"
            key: tuple[str, str] = (finding.kind, scope)
            self._missing.pop(key, None)
            changed |= self._keep(scope, finding, known.get(key), now)
        here = {(finding.kind, f"{model} {finding.scope}") for finding in found}
        for key, alert in known.items():
            scope = alert.scope
            if key in here or not scope.startswith(f"{model} "):
                continue
            self._missing[key] = self._missing.get(key, 0) + 1
            if self._missing[key] >= GONE_AFTER:
                del self._missing[key]
                self._store.save_alert(
                    msgspec.structs.replace(alert, state="closed", updated_at=now, closed_at=now)
                )
                self._store.add_event(now, "decay", "alert closed", scope)
                changed = True
        return changed

    def _keep(self, scope: str, finding: Finding, known: AlertRecord | None, now: float) -> bool:
        opened = known.opened_at if known else now
        alert_id = known.id if known else _alert_id(f"{finding.kind} {scope}", now)
        row = AlertRow(
            id=alert_id,
            state=known.state if known else "open",
            severity=finding.severity,
            kind=finding.kind,
            scope=scope,
            title=finding.title,
            detail=finding.detail,
            opened_at=opened,
            devices=len(finding.devices),
        )
        document = to_json(row)
        if known and known.document == document:
            return False
        self._store.save_alert(
            AlertRecord(
                id=alert_id,
                state=row.state,
                scope=scope,
                kind=finding.kind,
                document=document,
                opened_at=opened,
                updated_at=now,
            )
        )
        if known is None:
            self._store.add_event(now, "decay", "alert opened", finding.title)
        return True


def _alert_id(scope: str, now: float) -> str:
    return "a" + hashlib.sha256(f"{scope}/{now}".encode()).hexdigest()[:6]
