"""`edge agent doctor`: what keeps this device from working, step by step, and what to do.

It looks and changes nothing here; with MQTT it leaves one line in the device's history. What hangs
on a step that fails is not tried. The looks over the network are in `reach`.
"""

import hashlib
import importlib
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from device_agent import reach
from device_agent.config import AgentConfig
from device_agent.endpoint import KEY, Endpoint
from device_agent.enrol import Identity, recall
from device_agent.reach import Ailment
from device_agent.store import Store
from device_agent.update_states import confirmed
from edge_sdk.errors import EdgeError, InvalidInputError
from edge_sdk.files import private

FREE_BYTES = 64 * 1024 * 1024
RUNTIME = "ai_edge_litert.interpreter"


class Step(msgspec.Struct, frozen=True):
    """One look: what was found, and what to do if that is bad."""

    name: str
    result: Literal["ok", "fails", "not tried"]
    found: str
    remedy: str = ""


Look = Callable[[], str]


def examine(config: AgentConfig, wall: Callable[[], float], *, mqtt: bool) -> Iterator[Step]:
    """Every step in the order in which one hangs on the other.

    Args:
        config: as the agent would read it.
        wall: this device's clock, Unix seconds.
        mqtt: go on to the MQTT connection; a running agent loses its own for a moment.
    """
    folder = config.state.dir
    for name, look in (
        ("state folder", lambda: _state(folder)),
        ("disk space", lambda: _disk(folder)),
        ("bundle", lambda: _bundle(folder)),
        ("runtime", _runtime),
    ):
        yield _look(name, look)
    yield from _chain(_server_looks(config, wall, mqtt=mqtt))


def _server_looks(
    config: AgentConfig, wall: Callable[[], float], *, mqtt: bool
) -> list[tuple[str, Look]]:
    server, folder = Endpoint.parse(config.link.server), config.state.dir
    looks: list[tuple[str, Look]] = [
        ("DNS", lambda: reach.dns(server)),
        ("TCP", lambda: reach.tcp(server)),
    ]
    try:
        who = _joined(folder, server)
    except (EdgeError, OSError) as error:
        words = str(error)
        return [*looks, ("credentials", lambda: _unusable(words))]
    if who is None:
        looks.append(("clock", lambda: reach.clock(server, wall)))
        return [*looks, ("credentials", lambda: reach.not_enrolled(config.enrol))]
    if who.server.tls:
        looks.append(("TLS chain", lambda: reach.chain(who.server)))
    looks.append(("clock", lambda: reach.clock(who.server, wall)))
    if who.server.tls:
        looks.append(("certificate", lambda: reach.certificate(folder, wall)))
    looks.append(("credentials", lambda: reach.credentials(who)))
    return looks + (reach.mqtt_looks(who, config.link, folder, wall) if mqtt else [])


def in_words(step: Step) -> str:
    """A line, and below it what to do."""
    line = f"{step.result:10}{step.name:16}{step.found}"
    return f"{line}\n{'':26}-> {step.remedy}" if step.remedy else line


def _chain(looks: Sequence[tuple[str, Look]]) -> Iterator[Step]:
    """Each look only if the one before it went well."""
    for place, (name, look) in enumerate(looks):
        step = _look(name, look)
        yield step
        if step.result == "fails":
            for missed, _ in looks[place + 1 :]:
                yield Step(missed, "not tried", f"since {name} fails")
            return


def _look(name: str, look: Look) -> Step:
    try:
        return Step(name, "ok", look())
    except Ailment as found:
        return Step(name, "fails", found.words, found.remedy)
    except EdgeError as error:
        return Step(name, "fails", str(error))


def _unusable(words: str) -> str:
    raise Ailment(words, "or restore the state folder from a backup")


def _joined(folder: Path, server: Endpoint) -> Identity | None:
    """Who this device is; None if it never joined."""
    if not (folder / "device.json").exists():
        return None
    store = Store(folder)
    key, enrolment = store.key(), store.enrolment()
    if key is None or enrolment is None:
        return None
    if enrolment.server != str(server):
        raise InvalidInputError(
            f"{key.device} is enrolled at {enrolment.server}, the config says {server}: "
            f"correct [link] server, or use another state folder"
        )
    return recall(key, enrolment, server, store)


def _state(folder: Path) -> str:
    if not folder.exists():
        place = _nearest(folder)
        if not os.access(place, os.W_OK):
            raise Ailment(f"{folder} is not there and can't be made", f"give us {place} to write")
        return f"{folder} is not there yet: made at the first start"
    if not os.access(folder, os.W_OK | os.X_OK):
        raise Ailment(f"{folder} can't be written", "start as its owner, or chown it to this user")
    for path in (folder / "device.json", folder / KEY):
        if path.exists() and not os.access(path, os.R_OK):
            raise Ailment(f"{path} can't be read", "start as its owner, or chown it to this user")
        if path.exists() and not private(path):
            raise Ailment(f"{path} is open to other users", f"chmod 600 {path}")
    return str(folder)


def _disk(folder: Path) -> str:
    free = shutil.disk_usage(_nearest(folder)).free
    words = f"{free / 2**20:,.0f} MiB free"
    if free < FREE_BYTES:
        raise Ailment(words, f"free at least {FREE_BYTES / 2**20:.0f} MiB on the disk of {folder}")
    return words


def _bundle(folder: Path) -> str:
    if not (folder / "update.json").exists():
        return "nothing was ordered yet"
    store = Store(folder)
    memory, trouble = store.load()
    order = confirmed(memory.state)
    if trouble:
        raise Ailment(trouble, "start the agent: it goes on with what is left")
    if order is None:
        return "no model is confirmed yet"
    path = store.bundle(order.digest)
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise Ailment(f"{path} can't be read: {error.strerror}", _ORDER_ANEW) from error
    if digest != order.digest:
        raise Ailment(f"{path} is damaged: its SHA-256 is {digest[:12]}…", _ORDER_ANEW)
    return f"{order.model} {order.version}, {path.stat().st_size:,} bytes, whole"


_ORDER_ANEW = "check the disk; roll the version out anew, or bring it by 'edge agent import-usb'"


def _runtime() -> str:
    try:
        importlib.import_module(RUNTIME)
    except (ImportError, OSError) as error:
        raise Ailment(
            f"LiteRT can't be loaded: {error}",
            "pip install 'edge-deployment-sdk[agent]' on a 64-bit system",
        ) from error
    return "LiteRT can be loaded"


def _nearest(folder: Path) -> Path:
    """The folder itself or what there is of its parents."""
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    return place
