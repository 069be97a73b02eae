"""From stored windows to alerts: the shell around `decay` and `alert_life`.

One cause is opened once, kept up to date, and closed when it is gone. What is known of each device
is saved now and then, with how far was read, so a restart goes on where the server stopped.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import get_args

import msgspec

from edge_sdk.errors import FormatError
from fleet_server import alert_life as life
from fleet_server.decay import DAY, Finding, Kind, Place, State, Taken, Watch, findings
from fleet_server.decay.causes import FROM_LABELS
from fleet_server.decay.keeping import pack, unpack
from fleet_server.decay.layout import Group
from fleet_server.fleet import alert_record, alert_row
from fleet_server.records import BundleRecord, DeviceRecord
from fleet_server.samples import KEPT_SECONDS
from fleet_server.store import Store
from fleet_server.truth import told_by_labels
from fleet_server.views import AlertRow

log = logging.getLogger("fleet_server.drift")

Tails = dict[Group, list[float]]
KINDS = get_args(Kind)
SAVE_SECONDS = 3600.0
JUDGED_A_SECOND = 1000  # devices; more would keep the ingest from writing
MOST_AT_ONCE = 1000  # windows a look: whoever catches up after an outage may not stop the ingest
LABEL_SECONDS = 60.0  # between looks at labels
LABELS_FOR = 90 * DAY  # how far back they are looked at


class DriftAlerts:
    """Follows the stored windows of every model and keeps the alerts about them.

    Args:
        past_seconds: how long a device's own past lasts.
    """

    def __init__(self, store: Store, past_seconds: float = DAY) -> None:
        self._store = store
        self._past_seconds = past_seconds
        self._watches: dict[str, Watch] = {}
        self._states: dict[str, list[State]] = {}
        self._missing: dict[str, int] = {}
        self._unjudged, self._judge_at = False, 0.0
        self._told_by_labels: dict[str, list[Finding]] = {}
        self._labelled: dict[str, float] = {}
        self._labels_due = 0.0
        self._saved_at: float | None = None
        self._read_to = store.read_to()
        for model, device, body in store.pasts():
            self._restore(model, device, body)
        for model, body in store.tails().items():
            self._watch(model).restore_tails(msgspec.msgpack.decode(body, type=Tails))

    @property
    def drifting(self) -> Mapping[str, tuple[str, ...]]:
        """Device to the channels that moved there, as last looked at."""
        return {
            s.device: tuple(m.channel for m in s.moved)
            for states in self._states.values()
            for s in states
            if s.alarmed
        }

    def states(self, model: str) -> Sequence[State]:
        """How each device of a model stands against its own past, as last looked at."""
        return self._states.get(model, ())

    def look(
        self, devices: Iterable[DeviceRecord], bundles: Sequence[BundleRecord], now: float
    ) -> bool:
        """Take in what arrived since the last look; returns whether an alert changed.

        A large fleet is judged less often than it is looked at: it takes as long as it is large.
        """
        self._unjudged |= self._take_in({b.digest: b for b in bundles})
        self._unjudged |= self._hear_labels(bundles, now)
        if not self._unjudged or now < self._judge_at:
            return False
        fleet, changed = list(devices), False
        self._unjudged, self._judge_at = False, now + len(fleet) / JUDGED_A_SECOND
        for model in self._told_by_labels.keys() - self._watches.keys():
            changed |= self._settle(model, self._told_by_labels[model], now)
        for model, watch in self._watches.items():
            places = [
                Place(d.id, d.labels.get("site", ""), d.profile)
                for d in fleet
                if d.running_model == model
            ]
            self._states[model] = watch.states(places)
            found = [*findings(self._states[model]), *self._told_by_labels.get(model, ())]
            changed |= self._settle(model, found, now)
        self._save(now)
        return changed

    def rebaseline(self, alert: AlertRow, now: float) -> AlertRow:
        """What the alert's devices look like now is how they shall look: their past starts anew."""
        row = life.rebaselined(alert)
        watch = self._watches.get(alert.scope.partition(" ")[0])
        for device in alert.device_ids:
            if watch is not None:
                watch.rebaseline(device)
        self._store.forget_pasts(alert.device_ids)
        self._store.save_alert(alert_record(row, now))
        self._store.add_event(now, "operator", "alert re-baselined", f"{row.id}: {row.title}")
        return row

    def forget(self, device: str) -> None:
        """Nothing of this device is kept."""
        for model, watch in self._watches.items():
            watch.forget(device)
            known = self._states.get(model, ())
            self._states[model] = [state for state in known if state.device != device]
        self._store.forget_pasts([device])

    def _restore(self, model: str, device: str, body: bytes) -> None:
        try:
            known = unpack(body)
        except FormatError as error:
            log.warning("%s of %s starts a new past: %s", device, model, error)
            return
        self._watch(model).restore(device, known)

    def _watch(self, model: str) -> Watch:
        return self._watches.setdefault(model, Watch(self._past_seconds))

    def _take_in(self, bundles: dict[str, BundleRecord]) -> bool:
        before = self._read_to
        for stored in self._store.window_bodies(self._read_to, MOST_AT_ONCE):
            self._read_to = stored.id
            window = stored.window
            bundle = bundles.get(window.digest)
            if bundle is not None and bundle.edges_id == window.edges_id:
                budget = bundle.manifest.latency_budget_ms
                taken = Taken(stored.device, stored.at, window, bundle.baseline, budget)
                self._watch(window.model).add(taken)
        return self._read_to > before

    def _hear_labels(self, bundles: Sequence[BundleRecord], now: float) -> bool:
        """Look at the labels of models that got some; whether there were any."""
        if now < self._labels_due:
            return False
        self._labels_due = now + LABEL_SECONDS
        newest = self._store.labelled_at()
        fresh = [model for model, at in newest.items() if self._labelled.get(model) != at]
        for model in fresh:
            labels = self._store.labels(model, now - LABELS_FOR)
            places = self._store.whereabouts({label.device for label in labels})
            baselines = {b.version: b.baseline for b in bundles if b.model == model}
            self._told_by_labels[model] = told_by_labels(labels, places, baselines)
        self._labelled = newest
        return bool(fresh)

    def _save(self, now: float) -> None:
        if self._saved_at is not None and now - self._saved_at < SAVE_SECONDS:
            return
        self._saved_at = now
        for model, watch in self._watches.items():
            changed = {name: pack(watch.devices[name]) for name in watch.take_changed()}
            changed[""] = msgspec.msgpack.encode(watch.scores())
            self._store.save_pasts(model, changed, now)
        self._store.save_read_to(self._read_to, now)
        self._store.drop_samples(now - KEPT_SECONDS)

    def _settle(self, model: str, found: Sequence[Finding], now: float) -> bool:
        """Open, update or close the model's alerts so that they say what was found."""
        known = [
            alert_row(alert)
            for alert in self._store.open_alerts()
            if alert.kind in KINDS and alert.scope.startswith(f"{model} ")
        ]
        changed = False
        for finding in found:
            alert = life.about(finding, known)
            if alert is not None:
                known.remove(alert)
                self._missing.pop(alert.id, None)
            changed |= self._keep(model, finding, alert, now)
        for alert in known:
            self._missing[alert.id] = self._missing.get(alert.id, 0) + 1
            if alert.kind in FROM_LABELS or self._missing[alert.id] >= life.GONE_AFTER:
                del self._missing[alert.id]
                self._decide(life.closed(alert), "alert closed", now)
                changed = True
        return changed

    def _keep(self, model: str, finding: Finding, known: AlertRow | None, now: float) -> bool:
        if known is None:
            row = life.opened(model, finding, now)
            self._decide(row, "alert opened", now)
            return True
        row = life.told(known, model, finding, now)
        if row == known:
            return False
        if row.state == "open" and life.worse(row, known):
            self._decide(row, "alert worse", now)
        else:
            self._store.save_alert(alert_record(row, now))
        return True

    def _decide(self, row: AlertRow, what: str, now: float) -> None:
        self._store.decide_alert(alert_record(row, now), "decay", what)
        self._store.add_event(now, "decay", what, f"{row.id}: {row.title}")
