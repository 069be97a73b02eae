"""The disk is full, read-only or damaged: the agent still answers with the confirmed model."""

import subprocess
from pathlib import Path

import msgspec
import pytest

from device_agent.config import StateConfig
from device_agent.status import read_status
from edge_sdk import messages
from tests.agent_world import FleetServer, config, eventually, running, tiny_bundle

pytestmark = pytest.mark.system
DEVICE = "dev-1"


@pytest.fixture
def fleet():
    with FleetServer() as found:
        yield found


@pytest.fixture
def disk(tmp_path):
    """A disk of 8 MB of its own; needs the right to mount."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", folder], capture_output=True
    )
    if made.returncode:
        pytest.skip("this user may not mount a small disk")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def remount(disk: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", disk], check=True)


def fill(disk: Path, leave: int) -> Path:
    """A file that takes all but `leave` bytes."""
    path = disk / "filler"
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(65536))
        except OSError:
            file.truncate(max(0, file.tell() - leave))
    return path


def on(disk: Path, tmp_path: Path, fleet: FleetServer):
    return msgspec.structs.replace(
        config(tmp_path, fleet.url), state=StateConfig(dir=disk / "state")
    )


def confirm(fleet, version: str = "1") -> messages.Assignment:
    order = fleet.order(DEVICE, tiny_bundle(fleet.publisher, version=version), version=version)
    eventually(lambda: (order.generation, "confirmed") in fleet.phases(DEVICE), "confirmed")
    return order


def events(fleet) -> dict[str, str]:
    return {event.name: event.detail for event in fleet.bodies(DEVICE, messages.Event)}


def test_on_a_disk_that_became_read_only_the_confirmed_model_runs_and_says_why(
    fleet, disk, tmp_path
):
    given = on(disk, tmp_path, fleet)
    with running(given, fleet.token):
        order = confirm(fleet)
    remount(disk, "ro")
    windows = len(fleet.bodies(DEVICE, messages.Window))
    with running(given, fleet.token) as agent:
        eventually(lambda: agent.standing.running, "running")
        eventually(lambda: len(fleet.bodies(DEVICE, messages.Window)) > windows + 3, "windows")
        newer = fleet.order(DEVICE, tiny_bundle(fleet.publisher, version="2"), version="2")
        eventually(lambda: "outbox-damaged" in events(fleet), "event")
        assert agent.standing.running.digest == order.digest
    assert "can't be written" in events(fleet)["state-not-saved"]
    assert "goes on in memory" in events(fleet)["outbox-damaged"]
    assert read_status(given.state.dir).running.digest == order.digest
    remount(disk, "rw")
    with running(given, fleet.token):
        eventually(lambda: (newer.generation, "confirmed") in fleet.phases(DEVICE), "update")


def test_on_a_full_disk_it_goes_on_and_the_update_follows_when_there_is_room(fleet, disk, tmp_path):
    given = on(disk, tmp_path, fleet)
    with running(given, fleet.token) as agent:
        order = confirm(fleet)
        filler = fill(disk, 0)
        newer = fleet.order(DEVICE, tiny_bundle(fleet.publisher, version="2"), version="2")
        eventually(lambda: "state-not-saved" in events(fleet), "event")
        windows = len(fleet.bodies(DEVICE, messages.Window))
        eventually(lambda: len(fleet.bodies(DEVICE, messages.Window)) > windows + 3, "windows")
        assert agent.standing.running.digest == order.digest
        filler.unlink()
        eventually(lambda: (newer.generation, "confirmed") in fleet.phases(DEVICE), "update")
    assert "No space left" in events(fleet)["state-not-saved"]


def test_a_download_that_has_no_room_is_deferred_with_the_numbers(fleet, disk, tmp_path):
    given = on(disk, tmp_path, fleet)
    with running(given, fleet.token):
        confirm(fleet)
        filler = fill(disk, 2_000_000)
        newer = fleet.order(DEVICE, tiny_bundle(fleet.publisher, version="2"), version="2")
        eventually(lambda: (newer.generation, "deferred") in fleet.phases(DEVICE), "deferred")
        assert "waits until there is room" in fleet.last(DEVICE).reason
        filler.unlink()
        eventually(lambda: (newer.generation, "confirmed") in fleet.phases(DEVICE), "update")


def test_a_damaged_outbox_is_set_aside_and_told(fleet, tmp_path):
    given = config(tmp_path, fleet.url)
    with running(given, fleet.token):
        order = confirm(fleet)
    outbox = tmp_path / "state" / "outbox.sqlite"
    outbox.write_bytes(b"SQLite format 3\0" + b"\xff" * 5000)
    with running(given, fleet.token) as agent:
        eventually(lambda: agent.standing.running, "running")
        assert agent.standing.running.digest == order.digest
        eventually(lambda: "outbox-damaged" in events(fleet), "event")
    assert "set aside as outbox.damaged" in events(fleet)["outbox-damaged"]
    assert (tmp_path / "state" / "outbox.damaged").exists()


@pytest.mark.parametrize("name", ["update.json", "confirmed.json"])
@pytest.mark.parametrize("keep", [0, 1, 60])
def test_a_half_written_state_file_costs_no_model(fleet, tmp_path, name, keep):
    given = config(tmp_path, fleet.url)
    with running(given, fleet.token):
        order = confirm(fleet)
    path = tmp_path / "state" / name
    path.write_bytes(path.read_bytes()[:keep])
    (tmp_path / "state" / f".{name}.99.part").write_bytes(b"half")
    with running(given, fleet.token) as agent:
        eventually(lambda: agent.standing.running, "running")
        assert agent.standing.running.digest == order.digest
    assert not list((tmp_path / "state").glob(".*.part"))
