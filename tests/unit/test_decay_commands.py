"""`edge drift|alert|label|webhook|device` as people type them, on one server over a socket."""

import json

import pytest
from click.testing import CliRunner

from edge_sdk.cli import edge
from edge_sdk.errors import EdgeError
from tests.server_side import NOW, backend, serving
from tests.unit.test_api_lists import an_alert
from tests.unit.test_decay_rollups import a_label, arrived, put


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
