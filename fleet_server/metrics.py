"""What Prometheus reads: the ingest counted as it goes, the fleet counted when asked."""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from fleet_server.fleet import alert_row
from fleet_server.store import Store

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Meters:
    """One server's figures; names and labels are few, however large the fleet."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.stored = Counter(
            "edge_ingest_messages", "Messages committed, duplicates too", registry=self._registry
        )
        self.failed = Counter(
            "edge_ingest_failures", "Messages that could not be stored", registry=self._registry
        )
        self.waiting = Gauge(
            "edge_ingest_waiting", "Messages that wait for a commit", registry=self._registry
        )
        self.online = Gauge(
            "edge_devices_online", "Devices connected to the own endpoint", registry=self._registry
        )
        self.commit_seconds = Histogram(
            "edge_ingest_commit_seconds",
            "How long a batch takes until it is on the disk",
            buckets=_SECONDS,
            registry=self._registry,
        )

    def watch(self, store: Store) -> None:
        """Also tell what the database counts."""
        self._registry.register(_Fleet(store))

    def text(self) -> bytes:
        return generate_latest(self._registry)


class _Fleet(Collector):
    def __init__(self, store: Store) -> None:
        self._store = store

    def describe(self) -> Iterable[Metric]:
        return ()  # else registering would ask the database

    def collect(self) -> Iterable[Metric]:
        counts = self._store.counts()
        families = {
            "edge_devices": ("Enrolled devices by the phase of their last order", "phase"),
            "edge_running": ("Devices by the version they report to run", "version"),
            "edge_rollouts": ("Rollouts by status", "status"),
            "edge_alerts": ("Alerts by state", "state"),
        }
        for name, (help_text, label) in families.items():
            family = GaugeMetricFamily(name, help_text, labels=[label])
            for value, count in counts[name].items():
                family.add_metric([value], count)
            yield family
        yield from self._alerts()
        yield GaugeMetricFamily(
            "edge_poison", "Messages set aside, the newest thousand", value=counts["poison"]["all"]
        )

    def _alerts(self) -> Iterable[Metric]:
        """What is open, for alerting rules: a series an alert, not a device."""
        labels = ["id", "model", "kind", "scope", "severity", "state"]
        devices = GaugeMetricFamily("edge_alert_devices", "Devices of an open alert", labels=labels)
        loss = GaugeMetricFamily(
            "edge_alert_loss", "Estimated loss of accuracy of an open alert, 0..1", labels=labels
        )
        for row in map(alert_row, self._store.open_alerts()):
            model, _, scope = row.scope.partition(" ")
            values = [row.id, model, row.kind, scope, row.severity, row.state]
            devices.add_metric(values, row.devices)
            if row.loss is not None:
                loss.add_metric(values, row.loss)
        yield from (devices, loss)
