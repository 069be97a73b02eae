"""The way back: devices are asked for rows, people label them, a dataset comes out; or erasure."""

import io

import msgspec
import numpy as np
import pytest
from starlette.testclient import TestClient

from edge_sdk.errors import InvalidInputError
from edge_sdk.messages import Event, Sample, open_command
from fleet_server.alert_life import opened
from fleet_server.api_types import AskSamples
from fleet_server.dataset import Lineage, make_dataset
from fleet_server.fleet import alert_record, alert_row
from fleet_server.sample_views import png, sample_rows
from tests.server_side import NOW, Clock, backend, every_alert
from tests.unit.test_decay_alerts import a_finding
from tests.unit.test_decay_rollups import a_label, arrived, put


@pytest.fixture
def back(tmp_path, database):
    with backend(tmp_path, database) as made:
        yield made


@pytest.fixture
def http(back):
    app, parts = back.application(Clock(NOW))
    token = {"authorization": f"Bearer {back.keyring.admin_token}"}
    with TestClient(app, headers=token) as client:
        client.parts = parts
        yield client


def a_sample(back, row="r1", *, fill=3, **changes):
    manifest = back.bundle.manifest
    chances = [0.0] * len(manifest.labels)
    chances[1] = 1.0
    data = np.full(manifest.input.shape, fill, np.uint8)
    sample = Sample(
        model=manifest.name, version=manifest.version, digest=back.bundle.digest, command=1,
        policy="margin", id=row, score=0.5, share=0.1, probabilities=tuple(chances),
        dtype="uint8", shape=data.shape, data=data.tobytes(),
    )  # fmt: skip
    return msgspec.structs.replace(sample, **changes)


def ask(http, **changes):
    wish = msgspec.structs.replace(AskSamples(policy="margin"), **changes)
    return http.post("/api/v1/samples/digits", content=msgspec.json.encode(wish))


@pytest.fixture
def asked(back, http):
    """A device that was asked, and has answered with two rows."""
    device = back.device("pi-1", running_model="digits")
    assert ask(http).json() == {"devices": 1}
    put(back, arrived(device, a_sample(back)), arrived(device, a_sample(back, "r2", fill=9)))
    return device


def test_a_command_is_signed_numbered_and_goes_to_those_that_run_the_model(back, http):
    back.device("pi-1", running_model="digits")
    back.device("pi-2", running_model="other")
    for number in (1, 2):
        assert ask(http, quota=7).json() == {"devices": 1}
        device, envelope = back.commands[-1]
        command = open_command(envelope, "pi-1", back.keyring.director.public)
        assert (device, command.number, command.samples.quota) == ("pi-1", number, 7)
        assert back.store.command("pi-1") == envelope
    for wrong in ({"quota": 0}, {"days": 400.0}, {"days": float("nan")}, {"site": "nowhere"}):
        assert ask(http, **wrong).status_code == 400
    assert back.store.command_numbers(["pi-1", "pi-2"]) == {"pi-1": 2}


def test_a_later_command_repeats_what_a_device_that_is_away_was_asked(back, http):
    device, at = back.device("pi-1", running_model="digits"), "/api/v1/devices/pi-1"

    def waiting():
        return open_command(back.store.command("pi-1"), "pi-1", back.keyring.director.public)

    def answered(number):
        return http.get(f"{at}/measured/{number}").json()["words"]

    assert http.post(f"{at}/measure", json={"runs": 40}).json()["command"] == 1
    ask(http, quota=7)
    assert (waiting().number, waiting().measure, waiting().measure_number) == (2, 40, 1)
    ask(http, quota=8)
    assert (waiting().number, waiting().measure, waiting().measure_number) == (3, 40, 1)
    assert http.post(f"{at}/measure", json={"runs": 50}).json()["command"] == 4
    assert (waiting().measure, waiting().measure_number, waiting().samples.quota) == (50, 4, 8)
    assert answered(1) == answered(4) == ""
    put(back, arrived(device, Event(name="measured", detail="command 4: it takes 3 ms")))
    assert answered(1) == answered(4) == "it takes 3 ms"  # who asked first is answered, too
    put(back, arrived(device, Event(name="measured", detail="command 1: it takes 2 ms")))
    assert (answered(1), answered(4), answered(5)) == ("it takes 2 ms", "it takes 3 ms", "")


def test_rows_that_come_are_queued_once_and_shown_as_pictures(back, asked):
    put(back, arrived(asked, a_sample(back)))
    rows = sample_rows(back.store, "digits", 10)
    assert {(r.row, r.predicted, r.picture) for r in rows} == {
        ("r1", back.bundle.manifest.labels[1], True),
        ("r2", back.bundle.manifest.labels[1], True),
    }
    assert png(np.zeros((2, 3), np.uint8)).startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"command": 2}, "nobody asked"),
        ({"digest": "0" * 64}, "no bundle"),
        ({"probabilities": (1.0,)}, "1 probabilities"),
        ({"share": float("nan")}, "not within 0..1"),
        ({"id": ""}, "empty or too long"),
        ({"dtype": "object"}, "'object'"),
        ({"shape": (10**9, 10**9)}, "another length"),
        ({"shape": (-1, -64)}, "negative"),
        ({"data": b"x" * 600_000}, "are the most"),
    ],
)
def test_a_sample_that_can_not_be_is_set_aside_in_words(back, asked, changes, words):
    put(back, arrived(asked, a_sample(back, "bad", **{"id": "bad", **changes})))
    [poison] = back.store.poison()
    assert words in poison.reason
    assert len(back.store.samples("digits")) == 2


def test_a_device_that_nobody_asked_is_not_heard(back):
    put(back, arrived(back.device("pi-1"), a_sample(back)))
    assert "nobody asked" in back.store.poison()[0].reason


@pytest.fixture
def browser(http):
    made = TestClient(http.app, follow_redirects=False)
    made.cookies = made.get(http.parts.guard.new_link()).cookies
    made.headers["sec-fetch-site"] = "same-origin"
    return made


def test_labels_given_on_the_page_become_a_dataset_with_its_lineage(back, asked, browser):
    assert "/labels/digits" in browser.get("/labels").text
    page = browser.get("/labels/digits").text
    assert "/labels/digits/pi-1/r1.png" in page
    picture = browser.get("/labels/digits/pi-1/r1.png")
    assert picture.headers["content-type"] == "image/png"
    label = back.bundle.manifest.labels[2]
    assert browser.post(f"/labels/digits/pi-1/r1/is/{label}").status_code == 303
    assert browser.post("/labels/digits/pi-1/r1/is/nonsense").status_code == 400
    assert browser.post("/labels/digits/pi-1/none/is/x").status_code == 404
    assert browser.post("/labels/digits/pi-1/r2/skip").status_code == 303
    assert "Nothing waits" in browser.get("/labels/digits").text
    with np.load(io.BytesIO(make_dataset(back.store, "digits", NOW))) as file:
        x, y, lineage = (
            file["x"],
            file["y"],
            msgspec.json.decode(file["lineage"].item(), type=Lineage),
        )
    assert (x.shape[0], int(x.max()), y.tolist()) == (1, 3, [2])
    [origin] = lineage.rows
    assert (origin.label, origin.source, origin.audit) == (label, "queue", False)
    assert origin.device != "pi-1"
    with np.load(io.BytesIO(make_dataset(back.store, "digits", NOW))) as file:
        again = msgspec.json.decode(file["lineage"].item(), type=Lineage)
    assert again.id == lineage.id
    assert again.rows[0].device != origin.device


def test_without_a_labelled_row_there_is_no_dataset(back, asked):
    with pytest.raises(InvalidInputError, match="edge label ask digits"):
        make_dataset(back.store, "digits", NOW)


def sums_of(back):
    return {
        (span, r.start): r.sums
        for span in ("hour", "day")
        for r in back.store.rollups("digits", span, 0.0)
    }


def test_what_came_from_a_forgotten_device_is_nowhere_and_the_others_stay(back, asked, http):
    other = back.device("pi-2")
    put(back, arrived(other, back.window(rows=7, skew={"range": 2})))
    alone = sums_of(back)
    put(back, arrived(asked, back.window(rows=5, seed=9, skew={"range": 1})))
    spreading = a_finding("site=north", ("pi-1", "pi-2"))
    own = a_finding("device=pi-1", ("pi-1",))
    for number, found in enumerate((spreading, own)):
        row = opened("digits", found, NOW + number)
        back.store.save_alert(alert_record(row, NOW))
        back.store.add_event(NOW, "decay", "alert opened", f"{row.id}: {found.title} at pi-1")
    back.store.add_event(NOW, "decay", "alert opened", "a1: about pi-10")
    back.store.add_labels([a_label(device="pi-1"), a_label(device="pi-2")], NOW)

    erased = http.post("/api/v1/devices/pi-1/forget").json()["rows"]
    expected = {"samples": 2, "windows": 1, "commands": 1, "rollups": 2, "alerts": 2, "labels": 1}
    assert {name: erased[name] for name in expected} == expected
    assert back.store.samples("digits") == []
    assert [w.device for w in back.store.windows("digits", 0)] == ["pi-2"]
    left = sums_of(back)
    for key, whole in alone.items():
        assert (left[key].rows, left[key].windows, left[key].skew) == (7, 1, {"range": 2})
        for name, channel in whole.channels.items():
            assert left[key].channels[name].counts == channel.counts
            assert left[key].channels[name].total == pytest.approx(channel.total)
    [alert] = map(alert_row, every_alert(back.store))
    assert alert.device_ids == ("pi-2",)
    told = [e.detail for e in back.store.events(1000) if e.name == "alert opened"]
    assert told == ["a1: about pi-10"]
    assert [x.device for x in back.store.labels("digits")] == ["pi-2"]
    assert http.post("/api/v1/devices/nobody/forget").status_code == 404


def test_samples_are_not_kept_for_ever(back, asked):
    assert back.store.drop_samples(NOW) == 0
    assert back.store.drop_samples(NOW + 1) == 2
