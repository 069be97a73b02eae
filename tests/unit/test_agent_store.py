"""The state folder: what survives, and what happens when it is damaged."""

import stat

import pytest

from device_agent.store import DeviceKey, Store
from device_agent.update_states import Fetching, Idle, Memory, Outcome, Trial
from edge_sdk.errors import InvalidInputError
from edge_sdk.messages import Assignment


def order(generation: int, digest: str) -> Assignment:
    return Assignment(
        device="d",
        generation=generation,
        model="m",
        version="1",
        profile="p",
        digest=digest,
        length=1,
        rollout="r",
        not_before=0.0,
    )


def test_memory_comes_back_as_it_was_saved(tmp_path):
    memory = Memory(7, "bb", Trial(order(3, "aa"), order(7, "bb"), 12, 2, 1, 4, contact=True))
    Store(tmp_path).save(memory)
    assert Store(tmp_path).load() == (memory, "")


def test_a_new_folder_remembers_nothing(tmp_path):
    assert Store(tmp_path / "new").load() == (Memory(), "")


@pytest.mark.parametrize(
    "damage", [b"", b"{", b'{"format": 1, "state": {"type": "idle"}}', b"\0" * 99]
)
def test_a_damaged_memory_falls_back_to_the_confirmed_model_and_says_so(tmp_path, damage):
    store = Store(tmp_path)
    store.save(Memory(3, "aa", Idle(order(3, "aa"), Outcome("confirmed"))))
    store.save(Memory(7, "bb", Trial(order(3, "aa"), order(7, "bb"))))
    (tmp_path / "update.json").write_bytes(damage)
    memory, trouble = Store(tmp_path).load()
    assert memory == Memory(3, "aa", Idle(order(3, "aa"), Outcome("confirmed")))
    assert "update.json" in trouble
    assert "confirmed model" in trouble


def test_a_damaged_memory_without_a_confirmed_model_begins_anew(tmp_path):
    (tmp_path / "update.json").write_bytes(b"junk")
    memory, trouble = Store(tmp_path).load()
    assert memory == Memory()
    assert trouble


def test_only_the_confirmed_bundle_and_the_candidate_are_kept(tmp_path):
    store = Store(tmp_path)
    for digest in ("aa", "bb", "cc"):
        store.bundle(digest).write_bytes(b"x")
        store.part(digest).write_bytes(b"x")
    store.save(Memory(2, "bb", Fetching(order(1, "aa"), order(2, "bb"))))
    kept = sorted(path.name for path in store.bundles.iterdir())
    assert kept == ["aa.edge", "aa.part", "bb.edge", "bb.part"]


def test_the_device_key_is_readable_by_its_owner_only(tmp_path):
    store = Store(tmp_path / "state")
    store.save_key(DeviceKey("d", "00"))
    assert stat.S_IMODE((tmp_path / "state" / "device.json").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700
    assert store.key() == DeviceKey("d", "00")


def test_two_agents_do_not_share_a_folder(tmp_path):
    with Store(tmp_path).lock(), pytest.raises(InvalidInputError, match="another agent uses"):
        Store(tmp_path).lock()
    Store(tmp_path).lock().close()
