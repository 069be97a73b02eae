"""What the first page says: facts as reported, and one sentence on whether anything is wrong."""

import msgspec
import pytest

from edge_sdk.formats import to_json
from edge_sdk.messages import Assignment
from fleet_server.fleet import health, overview
from fleet_server.records import AlertRecord, DeviceRecord, NewWindow
from fleet_server.views import AlertRow, RolloutRow
from tests.server_side import NOW, backend


@pytest.fixture
def back(tmp_path, database):
    with backend(tmp_path, database) as made:
        yield made


def described(record):
    return RolloutRow(
        id=record.id,
        model=record.model,
        version=record.version,
        strategy="canary",
        status=record.status,
        reason="waited too long",
        started_at=NOW,
        ended_at=None,
        phases=(),
        gates=(),
        confirmed=0,
        failed=0,
        total=1,
    )


def look(back, online=(), drifting=None, now=NOW):
    return overview(back.store, describe=described, online=online, drifting=drifting or {}, now=now)


def heard_of(at, **more):
    return DeviceRecord(
        id="pi-1", public="", profile="", labels={}, enrolled_at=NOW - 9, last_seen=at, **more
    )


def windows(back, device, *, first=0, count=3, seconds=5.0, confidence=0.9, digest=None):
    back.store.add_windows(
        NewWindow(
            device=device,
            boot="b",
            seq=n,
            received_at=NOW + n,
            wall=NOW,
            model="digits",
            version="1",
            digest=digest or back.bundle.digest,
            edges_id="e",
            seconds=seconds,
            rows=10,
            errors=0,
            skew=0,
            confidence_mean=confidence,
            confidence_rows=10,
            latency_mean=None,
            body=b"",
        )
        for n in range(first, first + count)
    )


def confirm(back, device, **changes):
    record = back.store.device(device)
    said = {
        "running_model": "digits",
        "running_version": "1",
        "running_digest": back.bundle.digest,
        "phase": "confirmed",
        **changes,
    }
    back.store.save_report(msgspec.structs.replace(record, **said))


@pytest.mark.parametrize(
    ("silent", "connected", "expected"),
    [
        (0, False, "live"),
        (20, False, "live"),
        (20.1, False, "late"),
        (100, False, "late"),
        (100.1, False, "offline"),
        (100.1, True, "late"),
        (20, True, "live"),
    ],
)
def test_health_counts_in_the_devices_own_periods(silent, connected, expected):
    device = heard_of(NOW, period=10.0)
    assert health(device, NOW + silent, connected=connected) == expected


def test_very_short_periods_count_as_five_seconds():
    device = heard_of(NOW, period=0.5)
    assert health(device, NOW + 10, connected=False) == "live"
    assert health(device, NOW + 51, connected=False) == "offline"


def test_a_device_with_nothing_to_report_is_live_while_it_is_connected():
    assert health(heard_of(None), NOW, connected=False) == "new"
    assert health(heard_of(NOW), NOW + 9999, connected=True) == "live"
    assert health(heard_of(NOW), NOW + 9999, connected=False) == "offline"


def test_a_device_whose_last_will_came_is_offline_at_once_unless_it_is_connected_again():
    gone = msgspec.structs.replace(heard_of(NOW), left_at=NOW)
    assert health(gone, NOW, connected=False) == "offline"
    assert health(gone, NOW, connected=True) == "live"


def test_what_runs_is_counted_by_reported_digest_not_by_order(back):
    for name in ("pi-1", "pi-2", "pi-3"):
        back.device(name)
    confirm(back, "pi-1")
    confirm(back, "pi-2", running_digest="f" * 64, running_version="9")
    order = Assignment(
        device="pi-3",
        generation=1,
        model="digits",
        version="1",
        profile="raspberry-pi-4",
        digest=back.bundle.digest,
        length=1,
        rollout="r",
        not_before=NOW,
    )
    back.store.order([(order, b"signed")])
    seen = look(back)
    assert {(m, v): n for m, v, n in seen.running} == {("digits", "1"): 1, ("", "f" * 12): 1}
    assert [(d.id, d.wanted, d.running) for d in seen.devices] == [
        ("pi-1", "", "1"),
        ("pi-2", "", "f" * 12),
        ("pi-3", "1", ""),
    ]
    [version] = seen.versions
    assert (version.devices, version.recipe, version.drop) == (1, "float32", 0.01)


def test_confidence_is_of_the_bundle_that_answers_now(back):
    back.device()
    windows(back, "pi-1", confidence=0.2, digest="f" * 64)
    windows(back, "pi-1", confidence=0.9, first=10)
    assert look(back).devices[0].confidence == pytest.approx(0.9)


def test_nothing_wrong_is_said_in_one_calm_sentence(back):
    assert look(back).headline == "No device has joined yet: make a key with 'edge enroll key new'"
    back.device()
    confirm(back, "pi-1")
    back.store.seen({"pi-1": NOW}, {})
    seen = look(back)
    assert seen.calm
    assert seen.headline == "All quiet: 1 of 1 devices live, digits 1 runs on 1"
    assert seen.health == {"live": 1, "late": 0, "offline": 0, "new": 0}


def an_alert(state="open", number=1):
    row = AlertRow(
        id=f"a{number}",
        state="open",
        severity="warning",
        kind="data drift",
        scope="digits site north",
        title="brightness fell at north",
        detail="",
        opened_at=NOW,
        devices=4,
    )
    return AlertRecord(
        id=row.id,
        state=state,
        scope=row.scope,
        kind=row.kind,
        document=to_json(row),
        opened_at=NOW,
        updated_at=NOW,
    )


def test_troubles_come_first_and_are_counted(back):
    back.device()
    back.store.seen({"pi-1": NOW - 86400}, {})
    seen = look(back)
    assert (seen.calm, seen.headline) == (False, "Device pi-1 is offline")
    back.store.save_rollout("r1", "digits", "2", "held", b"{}", NOW)
    back.store.save_alert(an_alert())
    seen = look(back)
    assert seen.headline == "Brightness fell at north (and 2 more)"
    back.store.save_alert(an_alert("acknowledged"))
    seen = look(back)
    assert seen.headline == "The rollout of digits 2 is held: waited too long (and 1 more)"
    assert [alert.state for alert in seen.alerts] == ["acknowledged"]


def test_what_drifts_is_shown_at_its_device(back):
    back.device()
    seen = look(back, drifting={"pi-1": ("input.brightness",)})
    assert seen.devices[0].drifting == ("input.brightness",)
