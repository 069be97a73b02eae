"""The drift report, labels by API and CLI, and the pages: what is stored is told, in words."""

import json

import msgspec
import numpy as np
import pytest
from sqlalchemy import update
from starlette.testclient import TestClient

from edge_sdk.errors import FormatError, InvalidInputError
from edge_sdk.sketch import make_baseline
from fleet_server.cli.drift import read_labels, report_words
from fleet_server.drift_report import drift_report
from fleet_server.drift_views import DriftReport
from fleet_server.labels import Label
from fleet_server.store import tables
from fleet_server.web.drift_figures import bars, trend_plot
from fleet_server.web.drift_file import report_file
from tests.server_side import NOW, Clock, backend
from tests.unit.test_decay_rollups import a_label, arrived, put

HOUR = 3600.0
SOUTH = {"site": "south", "lens": "wide", "floor": "2"}


@pytest.fixture
def back(tmp_path, database):
    with backend(tmp_path, database) as made:
        yield made


@pytest.fixture
def lived(back):
    """Three hours of two sites; in the last one the south is brighter."""
    north, south = back.device("pi-1"), back.device("pi-2", labels=SOUTH)
    for hour in range(3):
        at = NOW + hour * HOUR
        put(back, arrived(north, back.window(rows=50, seed=hour), at=at, wall=at))
        window = back.window(rows=50, seed=10 + hour)
        if hour == 2:
            found = window.channels["input.brightness"]
            shifted = msgspec.structs.replace(
                found, counts=[*[0] * (len(found.counts) - 1), found.rows], total=found.rows * 1.0
            )
            channels = {**window.channels, "input.brightness": shifted}
            window = msgspec.structs.replace(window, channels=channels)
        put(back, arrived(south, window, at=at, wall=at))
    return back


def report(back, since=NOW - HOUR, until=NOW + 3 * HOUR):
    return drift_report(back.store, "digits", [], since, until)


def test_the_report_tells_trend_splits_and_what_is_different_now(lived):
    found = report(lived)
    assert [t.rows for t in found.trend] == [100, 100, 100]
    sites = {s.value: s for s in found.splits if s.by == "site"}
    assert {name: s.rows for name, s in sites.items()} == {"north": 150, "south": 150}
    labels = {s.value: s.rows for s in found.splits if s.by == "label"}
    assert labels == {"(none)": 150, "lens=wide": 150, "floor=2": 150}
    assert sites["south"].worst == "input.brightness"
    assert sites["south"].distance > sites["north"].distance
    first = found.channels[0]
    assert first.name == "input.brightness"
    assert first.mean > first.mean_before
    assert first.ks[0] <= first.ks[1]
    assert (first.chi_squared, first.wasserstein[0] <= first.wasserstein[1]) == (None, True)
    assert sum(first.now) == pytest.approx(1)
    assert found.reference == "the time before, in the same version"


def test_what_changed_in_the_same_hours_is_told_however_much_devices_say(lived):
    lived.store.add_event(NOW - 2 * HOUR, "ann", "too early", "")
    lived.store.add_event(NOW + 1, "ann", "rollout started", "digits 2")
    with lived.store.transaction():
        for number in range(300):
            lived.store.add_event(NOW + 2 + number, "pi-1", "started", "", "pi-1")
    told = [(e.name, e.detail) for e in report(lived, since=NOW + 0.5).changes]
    assert told == [("rollout started", "digits 2")]


def test_a_first_hour_is_held_against_the_training_data(back):
    put(back, arrived(back.device("pi-1"), back.window(rows=50), at=NOW))
    assert report(back).reference == "the training data"


def test_a_model_without_windows_has_an_empty_report_and_an_unknown_one_none(back):
    empty = report(back)
    assert (empty.trend, empty.channels, empty.splits) == ((), (), ())
    assert "no drift" in report_file(empty)
    with pytest.raises(InvalidInputError, match="there is no model 'other'"):
        drift_report(back.store, "other", [], 0, NOW)


def test_accuracy_is_counted_on_labels_by_version(lived):
    labels = [
        a_label(row=str(i), taken_at=NOW + 60, label="3" if i < 8 else "5") for i in range(10)
    ]
    lived.store.add_labels(labels, NOW)
    found = report(lived)
    [version] = [s.accuracy for s in found.splits if s.by == "version"]
    assert (version.labelled, version.right) == (10, 8)
    assert version.counted_low < 0.8 < version.counted_high
    assert found.trend[0].accuracy.labelled == 10


def test_accuracy_is_estimated_where_the_bundle_has_a_calibration(lived):
    baseline = lived.bundle.baseline
    counts = baseline.channels["output.confidence"].counts
    calibrated = msgspec.structs.replace(baseline, correct=tuple(n // 2 for n in counts))
    with lived.store._write() as c:
        c.execute(update(tables.bundles).values(baseline=msgspec.json.encode(calibrated).decode()))
    found = report(lived)
    rows = [t.accuracy for t in found.trend]
    assert all(row.low < row.estimated < row.high for row in rows)
    usual = sum(calibrated.correct) / sum(counts)
    assert rows[0].estimated == pytest.approx(usual, abs=0.05)
    plot = trend_plot(found.trend)
    assert len(plot.line.split()) == 3
    assert len(plot.band.split()) == 6
    assert "<polygon" in report_file(found)
    doubted = msgspec.structs.replace(rows[-1], note="nobody knows")
    last = msgspec.structs.replace(found.trend[-1], accuracy=doubted)
    found = msgspec.structs.replace(found, trend=(*found.trend[:-1], last))
    assert "the last estimate should not be believed: nobody knows" in report_words(found)
    assert "not be believed: nobody knows" in report_file(found)


def test_what_devices_say_is_escaped_in_the_report_file(lived):
    lived.store.add_event(NOW, "<script>", "x", "<b>")
    page = report_file(report(lived))
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert all(0 <= bar.now <= 100 for row in report(lived).channels for bar in bars(row))


@pytest.fixture
def http(lived):
    app, parts = lived.application(Clock(NOW + 3 * HOUR))
    token = {"authorization": f"Bearer {lived.keyring.admin_token}"}
    with TestClient(app, headers=token) as client:
        client.parts = parts
        yield client


def test_the_api_gives_the_report_and_takes_labels_all_or_none(http, lived):
    answer = http.get("/api/v1/drift/digits?hours=4")
    assert msgspec.json.decode(answer.content, type=DriftReport).model == "digits"
    assert "Edge" not in http.get("/api/v1/drift/digits/page?hours=4").headers
    assert http.get("/api/v1/drift/digits?hours=-1").status_code == 400
    assert http.get("/api/v1/drift/nothing").status_code == 400
    good = msgspec.json.encode([a_label(), a_label(row="r2")])
    assert http.post("/api/v1/labels", content=good).json() == {"new": 2, "replaced": 0}
    assert http.post("/api/v1/labels", content=good).json() == {"new": 0, "replaced": 2}
    for bad, words in (
        ([a_label(row="r3"), a_label(device="nobody")], "no device nobody is enrolled"),
        ([a_label(row="r3"), a_label(row="")], "label 2"),
    ):
        refused = http.post("/api/v1/labels", content=msgspec.json.encode(bad))
        assert refused.status_code == 400
        assert words in refused.json()["detail"]
    assert http.post("/api/v1/labels", content=b"[{}]").status_code == 400
    assert len(lived.store.labels("digits")) == 2


def test_sums_come_in_pages_that_together_are_the_whole(http, lived):
    whole = http.get("/api/v1/drift/digits/sums", params={"hours": 9}).json()
    assert (len(whole["items"]), whole["next"]) == (6, None)
    for limit in range(1, 7):
        found, after = [], ""
        while after is not None:
            asked = {"hours": 9, "limit": limit, "after": after}
            page = http.get("/api/v1/drift/digits/sums", params=asked).json()
            found, after = found + page["items"], page["next"]
        assert found == whole["items"], limit
    for cursor in ("x", "-", "1-", "1-x", "9" * 30):
        asked = {"hours": 9, "after": cursor}
        assert http.get("/api/v1/drift/digits/sums", params=asked).status_code in (200, 400)


def test_the_pages_list_models_and_show_one(http):
    browser = TestClient(http.app, follow_redirects=False)
    link = http.parts.guard.new_link()
    browser.cookies = browser.get(link).cookies
    models = browser.get("/drift")
    assert models.status_code == 200
    assert "/drift/digits" in models.text
    page = browser.get("/drift/digits?hours=4")
    assert page.status_code == 200
    assert "input.brightness" in page.text
    assert "What changed in the same hours" in page.text
    refused = browser.post(
        "/drift/digits/alerts/none/mute", headers={"sec-fetch-site": "same-origin"}
    )
    assert refused.status_code == 404


def test_labels_are_read_from_csv_and_jsonl_and_a_bad_line_is_named(tmp_path):
    table = tmp_path / "labels.csv"
    table.write_text(
        "device,row,model,version,predicted,label,taken_at,confidence\n"
        "pi-1,r1,digits,1,3,8,1800000000,0.75\npi-1,r2,digits,1,3,3,1800000001,\n"
    )
    one, other = read_labels(table)
    assert (one.label, one.confidence, other.confidence) == ("8", 0.75, None)
    lines = tmp_path / "labels.jsonl"
    lines.write_bytes(b"\n".join(msgspec.json.encode(x) for x in (one, other)))
    assert read_labels(lines) == [one, other]
    lines.write_text(json.dumps({"device": "pi-1"}))
    with pytest.raises(FormatError, match="line 1"):
        read_labels(lines)
    table.write_text("device,row\npi-1,r1\n")
    with pytest.raises(FormatError, match="line 2"):
        read_labels(table)
    with pytest.raises(InvalidInputError, match="can't be read"):
        read_labels(tmp_path / "none.csv")


def test_a_baseline_keeps_how_its_confidences_were_right():
    confidence = np.array([0.1, 0.2, 0.9, 0.95])
    made = make_baseline({"output.confidence": confidence}, (), np.array([0.0, 1.0, 1.0, 1.0]))
    assert sum(made.correct) == 3
    rows = made.channels["output.confidence"].counts
    assert all(r <= n for r, n in zip(made.correct, rows, strict=True))
    assert made.edges_id == make_baseline({"output.confidence": confidence}, ()).edges_id
    assert isinstance(a_label(), Label)
