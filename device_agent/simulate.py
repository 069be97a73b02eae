"""A fleet in one process: real agents, each with its own identity, profile, site, input and link.

Everything that differs between devices is drawn from the seed, so a run can be repeated.
"""

import random
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path

import msgspec

from device_agent.agent import Agent, MakeLink, Setup, Standing
from device_agent.config import (
    AgentConfig,
    DeviceConfig,
    InputConfig,
    LinkConfig,
    StateConfig,
    TelemetryConfig,
)
from device_agent.link import Address, LinkEvent, MqttLink
from device_agent.selftest import in_this_process
from device_agent.sources import FaultWatch, NpzReplay, Paced, read_rows
from device_agent.uplink import Clock
from edge_sdk.identity import Token
from edge_sdk.profiles import load_profile
from edge_sdk.tracing import Tracer


class Quality(msgspec.Struct, frozen=True):
    """A kind of network.

    Attributes:
        rate: bytes a second of a download; 0 is unlimited.
        delay: longest wait before the first connection, seconds.
        lasts: mean seconds between two dropped connections; 0 is never.
    """

    name: str
    rate: int
    delay: float
    lasts: float


QUALITIES = (
    Quality("good", 0, 0.2, 0),
    Quality("medium", 250_000, 1.0, 300),
    Quality("slow", 40_000, 2.0, 90),
)


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What to simulate; see `edge simulate --help`."""

    devices: int
    server: str
    data: Path
    sites: Sequence[str]
    profiles: Sequence[str]
    state_dir: Path
    faults: Path | None
    rows_per_second: float
    window_seconds: float
    seed: int
    name_prefix: str


class FlakyLink(MqttLink):
    """A link of some quality: late to connect, and cut now and then."""

    def __init__(
        self,
        address: Address,
        post: Callable[[LinkEvent], None],
        chance: random.Random,
        *,
        quality: Quality,
        fate: random.Random,
    ) -> None:
        super().__init__(address, post, chance)
        self._quality, self._fate = quality, fate
        self._timer = threading.Timer(fate.uniform(0, quality.delay), self._connect)
        self._timer.daemon = True

    def start(self) -> None:
        """Connect after this link's delay."""
        self._timer.start()

    def stop(self) -> None:
        """Disconnect for good."""
        self._timer.cancel()
        super().stop()

    def _connect(self) -> None:
        super().start()
        self._plan_cut()

    def _cut(self) -> None:
        self.drop()
        self._plan_cut()

    def _plan_cut(self) -> None:
        if self._quality.lasts:
            self._timer = threading.Timer(
                self._fate.expovariate(1 / self._quality.lasts), self._cut
            )
            self._timer.daemon = True
            self._timer.start()


def build(
    plan: Plan,
    clock: Clock,
    token: Callable[[], Token],
    trouble: Callable[[str], None],
    tracer: Tracer | None = None,
) -> dict[str, Agent]:
    """The agents by device id, not yet running; they share a `tracer`.

    Raises:
        InvalidInputError: unknown profile, or data that can't be read.
    """
    profiles = [load_profile(name) for name in plan.profiles]
    rows, agents = read_rows(plan.data), {}
    for index in range(plan.devices):
        name = f"{plan.name_prefix}-{index + 1:0{max(2, len(str(plan.devices)))}d}"
        fate = random.Random(f"{plan.seed}/{name}")  # noqa: S311 - a simulation
        site = plan.sites[index % len(plan.sites)]
        # profiles turn slower than sites, so that neither can be mistaken for the other
        profile = profiles[index // len(plan.sites) % len(profiles)]
        quality = fate.choice(QUALITIES)
        seed = fate.getrandbits(32)
        config = AgentConfig(
            device=DeviceConfig(
                id=name, profile=profile.name, labels={"site": site, "link": quality.name}
            ),
            link=LinkConfig(server=plan.server, rate_limit_bytes=quality.rate),
            input=InputConfig(
                source=f"npz:{plan.data}?seed={seed}", rows_per_second=plan.rows_per_second
            ),
            telemetry=TelemetryConfig(window_seconds=plan.window_seconds),
            state=StateConfig(dir=plan.state_dir / name),
        )
        source = NpzReplay(rows, seed)
        if plan.faults is not None:
            watch = FaultWatch(plan.faults, site, clock.monotonic, trouble)
            source = NpzReplay(rows, seed, watch.current)
        agents[name] = Agent(
            Setup(
                config=config,
                profile=profile,
                source=Paced(source, plan.rows_per_second, clock.monotonic),
                clock=clock,
                token=token,
                make_link=_links(quality, fate),
                trial=in_this_process,
                tracer=tracer,
            )
        )
    return agents


def run(
    agents: dict[str, Agent], stop: threading.Event, watch: Callable[[list[Standing]], None]
) -> None:
    """Run all until `stop`; the first error of any one stops them all and is raised.

    `watch` is called now and then with how they stand.
    """
    with ThreadPoolExecutor(len(agents), "agent-") as threads:
        futures = [threads.submit(agent.run, stop) for agent in agents.values()]
        try:
            while not stop.is_set():
                done, _ = wait(futures, timeout=1.0, return_when=FIRST_EXCEPTION)
                if any(future.exception() for future in done):
                    break
                watch([agent.standing for agent in agents.values()])
        finally:
            stop.set()
    for future in futures:
        future.result()


def _links(quality: Quality, fate: random.Random) -> MakeLink:
    def make(
        address: Address, post: Callable[[LinkEvent], None], chance: random.Random
    ) -> FlakyLink:
        return FlakyLink(address, post, chance, quality=quality, fate=fate)

    return make
