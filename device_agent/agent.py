"""The agent: one thread decides, others only post to its queue.

Memory goes to disk before an action is carried out, and every action may be repeated: power fails
in between. What is decided is in `update`; here it is done.
"""

import logging
import queue
import random
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import msgspec

from device_agent import update
from device_agent.board import Board
from device_agent.by_hand import Stick
from device_agent.certificate import Renewal
from device_agent.config import AgentConfig
from device_agent.enrol import Identity, join
from device_agent.fallback import FallbackLink, HttpLink
from device_agent.hardware import Gauges
from device_agent.inference import Answered, Closed, Inference
from device_agent.link import Address, Arrived, Down, Link, LinkEvent, MqttLink, Up, address_of
from device_agent.local_api import LocalApi
from device_agent.manners import Manners
from device_agent.notify import Watchdog
from device_agent.outputs import Outlets, State
from device_agent.sampler import Consent, Sampler
from device_agent.selftest import Trial, try_apart
from device_agent.sources import Source
from device_agent.store import Store
from device_agent.traces import Traces
from device_agent.transitions import standing, stranded
from device_agent.trusted import Repository
from device_agent.unsaved import Unsaved
from device_agent.update_events import (
    Action,
    Activate,
    Cancel,
    Carried,
    Deferred,
    Event,
    Fetch,
    Notice,
    Offered,
    Restarted,
    RollBack,
    SelfTest,
    ServerContact,
    Shadow,
    Stop,
    Tell,
    WindowClosed,
)
from device_agent.update_states import Beside, Memory, Rules, candidate, confirmed, digests
from device_agent.uplink import Bounds, Clock, Uplink
from device_agent.waiting import Waiting
from device_agent.worker import Done, Noticed, Worker
from edge_sdk import __version__, messages
from edge_sdk.errors import FormatError, UntrustedError
from edge_sdk.identity import Token
from edge_sdk.packing import packed
from edge_sdk.profiles import HardwareProfile
from edge_sdk.tracing import Tracer

TICK = 0.25  # seconds until a stop is noticed
WATCHDOG_EVERY = 30.0
log = logging.getLogger("edge.agent")


class _Crashed(msgspec.Struct, frozen=True):
    """A thread was ended by a bug; the agent ends with it."""

    error: BaseException


_Item = LinkEvent | Closed | Done | Noticed | _Crashed
MakeLink = Callable[[Address, Callable[[LinkEvent], None], random.Random], Link]


class Setup(msgspec.Struct, frozen=True, kw_only=True):
    """What the edge hands in; `token` is asked for only at the first enrolment."""

    config: AgentConfig
    profile: HardwareProfile
    source: Source
    clock: Clock
    token: Callable[[], Token]
    make_link: MakeLink = MqttLink
    trial: Trial = try_apart
    board: Board | None = None
    tracer: Tracer | None = None


class _Watchers:
    """Who sees the loop's answers: outlets and sampler, each if it wants them."""

    def __init__(self, outlets: Outlets, sampler: Sampler) -> None:
        self._outlets, self._sampler = outlets, sampler
        self.disagreed = sampler.disagreed

    @property
    def wanted(self) -> bool:
        return bool(self._outlets) or self._sampler.wants()

    def see(self, answered: Answered) -> None:
        if self._outlets:
            self._outlets.put(answered)
        self._sampler.see(answered)


class Standing(msgspec.Struct, frozen=True):
    """How a device is doing, at a glance."""

    online: bool = False
    phase: messages.Phase = "empty"
    running: messages.Running | None = None
    outbox: int = 0


class Agent:
    """One device. `run` returns when told to stop, or raises what it can't mend itself."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._session: _Session | None = None

    @property
    def standing(self) -> Standing:
        """As of the last turn."""
        return self._session.standing if self._session else Standing()

    def run(self, stop: threading.Event) -> None:
        """Enrol if need be, then work until `stop` is set.

        Raises:
            EdgeError: as `enrol.join`; or the state folder is in use.
        """
        setup = self._setup
        store, chance = Store(setup.config.state.dir), random.Random()  # noqa: S311 - for retries
        with store.lock():
            identity = join(setup.config, setup.profile.name, store, setup.token, chance, stop)
            if identity is not None:
                self._session = _Session(setup, identity, store, chance)
                self._session.run(stop)


class _Session:
    """The agent once it is enrolled; everything here but `run`'s two helpers is on one thread."""

    def __init__(
        self, setup: Setup, identity: Identity, store: Store, chance: random.Random
    ) -> None:
        config = setup.config
        self._device, self._identity, self._store = identity.device, identity, store
        self._setup = setup
        self._inbox: queue.SimpleQueue[_Item] = queue.SimpleQueue()
        self._rules = Rules(
            profile=setup.profile.name,
            windows=config.trial.windows,
            max_error_share=config.trial.max_error_share,
        )
        self._outlets = Outlets(config.output.to, identity.device, setup.clock.wall)
        self._sampler = Sampler(
            store.folder / "samples.json",
            Consent(**msgspec.structs.asdict(config.samples)),
            chance,
        )
        self._inference = Inference(
            setup.source,
            config.telemetry.window_seconds,
            setup.clock.monotonic,
            self._inbox.put,
            _Watchers(self._outlets, self._sampler),
        )
        self._api: LocalApi | None = None
        if config.api.port:
            self._api = LocalApi(
                config.api.host, config.api.port, self._inference, lambda: self.standing
            )
        self._worker = Worker(
            setup.trial,
            Repository(store.folder / "trust", store.stick / "metadata", identity, setup.clock),
            store,
            identity,
            setup.profile,
            config.link.rate_limit_bytes,
            setup.clock.monotonic,
            chance,
            self._inbox.put,
            setup.board,
        )
        shared, server = identity.secrets, identity.server
        self._renewal = Renewal(
            store.folder, self._device, shared.http_token, server, setup.clock.wall
        )
        address = address_of(
            identity, config.link, self._renewal.context, lambda: self._uplink.will()
        )
        self._link = FallbackLink(
            lambda post: setup.make_link(address, post, chance),
            lambda post: HttpLink(identity, post, config.link.poll_seconds),
            self._inbox.put,
            config.link.http_after_seconds,
            setup.clock.monotonic,
        )
        self._uplink = Uplink(
            identity,
            store.folder / "outbox.sqlite",
            Bounds(
                config.telemetry.outbox_bytes,
                config.telemetry.outbox_days,
                config.telemetry.bytes_per_day,
            ),
            setup.clock,
            self._link.publish,
        )
        manners = Manners(config.link.metered, config.link.defer_above_bytes, config.update.daily)
        self._waiting = Waiting(manners, store, setup.clock.wall, setup.clock.monotonic)
        self._stick = Stick(store)
        self._unsaved = Unsaved(setup.clock.monotonic)
        self._traces = Traces(setup.tracer, setup.clock.wall)
        self._monotonic, self._wall = setup.clock.monotonic, setup.clock.wall
        self._watchdog = Watchdog(WATCHDOG_EVERY)
        self._memory = Memory()
        self._source, self._gauges, self._board = setup.source, Gauges(), setup.board
        self._told_state = State()
        self._told: dict[str, str] = {}  # by what is in trouble
        self._noticed: deque[str] = deque(maxlen=16)
        self.standing = Standing()

    def run(self, stop: threading.Event) -> None:
        """Work until told to stop; what was not sent by then waits on disk."""
        ended = threading.Event()
        with ThreadPoolExecutor(3, f"{self._device}-") as threads:
            try:
                threads.submit(self._worker.run).add_done_callback(self._watch)
                threads.submit(self._inference.run, ended).add_done_callback(self._watch)
                if self._renewal.context is not None:
                    threads.submit(self._renewal.run, ended).add_done_callback(self._watch)
                self._begin()
                self._link.start()
                if self._api:
                    self._api.start()
                while not stop.is_set():
                    self._turn()
            finally:
                if self._api:
                    self._api.stop()
                ended.set()
                self._source.close()
                self._worker.close()
                self._link.stop()
        self._uplink.disconnected()
        while not self._inbox.empty():  # the last window
            self._handle(self._inbox.get())
        self._uplink.close()
        self._outlets.close()

    def _begin(self) -> None:
        self._memory, trouble = self._store.load()
        try:
            self._store.save(self._memory)
        except OSError as error:
            why = f"the state folder can't be written ({error}): no update is tried"
            self._memory = stranded(self._memory, why)
            self._notice("state-not-saved", why)
        if trouble:
            self._notice("state-damaged", trouble)
        self._step(Restarted())

    def _turn(self) -> None:
        """Handle all that waits, then send and commit once for all of it."""
        try:
            self._handle(self._inbox.get(timeout=TICK))
            while True:
                self._handle(self._inbox.get_nowait())
        except queue.Empty:
            pass
        self._look_around()
        self._uplink.pump()
        self._watchdog.alive(self._monotonic())
        model, state = self._inference.running, self._memory.state
        self.standing = Standing(
            self._uplink.online,
            standing(self._memory).outcome.phase,
            model.running if model else None,
            self._uplink.waiting,
        )
        wanted = candidate(state) or confirmed(state)
        now = State(
            self.standing.running,
            wanted.version if wanted else "",
            candidate(state) is not None,
        )
        if now != self._told_state:
            self._told_state = now
            self._outlets.tell(now)

    def _look_around(self) -> None:
        """What no message tells: a full disk that has room again, a window, a person's wish."""
        for event in self._unsaved.due():
            self._step(event)
        if found := self._waiting.due(runs=self._inference.running is not None):
            order, attempt, why = found
            self._step(Deferred(order.generation, why or ""))
            if why is None:
                self._worker.fetch(order, attempt)
        if self._store.rollback.exists():
            self._step(RollBack())
            self._store.rollback.unlink(missing_ok=True)
        if (payload := self._stick.order()) and (carried := self._opened(payload)):
            self._traces.offered(carried)
            self._step(Offered(carried))
            self._step(Carried(carried))
        self._stick.settled(self._memory, self._uplink.carry)
        for what, trouble in (
            ("source-failed", self._source.trouble),
            ("output-failed", self._outlets.trouble),
            ("outbox-damaged", self._uplink.trouble),
            ("board-reset", self._board.resets if self._board else ""),
        ):
            if trouble != self._told.get(what, ""):
                self._told[what] = trouble
                self._notice(what, trouble or "it works again")

    def _handle(self, item: _Item) -> None:
        match item:
            case Up(number):
                log.info("%s: connected", self._device)
                self._uplink.connected(number)
            case Down(reason):
                if self._uplink.online:
                    log.info("%s: offline (%s)", self._device, reason)
                self._uplink.disconnected()
            case Arrived():
                self._arrived(item)
            case Closed():
                self._closed(item)
            case Done(event):
                self._step(event)
            case Noticed(name, detail):
                self._notice(name, detail)
            case _Crashed(error):
                raise error

    def _closed(self, closed: Closed) -> None:
        filled, model = closed.filled, closed.filled.model
        board = self._gauges.read(
            self._uplink.sent_bytes, self._uplink.waiting, self._outlets.dropped
        )
        window = msgspec.structs.replace(filled.window(), hardware=board)
        self._uplink.put(packed(window, model.baseline))
        try:
            for sample in self._sampler.take(filled.rows, self._wall()):
                self._uplink.put(sample)
        except OSError as error:  # what can't be counted does not leave
            self._notice("samples-not-sent", f"the state folder can't be written: {error}")
        ended = WindowClosed(model.running.digest, closed.number, filled.rows, filled.errors)
        self._step(ended)

    def _arrived(self, message: Arrived) -> None:
        match message.kind:
            case "ack":
                self._acked(message.payload)
            case "desired":
                self._ordered(message.payload)
            case "command":
                self._commanded(message.payload)

    def _ordered(self, payload: bytes) -> None:
        if payload and (order := self._opened(payload)):  # empty: an order that was taken back
            self._traces.offered(order)
            self._step(Offered(order))

    def _commanded(self, payload: bytes) -> None:
        director = self._identity.trust.director_key
        try:
            command = messages.open_command(payload, self._device, director)
            before = self._sampler.number
            why = self._sampler.command(command)
        except (FormatError, UntrustedError, OSError) as error:
            why = str(error)
        else:
            if command.measure > 0 and command.measure_number > before:
                self._measure(command)
        if why:
            self._notice("command-refused", why)

    def _measure(self, command: messages.Command) -> None:
        order, number = confirmed(self._memory.state), command.measure_number
        if order is None or self._setup.board is not None:
            why = "no model is confirmed" if order is None else "a board answers, see its windows"
            self._notice("measured", f"command {number}: nothing was timed, {why}")
        else:
            self._worker.measure(order, number, command.measure)

    def _opened(self, payload: bytes) -> messages.Assignment | None:
        director = self._identity.trust.director_key
        try:
            return messages.open_assignment(payload, self._device, director)
        except (FormatError, UntrustedError) as error:
            self._notice("order-refused", str(error))
            return None

    def _acked(self, payload: bytes) -> None:
        try:
            ack = messages.unseal_ack(payload, self._device, self._identity.secrets.mac)
        except (FormatError, UntrustedError) as error:
            self._notice("acknowledgement-refused", str(error))
        else:
            self._uplink.acked(ack.boot, ack.seq)
            self._step(ServerContact())

    def _step(self, event: Event) -> None:
        after, actions = update.step(self._rules, self._memory, event)
        if after != self._memory:
            try:
                self._store.save(after)
            except OSError as error:
                self._not_saved(event, after, actions, error)
                return
            self._memory = after
            self._worker.keep(digests(after))
        for action in actions:
            self._do(action)

    def _not_saved(
        self,
        event: Event,
        after: Memory,
        actions: tuple[Action, ...],
        error: OSError,
    ) -> None:
        """What can't be remembered is not done, but for going back to the confirmed model."""
        self._unsaved.add(event)
        self._notice("state-not-saved", f"the state folder can't be written: {error}")
        safe = confirmed(after.state)
        if safe is not None and Activate(safe) in actions:
            self._inference.switch(self._worker.model(safe.digest))

    def _do(self, action: Action) -> None:
        match action:
            case Fetch(order, attempt):
                self._waiting.add(order, attempt)
            case SelfTest(order, known):
                self._worker.self_test(order, known=known)
            case Cancel(generation):
                self._waiting.cancel(generation)
                self._worker.cancel(generation)
            case Activate(order):
                self._inference.switch(self._worker.model(order.digest))
            case Shadow(shadow):
                self._inference.accompany(self._worker.model(shadow.digest) if shadow else None)
            case Stop():
                self._inference.switch(None)
            case Tell():
                self._tell(action)
            case Notice(name, detail):
                self._notice(name, detail)

    def _tell(self, tell: Tell) -> None:
        """Report how the order stands and what the interpreter really runs."""
        model, outcome = self._inference.running, tell.outcome
        log.info(
            "%s: order %d %s%s; running %s",
            self._device,
            tell.generation,
            outcome.phase,
            f" ({outcome.reason})" if outcome.reason else "",
            f"{model.running.model} {model.running.version}" if model else "nothing",
        )
        self._traces.stands(tell.generation, outcome.phase, outcome.reason)
        self._uplink.put(
            messages.Report(
                generation=tell.generation,
                phase=outcome.phase,
                reason=outcome.reason[: messages.MAX_WORDS],
                running=model.running if model else None,
                beside=self._beside(),
                runtime=model.description if model else "",
                agent=f"edge-agent/{__version__}",
                resumed_at=outcome.resumed_at,
            )
        )

    def _beside(self) -> messages.Running | None:
        state = self._memory.state
        if isinstance(state, Beside):
            return self._worker.model(state.order.digest).running
        return None

    def _notice(self, name: str, detail: str) -> None:
        """Tell it once: whoever repeats a forged order shall not fill the outbox."""
        if detail not in self._noticed:
            self._noticed.append(detail)
            log.warning("%s: %s: %s", self._device, name, detail)
            self._uplink.put(messages.Event(name=name, detail=detail[: messages.MAX_WORDS]))

    def _watch(self, ended: "Future[None]") -> None:
        if error := ended.exception():
            self._inbox.put(_Crashed(error))
