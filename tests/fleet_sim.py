"""A fleet in memory and fake time around the real store, registry and controller.

Devices are a few lines: they take the signed order they are sent, report, and send a window a
second whose confidence depends on the version they run and on what happens at their site.
"""

import numpy as np
from msgspec.structs import replace

from edge_sdk import messages
from edge_sdk.bundle import unpack
from edge_sdk.channels import CONFIDENCE, LATENCY, LEAD
from edge_sdk.formats import to_msgpack
from edge_sdk.sketch import sketch
from fleet_server.controller import Controller
from fleet_server.evidence.measures import measures
from fleet_server.planning import Wish
from fleet_server.records import DeviceRecord, NewWindow
from fleet_server.registry import Registry
from fleet_server.rollout.state import Order
from fleet_server.store import Store
from tests.bundles import make_bundle
from tests.server_side import founded

START = 1_800_000_000.0
SITES = ("north", "south", "east")
ROWS = 60
PAST = 16.0  # seconds, each of which has a window


class SimDevice:
    """One device; `offline` sends nothing and hears nothing, `refuses` never installs."""

    def __init__(self, name, site):
        self.name, self.site = name, site
        self.running = None
        self.beside = None  # (version, role)
        self.generations = []
        self.history = []
        self.offline = False
        self.refuses = frozenset()
        self.seq = 0


class FleetSim:
    """`confidence` gives a version's level; `drift` a site's (gain, confidence change)."""

    def __init__(self, folder, database, devices=12, seed=0):
        self.folder = folder
        self.now = START
        self.random = np.random.default_rng(seed)
        self.key, self.keyring, repository = founded(folder)
        self.store = Store(database)
        self.registry = Registry(self.store, folder / "bundles", [self.key.public], repository)
        self.confidence = {}
        self.agreement = {}  # of a shadow with what answers
        self.errors = {}  # share of inferences that raise, by version
        self.drift = {}
        self.bundles = {}
        self.devices = {}
        self.inbox = {}
        for i in range(devices):
            self.join(f"d{i:02}", SITES[i % len(SITES)])
        self.start_controller()

    def start_controller(self):
        """A new controller on the same database: what a restart of the server is."""
        self.controller = Controller(
            self.store, self.keyring.director, self.deliver, drift_past=PAST
        )

    def join(self, name, site, profile="raspberry-pi-4"):
        self.devices[name] = SimDevice(name, site)
        record = DeviceRecord(
            id=name, public="0" * 64, profile=profile, labels={"site": site}, enrolled_at=self.now
        )
        self.store.add_device(record)

    def publish(self, version, confidence=0.9, **bundle):
        data = make_bundle(self.key, version=version, **bundle)
        self.registry.publish(data, self.now)
        self.bundles[version] = unpack(data, [self.key.public])
        self.confidence[version] = confidence

    def roll_out(self, version, name="canary"):
        return self.wish(version, {"name": name})

    def wish(self, version, strategy, **more):
        wish = Wish(model="digits", version=version, strategy=strategy, by="ann", **more)
        return self.controller.create(wish, self.now)

    def plan(self, version, strategy):
        wish = Wish(model="digits", version=version, strategy=strategy, by="ann")
        return self.controller.plan(wish, self.now)

    def store_reason(self, rollout):
        return self.controller.read(self.store.rollout(rollout)).reason

    def stood(self, rollout):
        return self.store.standings(rollout)

    def tell(self, rollout, command, by="ann"):
        self.controller.command(rollout, Order(command=command, by=by, at=self.now))

    def deliver(self, device, envelope):
        self.inbox[device] = envelope

    def run(self, seconds):
        for _ in range(seconds):
            self.now += 1.0
            with self.store.transaction():
                for device in self.devices.values():
                    if not device.offline:
                        self._live(device)
            self.controller.tick(self.now)

    def run_until_ended(self, rollout, seconds=200):
        for _ in range(seconds):
            self.run(1)
            if self.status(rollout) != "running":
                return self.status(rollout)
        return self.status(rollout)

    def status(self, rollout):
        return self.store.rollout(rollout).status

    def running(self):
        return {d.name: d.running for d in self.devices.values()}

    def alerts(self):
        return [a for a in self.store.open_alerts() if a.state == "open"]

    def _live(self, device):
        envelope = self.inbox.pop(device.name, None)
        if envelope:
            self._take(device, envelope)
        record = self.store.device(device.name)
        if device.running:
            self.store.add_windows([self._window(device)])
        self.store.seen({device.name: self.now}, {device.name: ROWS})
        assert record is not None

    def _take(self, device, envelope):
        director = self.keyring.director.public
        order = messages.open_assignment(envelope, device.name, director)
        device.generations.append(order.generation)
        device.beside, phase, reason = None, "confirmed", ""
        if order.version in device.refuses:
            phase, reason = "refused", "the self-test failed"
        elif order.role != "serve":
            device.beside, phase = (order.version, order.role), order.role
        else:
            device.running = order.version
        found = self.store.device(device.name)
        beside = self.bundles[order.version].digest if device.beside else ""
        bundle = self.bundles.get(device.running)
        device.seq += 1
        after = replace(
            found,
            boot="b",
            report_seq=device.seq,
            running_model="digits" if bundle else "",
            running_version=device.running or "",
            running_digest=bundle.digest if bundle else "",
            beside_digest=beside,
            phase=phase,
            reason=reason,
            generation=order.generation,
        )
        self.store.save_report(after)
        device.history.append((self.now, order.version, order.role, phase))

    def _window(self, device):
        device.seq += 1
        bundle = self.bundles[device.running]
        gain, change = self.drift.get(device.site, (1.0, 0.0))
        level = self.confidence[device.running] + change
        baseline = bundle.baseline
        usual = baseline.channels["input.brightness"]
        values = {
            "output.confidence": np.clip(self.random.normal(level, 0.08, ROWS), 0, 1),
            "input.brightness": gain * self.random.normal(usual.mean, usual.sd, ROWS),
        }
        channels = {n: sketch(baseline.channels[n], v) for n, v in values.items()}
        errors = int(self.random.binomial(ROWS, self.errors.get(device.running, 0.0)))
        window = messages.Window(
            model="digits",
            version=device.running,
            digest=bundle.digest,
            edges_id=baseline.edges_id,
            seconds=1.0,
            rows=ROWS,
            errors=errors,
            channels=channels,
            rss_bytes=50_000_000,
            comparison=self._comparison(device),
        )
        confidence = channels["output.confidence"]
        return NewWindow(
            device=device.name,
            boot="b",
            seq=device.seq,
            received_at=self.now,
            wall=self.now,
            model="digits",
            version=device.running,
            digest=bundle.digest,
            edges_id=baseline.edges_id,
            seconds=1.0,
            rows=ROWS,
            errors=errors,
            skew=0,
            confidence_mean=confidence.mean,
            confidence_rows=confidence.rows,
            latency_mean=float(self.random.lognormal(0, 0.1)),
            body=to_msgpack(window),
            measures=measures(window),
        )

    def _comparison(self, device):
        """What a shadow that agrees as often as told, with its own confidence, would show."""
        if not device.beside or device.beside[1] != "shadow":
            return None
        version = device.beside[0]
        lead = self.random.normal(
            self.confidence[version] - self.confidence[device.running], 0.05, ROWS
        )
        side = messages.Side(sketch(CONFIDENCE, np.full(ROWS, 0.9)), sketch(LATENCY, np.ones(ROWS)))
        return messages.Comparison(
            model="digits",
            version=version,
            digest=self.bundles[version].digest,
            rows=ROWS,
            agreed=int(self.random.binomial(ROWS, self.agreement.get(version, 0.98))),
            primary=side,
            shadow=side,
            lead=sketch(LEAD, lead),
        )
