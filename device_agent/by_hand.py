"""What a person at the device asks for: a rollback, or an update from a USB stick.

A running agent finds the request in its state folder; otherwise the command does the agent's part.
A stick holds `orders/DEVICE.json` (signed), `bundles/DIGEST.edge`, and `reports/` on its way back.
"""

import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

from device_agent import update
from device_agent.config import AgentConfig
from device_agent.status import Status, read_status
from device_agent.store import Store
from device_agent.update_events import RollBack
from device_agent.update_states import Memory, Rules, candidate, confirmed
from edge_sdk import messages
from edge_sdk.errors import EdgeError, FormatError, InvalidInputError, RefusedError, UntrustedError
from edge_sdk.files import fsync_folder, sha256, write_atomic
from edge_sdk.formats import from_json
from edge_sdk.identity import Trust
from edge_sdk.stick import BUNDLES, METADATA, ORDERS, REPORTS, Report, save_reports

POLL = 0.1
ANSWER = 15.0  # seconds that a running agent may take to notice a request
INSTALL = 900.0  # seconds for self-test and trial
ORDER = "order.json"
RESULT = "reports.json"


class Stick:
    """The agent's side of an import; called in every turn."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._begun = False

    def order(self) -> bytes | None:
        """A signed order that was put here and not yet looked at."""
        path = self._store.stick / ORDER
        if self._begun or not path.exists():
            return None
        self._begun = True
        return path.read_bytes()

    def settled(self, memory: Memory, sealed: Callable[[], list[Report]]) -> None:
        """Hand back what the server shall know, once nothing is under way any more."""
        if self._begun and candidate(memory.state) is None:
            save_reports(self._store.stick / RESULT, sealed())
            for path in self._store.stick.glob("*.edge"):
                path.unlink()
            (self._store.stick / ORDER).unlink(missing_ok=True)
            self._begun = False


def roll_back(config: AgentConfig, profile: str) -> tuple[str, str]:
    """Go back to the version before; what was confirmed or under way, and what runs then.

    Raises:
        RefusedError: there is nothing to go back to.
        EdgeError: the agent that runs here does not answer.
    """
    store = Store(config.state.dir)
    memory, _ = store.load()
    safe, order = confirmed(memory.state), candidate(memory.state)
    target = memory.previous if order is None else safe
    if target is None:
        raise RefusedError("no earlier version is kept on this device")
    leaving = order or safe
    try:
        lock = store.lock()
    except InvalidInputError:
        write_atomic(store.rollback, b"")
        _wait(lambda: not store.rollback.exists(), ANSWER, "the running agent does not answer")
    else:
        with lock:
            rules = Rules(
                profile=profile,
                windows=config.trial.windows,
                max_error_share=config.trial.max_error_share,
            )
            after, _ = update.step(rules, memory, RollBack())
            store.save(after)
    return _name(leaving), _name(target)


def import_stick(
    folder: Path, config: AgentConfig, run_agent: Callable[[threading.Event], None]
) -> tuple[Status, Path]:
    """Install the order for this device from a stick; how it ended, and the report left there.

    `run_agent` does the agent's part if none runs here.

    Raises:
        InvalidInputError: the device is not enrolled, or the stick holds nothing for it.
        UntrustedError: the order is not signed by this fleet's director.
        EdgeError: it did not end in time.
    """
    store = Store(config.state.dir)
    key, enrolment = store.key(), store.enrolment()
    if key is None or enrolment is None:
        raise InvalidInputError("this device is not enrolled: a stick brings models, not trust")
    trust = from_json(Trust, enrolment.trust.encode(), "the trust document")
    _stage(folder, store, key.device, trust)
    result = store.stick / RESULT
    stop = threading.Event()
    try:
        store.lock().close()
    except InvalidInputError:
        _wait(result.exists, INSTALL, "the running agent did not end the import")
    else:
        _run_until(run_agent, result, stop)
    status = read_status(config.state.dir)
    left = folder / REPORTS / f"{key.device}-{status.generation}.json"
    left.parent.mkdir(exist_ok=True)
    shutil.copyfile(result, left)
    result.unlink()
    return status, left


def _stage(folder: Path, store: Store, device: str, trust: Trust) -> None:
    """Copy what is for this device into its state folder, the order last."""
    path = folder / ORDERS / f"{device}.json"
    try:
        payload = path.read_bytes()
    except OSError as error:
        raise InvalidInputError(f"{folder} holds no order for {device}: {error}") from error
    try:
        order = messages.open_assignment(payload, device, trust.director_key)
    except (FormatError, UntrustedError) as error:
        raise type(error)(f"{path} is not taken: {error}") from error
    shutil.rmtree(store.stick, ignore_errors=True)  # what an import that was cut short left
    store.stick.mkdir()
    if (folder / METADATA).is_dir():
        shutil.copytree(folder / METADATA, store.stick / METADATA)
    if not store.bundle(order.digest).exists():
        source = folder / BUNDLES / f"{order.digest}.edge"
        try:
            data = source.read_bytes()
        except OSError as error:
            raise InvalidInputError(f"{source} can't be read: {error}") from error
        if sha256(data) != order.digest:
            raise UntrustedError(f"{source} is not the bundle that the order names")
        write_atomic(store.carried(order.digest), data)
    write_atomic(store.stick / ORDER, payload)
    fsync_folder(store.folder)


def _run_until(
    run_agent: Callable[[threading.Event], None], result: Path, stop: threading.Event
) -> None:
    errors: list[BaseException] = []

    def work() -> None:
        try:
            run_agent(stop)
        except BaseException as error:  # noqa: BLE001 - raised again below
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        _wait(lambda: result.exists() or errors, INSTALL, "the import did not end")
    finally:
        stop.set()
        thread.join()
    if errors:
        raise errors[0]


def _wait(truth: Callable[[], object], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not truth():
        if time.monotonic() > deadline:
            raise EdgeError(f"{what} within {seconds:.0f} seconds: 'edge agent status' says more")
        time.sleep(POLL)


def _name(order: messages.Assignment | None) -> str:
    return f"{order.model} {order.version}" if order else "nothing"
