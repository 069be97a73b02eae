"""`edge drift|alert|label|webhook|device` as people type them, on one server over a socket."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from edge_sdk.cli import edge, main
from edge_sdk.errors import EdgeError, RefusedError
from edge_sdk.messages import Sample
from fleet_server.samples import record_of
from tests.server_side import NOW, backend, serving
from tests.unit.test_api_lists import an_alert
from tests.unit.test_decay_rollups import a_label, arrived, put


def a_sample(bundle, number, fill):
    manifest = bundle.manifest
    data = np.full(manifest.input.shape, fill, np.uint8)
    sample = Sample(
        model="digits", version="1", digest=bundle.digest, command=1, policy="margin",
        id=f"s{number}", score=0.5, probabilities=(0.1,) * 10, dtype="uint8", shape=data.shape,
        data=data.tobytes(),
    )  # fmt: skip
    return record_of(sample, "pi-1", manifest.labels, NOW)


@pytest.fixture(scope="module")
def run(new_database, tmp_path_factory):
    """Types a command at a server with two devices that sent a window each, a label and alerts."""
    home = tmp_path_factory.mktemp("commands")
    with new_database(home) as database, backend(home, database) as back:
        for number in (1, 2):
            device = back.device(f"pi-{number}")
            put(
                back,
                arrived(device, back.window(rows=50, seed=number), at=NOW - 3600, wall=NOW - 3600),
            )
        back.store.add_labels([a_label()], NOW)
        for number in (1, 2):
            back.store.save_alert(an_alert(number))
        app, _ = back.application(mails=True)
        token = back.keyring.admin_token
        with serving(app) as url:

            def typed(*arguments):
                environment = {"EDGE_TOKEN": token, "HOME": str(home)}
                done = CliRunner().invoke(
                    edge, [*map(str, arguments), "--server", url], env=environment
                )
                if done.exception and not isinstance(done.exception, SystemExit):
                    raise done.exception
                return done.output

            typed.store, typed.url, typed.token = back.store, url, token
            yield typed


def test_an_alert_is_shown_seen_muted_and_re_baselined(run):
    first, second = (row["id"] for row in json.loads(run("alert", "list", "--json")))
    assert first in run("alert", "show", first)
    assert f"{first} is acknowledged" in run("alert", "ack", first)
    assert f"{first} is muted until" in run("alert", "mute", first, "--hours", "2")
    assert second in run("drift", "rebaseline", second)
    states = {row["id"]: row["state"] for row in json.loads(run("alert", "list", "--json"))}
    assert states[first] == "muted"
    for command in (
        ("alert", "show"),
        ("alert", "ack"),
        ("alert", "mute"),
        ("drift", "rebaseline"),
    ):
        with pytest.raises(EdgeError, match="no alert"):
            run(*command, "nobody")


def test_drift_is_reported_on_screen_and_in_a_file_and_exported(run, tmp_path):
    page = tmp_path / "report.html"
    assert "digits" in run("drift", "report", "digits", "--html", page)
    assert "<html" in page.read_text()
    assert run("drift", "show", "digits").startswith("DEVICE")
    run("drift", "export", "digits", "--out", tmp_path / "parquet")
    assert list((tmp_path / "parquet").glob("*.parquet"))
    for command in ("report", "show"):
        with pytest.raises(EdgeError, match="no model"):
            run("drift", command, "other")


def test_labels_that_are_there_are_counted_and_an_empty_queue_says_so(run):
    [row] = json.loads(run("label", "accuracy", "digits", "--json"))
    assert (row["value"], row["accuracy"]["right"]) == ("1", 1)
    assert json.loads(run("label", "list", "digits", "--json")) == []


def test_windows_speak_tfdv_and_are_held_against_its_schema_and_great_expectations(run, tmp_path):
    schema, statistics, suite = (tmp_path / n for n in ("s.pbtxt", "n.pbtxt", "suite.json"))
    told = run("drift", "tfdv", "digits", "--schema", schema, "--statistics", statistics)
    assert told.split() == [str(schema), str(statistics)]
    assert "input.brightness" in (same := run("drift", "tfdv", "digits", "--against", statistics))
    assert same.split()[-1] == "+0.00"
    assert "FAILS" not in run("drift", "expect", "digits", schema)
    wish = {"type": "expect_column_mean_to_be_between", "kwargs": {"column": "brightness"}}
    wish["kwargs"]["min_value"] = 0.99
    suite.write_text(json.dumps({"expectations": [wish]}))
    with pytest.raises(RefusedError, match="1 of 1 expectations do not hold"):
        run("drift", "expect", "digits", suite)
    suite.write_text("{}")
    with pytest.raises(EdgeError, match="suite can't be read"):
        run("drift", "expect", "digits", suite)
    with pytest.raises(EdgeError, match="say what is wanted"):
        run("drift", "tfdv", "digits")
    with pytest.raises(EdgeError, match="no model"):
        run("drift", "tfdv", "other", "--schema", schema)


def test_a_file_that_can_not_be_written_is_one_sentence(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("EDGE_TOKEN", run.token)
    nowhere = str(tmp_path / "none" / "x")
    for asked in (
        ("drift", "report", "digits", "--html", nowhere),
        ("drift", "tfdv", "digits", "--schema", nowhere),
    ):
        with pytest.raises(SystemExit) as ended:
            main([*asked, "--server", run.url])
        told = capsys.readouterr().err
        assert ended.value.code == 1
        assert told == f"edge: {nowhere} can't be used: No such file or directory\n"


def test_rows_that_wait_are_labelled_by_functions_and_by_spreading_and_become_a_dataset(
    run, tmp_path
):
    with pytest.raises(EdgeError, match=r"came with its data: .*\[samples\]"):
        run("label", "weak", "digits")
    bundle = run.store.bundles("digits")[0]
    run.store.add_samples([a_sample(bundle, n, fill=15 if n % 2 else 1) for n in range(24)])
    with pytest.raises(EdgeError, match="nothing to spread"):
        run("label", "weak", "digits")
    functions = tmp_path / "functions.py"
    functions.write_text(
        "def label_bright(row):\n    return 1 if row.mean() > 8 else -1\n"
        "def label_corner(row):\n    return 1 if row[0, 0] > 8 else -1\n"
        "def label_dark(row):\n    return 0 if row.mean() < 8 else -1\n"
    )
    told = run("label", "weak", "digits", "--functions", functions)
    assert "12 of 24 waiting rows labelled" in told
    assert ["label_dark", "-", "0.50"] in [line.split() for line in told.splitlines()]
    rows = "".join(f"pi-1,s{n},digits,1,0,{n % 2},{NOW - 9}\n" for n in range(24) if n % 3 == 0)
    given = tmp_path / "labels.csv"
    given.write_text("device,row,model,version,predicted,label,taken_at\n" + rows)
    assert "labelled" in run("label", "add", given, "--picked")
    told = json.loads(run("label", "weak", "digits", "--json"))
    assert (told["labelled"], json.loads(run("label", "list", "digits", "--json"))) == (16, [])
    out = tmp_path / "rows.npz"
    assert str(out) in run("label", "export", "digits", "--out", out)
    with np.load(out) as made:
        assert made["y"].tolist() == [int(x.max() > 8) for x in made["x"]]
        origins = json.loads(made["lineage"].item())["rows"]
    assert {origin["source"] for origin in origins} == {"feedback", "weak"}
    assert "pi-1" not in {origin["device"] for origin in origins}


def test_webhooks_are_added_listed_followed_and_ended(run):
    made = run("webhook", "add", "mailto:ops@edge.example")
    assert "writes to mailto:ops@edge.example" in made
    name = made.split()[0]
    assert "mailto:ops@edge.example" in run("webhook", "list")
    assert run("webhook", "log", name)
    assert f"{name} is gone" in run("webhook", "remove", name)
    with pytest.raises(EdgeError):
        run("webhook", "remove", name)
    with pytest.raises(EdgeError, match="mailto"):
        run("webhook", "add", "mailto:ops")


def test_a_device_is_forgotten_with_all_that_came_from_it_and_nobody_is_not(run):
    with pytest.raises(EdgeError, match="nobody"):
        run("device", "forget", "nobody", "--yes")
    told = run("device", "forget", "pi-2", "--yes")
    assert told.strip() == "pi-2 is forgotten: 2 rollups, 1 windows"
    assert json.loads(run("device", "ran", "pi-1", "--json")) == []
