"""The story: each step does something real and says how one can tell that it happened.

No step decides anything for the fleet: versions are published and rollouts started as an operator
would, and what the server makes of it is read back.
"""

import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from edge_sdk import bundle
from edge_sdk.demo.chronicle import Chronicle
from edge_sdk.demo.stage import EDGE, Stage, wait_for
from edge_sdk.demo.view import Step, View
from edge_sdk.errors import EdgeError, InvalidInputError
from edge_sdk.signing import SigningKey
from fleet_server.cli.places import open_client
from fleet_server.rollout.state import Decision
from fleet_server.views import AlertRow, DeviceRow, Overview, RolloutRow

MODEL = "digits"
PROFILES = ("raspberry-pi-4", "raspberry-pi-zero-2-w", "coral-usb")
SITES = ("north", "south", "east")
SIMULATED = 11
LONE = "porch-12"  # the twelfth device: a process of its own, on a slow link
LONE_PROFILE = "raspberry-pi-zero-2-w"
DRIFT_SITE = "north"
WINDOW = 1.0
PAST = 16.0  # a device's own past, a day elsewhere

TITLES = {
    "doctor": "Is this machine ready?",
    "train": "Train models on 1,797 real scanned digits",
    "convert": "Convert v1 for three boards, four recipes each",
    "fleet": "Start a server and twelve agents",
    "v1": "Roll out v1 to everyone",
    "v2 canary": "Roll out v2 by canary",
    "drift": f"A sensor drifts at {DRIFT_SITE} while v2 widens",
    "v3": "Roll out v3, calibrated on the pictures of one night",
    "power cut": "Cut the power of a device in the middle of a download",
    "tampered": "Tamper with a bundle",
}
GOOD_V3_TITLE = "Roll out v3, well calibrated"


class Story:
    """Runs the steps one after the other; stops at the first that did not happen."""

    def __init__(self, stage: Stage, good_v3: bool) -> None:  # noqa: FBT001 - one caller
        self.stage = stage
        self.good_v3 = good_v3
        titles = {**TITLES, "v3": GOOD_V3_TITLE} if good_v3 else TITLES
        self.steps = [Step(name, title) for name, title in titles.items()]
        self.chronicle: Chronicle | None = None
        self.conversion: Mapping[str, Any] = {}
        self.login = ""
        self._acts: dict[str, Callable[[], str]] = {
            "doctor": self._doctor,
            "train": self._train,
            "convert": self._convert,
            "fleet": self._fleet,
            "v1": self._v1,
            "v2 canary": self._v2_canary,
            "drift": self._drift,
            "v3": self._v3,
            "power cut": self._power_cut,
            "tampered": self._tampered,
        }

    @property
    def ok(self) -> bool:
        """Whether every step really happened."""
        return all(step.ok for step in self.steps)

    def tell(self, view: View) -> None:
        """Run the story; a step that fails ends it, with the reason as its evidence."""
        self._view = view
        for step in self.steps:
            view.begin(step)
            begun = time.monotonic()
            if self.chronicle:
                self.chronicle.mark(step.name)
            try:
                step.evidence = self._acts[step.name]()
                step.ok = True
            except EdgeError as error:
                step.evidence = str(error)
                step.ok = False
            step.seconds = time.monotonic() - begun
            view.end(step)
            if not step.ok:
                return

    # --- the laptop -----------------------------------------------------------------------------

    def _doctor(self) -> str:
        found = self.stage.ask([*EDGE, "doctor", "--json"], 30)
        return ", ".join(c["found"] for c in found["checks"] if c["name"] in ("python", "machine"))

    def _train(self) -> str:
        from edge_sdk.demo.digits import MODELS

        command = [EDGE[0], "-m", "edge_sdk.demo.digits", str(self._digits)]
        self.stage.start("train", command)
        self.stage.finish("train", 120)
        return f"{len(MODELS)} networks of 21,546 weights trained"

    def _convert(self) -> str:
        self.conversion = self.stage.ask(
            self._conversion("v1", "1", "--train", str(self._digits / "train.npz"), "--json"), 150
        )
        chosen = {p["profile"]: p["chosen"] for p in self.conversion["profiles"] if p["chosen"]}
        if set(chosen) != set(PROFILES):
            raise EdgeError(f"bundles came out for {', '.join(chosen) or 'no board'} only")
        return "; ".join(f"{profile}: {recipe}" for profile, recipe in chosen.items())

    def _conversion(self, source: str, version: str, *more: str) -> list[str]:
        profiles = [word for p in PROFILES for word in ("--profile", p)]
        return [
            *EDGE, "convert", str(self._digits / f"{source}.keras"), *profiles,
            "--data", str(self._digits / "data.npz"), "--out", str(self._bundles),
            "--name", MODEL, "--version", version, "--scale", str(1 / 16), *more,
        ]  # fmt: skip

    def _convert_beside(self, source: str, version: str, *more: str) -> None:
        """Begin a conversion that the story needs later."""
        self.stage.start(
            f"convert-{version}", self._conversion(source, version, "--recipe", "int8", *more)
        )

    # --- the fleet ------------------------------------------------------------------------------

    def _fleet(self) -> str:
        data = self.stage.folder / "server"
        self.stage.start(
            "server",
            [
                *EDGE,
                "server",
                "run",
                "--data-dir",
                str(data),
                "--port",
                "0",
                "--mqtt-port",
                "0",
                "--drift-past",
                str(PAST),
            ],
        )
        wait_for("the server", lambda: self._alive("server", data / "server.json"), 30)
        self.client = open_client(None, data)
        self.login = self.client.new_login_link()
        self.chronicle = Chronicle(open_client(None, data), self._view.fleet)
        token = self.client.new_enrolment_key(uses=SIMULATED + 1, hours=1, note="demo").token
        self._simulate(token)
        self._start_lone(token)
        self._convert_beside("v2", "2")
        found = wait_for("twelve devices", lambda: self._enrolled(SIMULATED + 1), 60)
        return f"{len(found)} devices enrolled at {', '.join(SITES)}"

    def _simulate(self, token: str) -> None:
        command = [
            *EDGE, "simulate", "--devices", str(SIMULATED), "--server", self.client.url,
            "--data", str(self._digits / "field.npz"), "--sites", ",".join(SITES),
            "--profiles", ",".join(PROFILES), "--state-dir", str(self.stage.folder / "devices"),
            "--faults", str(self._faults), "--window", str(WINDOW),
        ]  # fmt: skip
        self.stage.start("simulate", command, EDGE_ENROL_TOKEN=token)

    def _start_lone(self, token: str = "") -> None:
        config = self.stage.folder / "porch.toml"
        config.write_text(
            f"""\
[device]
id = "{LONE}"
profile = "{LONE_PROFILE}"
labels = {{ site = "{SITES[-1]}" }}

[link]
server = "{self.client.url}"
rate_limit_bytes = 8000

[input]
source = "npz:{self._digits / "field.npz"}?seed=12"
rows_per_second = 100

[telemetry]
window_seconds = {WINDOW}

[state]
dir = "{self._lone_state}"
"""
        )
        environment = {"EDGE_ENROL_TOKEN": token} if token else {}
        self.stage.start("porch", [*EDGE, "agent", "run", "--config", str(config)], **environment)

    # --- the rollouts ---------------------------------------------------------------------------

    def _v1(self) -> str:
        self._publish("1")
        rollout = self._ended(self._roll_out("1", "all-at-once"), 60)
        self._expect(rollout, "promoted")
        self._everyone_runs("1", 30)
        return rollout.reason

    def _v2_canary(self) -> str:
        self._finish_conversion("2")
        self._publish("2")
        self._v2 = self._roll_out("2", "staged")
        calibration = [] if self.good_v3 else [
            "--calibration", str(self._digits / "night.npz"),
            "--max-drop", "0.5", "--max-class-drop", "1",
        ]  # fmt: skip
        self._convert_beside("v3", "3", *calibration)
        wait_for("the canaries to pass", lambda: self._in_phase(self._v2, 2), 90)
        story = self.client.rollout(self._v2)
        decisions = [msgspec.json.decode(d.decision, type=Decision) for d in story.decisions]
        [widened] = [d for d in decisions if d.action == "widen" and d.evidence]
        return f"{story.rollout.phases[1].devices} canaries passed: {widened.reason}"

    def _drift(self) -> str:
        self._faults.write_text(f'[[fault]]\nsite = "{DRIFT_SITE}"\ngain = 0.5\n')
        blamed = wait_for("an alert about the site", self._site_alert, 60)
        rollout = self._ended(self._v2, 90)
        self._expect(rollout, "promoted")
        self._everyone_runs("2", 30)
        alerts = self._look().alerts
        if len(alerts) != 1:
            raise EdgeError(f"{len(alerts)} alerts for one cause: {[a.title for a in alerts]}")
        [alert] = alerts
        if alert.kind != "data drift" or alert.id != blamed.id:
            raise EdgeError(f"the alert became another one: {alert.kind}, {alert.title}")
        return f"one alert, no rollback ({rollout.reason}): {alert.title}; {alert.detail}"

    def _site_alert(self) -> AlertRow | None:
        scope = f"{MODEL} site={DRIFT_SITE}"
        return next((alert for alert in self._look().alerts if alert.scope == scope), None)

    def _v3(self) -> str:
        self._finish_conversion("3")
        self._publish("3")
        rollout_id = self._roll_out("3", "canary")
        self._convert_beside("v4", "4")
        rollout = self._ended(rollout_id, 90)
        if self.good_v3:
            self._expect(rollout, "promoted")
            self._everyone_runs("3", 30)
            return f"promoted: {rollout.reason}"
        self._expect(rollout, "rolled back")
        if "fail" not in {gate.verdict for gate in rollout.gates}:
            raise EdgeError(f"v3 went back, but not for its answers: {rollout.reason}")
        tried = self.chronicle.ran("3") if self.chronicle else set()
        if not tried:
            raise EdgeError("v3 was rolled back although it never ran anywhere")
        self._everyone_runs("2", 30)
        return f"ran on {len(tried)} canaries, then rolled back by itself: {rollout.reason}"

    def _power_cut(self) -> str:
        self._finish_conversion("4")
        self._publish("4")
        rollout_id = self._roll_out("4", "all-at-once")
        length = next(
            b.length for b in self._look().versions if (b.version, b.profile) == ("4", LONE_PROFILE)
        )
        cut_at = wait_for("a download under way", lambda: self._part_way(length), 30, every=0.02)
        self.stage.kill("porch")
        self._view.note(f"{LONE} killed at {cut_at:,} of {length:,} bytes; it starts again")
        self._start_lone()
        rollout = self._ended(rollout_id, 60)
        self._expect(rollout, "promoted")
        self._everyone_runs("4", 30)
        resumed = next(d.resumed_at for d in self._look().devices if d.id == LONE)
        if not 0 < resumed < length:
            raise EdgeError(f"{LONE} runs v4 but did not resume (it went on at byte {resumed})")
        return f"killed at {cut_at:,} of {length:,} bytes, went on at {resumed:,}, runs v4"

    def _tampered(self) -> str:
        return f"{self._tampered_on_the_way()}; {self._tampered_on_the_server()}"

    def _tampered_on_the_way(self) -> str:
        whole = next(self._bundles.glob(f"{MODEL}-4-*.edge")).read_bytes()
        bent = self.stage.folder / "tampered.edge"
        bent.write_bytes(_flip(whole))
        code, _, words = self.stage.run(
            [*EDGE, "publish", str(bent), "--data-dir", str(self.stage.folder / "server")], 30
        )
        if code != 3:  # a server that is away refuses nothing
            raise EdgeError(f"publishing a tampered bundle ended with exit code {code}")
        return f"the server refused it ({words.strip().splitlines()[-1].removeprefix('edge: ')})"

    def _tampered_on_the_server(self) -> str:
        """v5 is v4 under another number; the server's own file of it is changed behind its back."""
        key = SigningKey.load(self.stage.folder / "config" / "edge" / "signing.key")
        for path in sorted(self._bundles.glob(f"{MODEL}-4-*.edge")):
            old = bundle.unpack(path.read_bytes(), [key.public])
            manifest = msgspec.structs.replace(old.manifest, version="5")
            data = bundle.pack(manifest, old.members, key)
            name = bundle.file_name(MODEL, "5", manifest.profile)
            (self._bundles / name).write_bytes(data)
        self._publish("5")
        for row in self._look().versions:
            if row.version == "5":
                stored = self.stage.folder / "server" / "bundles" / f"{row.digest}.edge"
                stored.write_bytes(_flip(stored.read_bytes()))
        rollout = self._ended(self._roll_out("5", "all-at-once"), 60)
        self._expect(rollout, "rolled back")
        if "SHA-256" not in rollout.reason:
            raise EdgeError(f"v5 went back, but not for its bytes: {rollout.reason}")
        self._everyone_runs("4", 30)
        return f"the devices refused it ({rollout.reason}) and all still run v4"

    # --- small words ----------------------------------------------------------------------------

    @property
    def _digits(self) -> Path:
        return self.stage.folder / "digits"

    @property
    def _bundles(self) -> Path:
        return self.stage.folder / "bundles"

    @property
    def _faults(self) -> Path:
        return self.stage.folder / "faults.toml"

    @property
    def _lone_state(self) -> Path:
        return self.stage.folder / "devices" / LONE

    def _look(self) -> Overview:
        for name in ("server", "simulate"):
            if not self.stage.alive(name):
                raise EdgeError(f"{name} has ended: {self.stage.tail(name)}")
        return self.client.overview()

    def _alive(self, name: str, file: Path) -> bool | None:
        if not self.stage.alive(name):
            raise EdgeError(f"{name} has ended: {self.stage.tail(name)}")
        return True if file.exists() else None

    def _enrolled(self, count: int) -> tuple[DeviceRow, ...] | None:
        devices = self._look().devices
        return devices if len(devices) >= count else None

    def _finish_conversion(self, version: str) -> None:
        self._view.note(f"waiting for the conversion of v{version}")
        self.stage.finish(f"convert-{version}", 90)

    def _publish(self, version: str) -> None:
        for path in sorted(self._bundles.glob(f"{MODEL}-{version}-*.edge")):
            self.client.publish(path.read_bytes())

    def _roll_out(self, version: str, strategy: str) -> str:
        return self.client.create_rollout(MODEL, version, {"name": strategy})

    def _rollout(self, rollout_id: str) -> RolloutRow:
        return next(r for r in self._look().rollouts if r.id == rollout_id)

    def _in_phase(self, rollout_id: str, index: int) -> bool | None:
        row = self._rollout(rollout_id)
        if row.status != "running":
            raise EdgeError(f"rollout {rollout_id} is {row.status}: {row.reason}")
        return True if row.phases[index].state == "now" else None

    def _ended(self, rollout_id: str, timeout: float) -> RolloutRow:
        def look() -> RolloutRow | None:
            row = self._rollout(rollout_id)
            return None if row.status == "running" else row

        return wait_for(f"rollout {rollout_id} to end", look, timeout)

    def _expect(self, rollout: RolloutRow, status: str) -> None:
        if rollout.status != status:
            raise EdgeError(
                f"rollout of v{rollout.version} is {rollout.status}, not {status}: {rollout.reason}"
            )

    def _everyone_runs(self, version: str, timeout: float) -> None:
        def look() -> bool | None:
            standing = {(d.running, d.phase) for d in self._look().devices}
            return True if standing == {(version, "confirmed")} else None

        wait_for(f"every device to report v{version} confirmed", look, timeout)

    def _part_way(self, length: int) -> int | None:
        for part in self._lone_state.rglob("*.part"):
            size = part.stat().st_size
            if length * 0.2 < size < length * 0.9:
                return size
        return None


def _flip(data: bytes) -> bytes:
    """One bit changed, in the middle of the file."""
    changed = bytearray(data)
    changed[len(changed) // 2] ^= 1
    return bytes(changed)


def prepare(folder: Path) -> None:
    """An empty folder for the demo; only what an earlier demo left there goes.

    Raises:
        InvalidInputError: the folder holds something else.
    """
    mark = folder / ".edge-demo"
    if folder.exists() and not mark.exists() and any(folder.iterdir()):
        raise InvalidInputError(f"{folder} is not empty and not from a demo: give another --out")
    if mark.exists():
        shutil.rmtree(folder)
    (folder / "digits").mkdir(parents=True)
    (folder / "bundles").mkdir()
    mark.touch()
