"""The HTTP side of a real server process: who gets in, what is refused in which words."""

import json
import os
import re
import subprocess
import sys

import httpx2
import msgspec
import pytest

from edge_sdk.errors import InvalidInputError, RefusedError, ServerError
from edge_sdk.identity import Token, exchange_public, new_exchange_key
from edge_sdk.messages import open_assignment
from edge_sdk.signing import SigningKey
from fleet_server.client import Client
from fleet_server.data_dir import read_admin_token
from tests.bundles import make_bundle
from tests.server_side import Device, join, trusting_server, until

pytestmark = pytest.mark.system

KEY = SigningKey.generate()
BUNDLE = make_bundle(KEY, model=bytes(range(256)) * 700)


@pytest.fixture(scope="module")
def server(new_database, tmp_path_factory):
    with trusting_server(tmp_path_factory.mktemp("server"), KEY, new_database) as running:
        yield running


@pytest.fixture(scope="module")
def fleet(server):
    with server.client() as client:
        yield client


@pytest.fixture
def http(server):
    with httpx2.Client(base_url=server.where.url) as client:
        yield client


@pytest.fixture(scope="module")
def digest(fleet):
    return fleet.publish(BUNDLE).digest


@pytest.fixture(scope="module")
def device(fleet, server):
    with httpx2.Client(base_url=server.where.url) as client:
        joined, _, mqtt_port = join(client, fleet.new_enrolment_key().token, "pi-1")
    assert mqtt_port == server.where.mqtt_port
    return joined


def bearer(device, token=None):
    return {"authorization": f"Bearer {device.name}:{token or device.secrets.http_token}"}


def the_problem(response, status, words):
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["status"] == status
    assert words in problem["detail"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "overview"),
        ("GET", "devices"),
        ("GET", "bundles"),
        ("GET", "alerts"),
        ("GET", "rollouts"),
        ("GET", "rollouts/r1"),
        ("POST", "bundles"),
        ("POST", "rollouts"),
        ("POST", "rollouts/r1/abort"),
        ("POST", "enrolment-keys"),
        ("POST", "alerts/a1/acknowledge"),
    ],
)
def test_without_the_admin_token_nothing_is_told_or_done(http, server, method, path):
    token = read_admin_token(server.data_dir)
    for header in ({}, {"authorization": "Bearer x"}, {"authorization": f"Basic {token}"}):
        answer = http.request(method, f"/api/v1/{path}", headers=header)
        the_problem(answer, 401, "token" if header.get("authorization") == "Bearer x" else "Bearer")
        assert answer.headers["www-authenticate"] == "Bearer"


def test_a_wrong_token_is_a_server_error_for_the_client(server):
    with Client(server.where.url, "wrong") as client, pytest.raises(ServerError, match="token"):
        client.overview()


def test_a_bundle_can_be_published_again_but_not_changed_or_forged(fleet, digest):
    assert fleet.publish(BUNDLE).digest == digest
    with pytest.raises(RefusedError, match="other bytes"):
        fleet.publish(make_bundle(KEY, model=b"other"))
    with pytest.raises(RefusedError, match="signature does not hold"):
        fleet.publish(make_bundle(SigningKey.generate(), version="2"))
    with pytest.raises(RefusedError):
        fleet.publish(BUNDLE[:5000])
    assert [b.digest for b in fleet.bundles()] == [digest]


def test_a_device_fetches_a_bundle_whole_or_from_where_it_broke_off(http, device, digest):
    path = f"/device/v1/bundles/{digest}"
    whole = http.get(path, headers=bearer(device))
    assert whole.content == BUNDLE
    assert whole.headers["etag"] == f'"{digest}"'
    assert whole.headers["accept-ranges"] == "bytes"
    middle = len(BUNDLE) // 2
    rest = http.get(path, headers=bearer(device) | {"range": f"bytes={middle}-"})
    assert (rest.status_code, rest.content) == (206, BUNDLE[middle:])
    assert rest.headers["content-range"] == f"bytes {middle}-{len(BUNDLE) - 1}/{len(BUNDLE)}"
    some = http.get(path, headers=bearer(device) | {"range": "bytes=10-19"})
    assert (some.status_code, some.content) == (206, BUNDLE[10:20])


def test_a_range_holds_only_for_the_bundle_it_was_begun_with(http, device, digest):
    path = f"/device/v1/bundles/{digest}"
    ranged = bearer(device) | {"range": "bytes=100-"}
    same = http.get(path, headers=ranged | {"if-range": f'"{digest}"'})
    assert same.status_code == 206
    other = http.get(path, headers=ranged | {"if-range": '"another"'})
    assert (other.status_code, other.content) == (200, BUNDLE)
    beyond = http.get(path, headers=bearer(device) | {"range": f"bytes={len(BUNDLE)}-"})
    assert beyond.status_code == 416
    assert beyond.headers["content-range"] == f"bytes */{len(BUNDLE)}"


def test_bundles_and_orders_are_for_devices_only(http, server, fleet, device, digest):
    other, _, _ = join(http, fleet.new_enrolment_key().token, "pi-other")
    admin = {"authorization": f"Bearer {read_admin_token(server.data_dir)}"}
    crossed = bearer(device, other.secrets.http_token)
    for path in (f"bundles/{digest}", "desired"):
        for headers in ({}, admin, crossed, bearer(device, device.secrets.mqtt_password)):
            assert http.get(f"/device/v1/{path}", headers=headers).status_code == 401
    missing = http.get(f"/device/v1/bundles/{'0' * 64}", headers=bearer(device))
    the_problem(missing, 404, "no bundle")
    climbing = http.get("/device/v1/bundles/..%2f..%2fkeys%2fadmin.token", headers=bearer(device))
    assert climbing.status_code == 404


def test_a_rollout_becomes_a_signed_order(http, fleet, digest):
    late, trust, _ = join(http, fleet.new_enrolment_key().token, "pi-late")
    assert http.get("/device/v1/desired", headers=bearer(late)).status_code == 204
    made = fleet.create_rollout("digits", "1", {"name": "all-at-once"})
    until(lambda: http.get("/device/v1/desired", headers=bearer(late)).status_code == 200)
    envelope = http.get("/device/v1/desired", headers=bearer(late)).content
    order = open_assignment(envelope, "pi-late", trust.director_key)
    assert (order.digest, order.length, order.rollout) == (digest, len(BUNDLE), made)
    story = fleet.command_rollout(made, "abort")
    assert story.rollout.status == "aborted"
    assert [json.loads(bytes(d.decision))["action"] for d in story.decisions] == ["abort", "start"]


def test_what_is_not_there_or_makes_no_sense_is_said(fleet, http, server):
    with pytest.raises(InvalidInputError, match="there is no rollout 'r9'"):
        fleet.rollout("r9")
    with pytest.raises(InvalidInputError, match="does not answer POST"):
        fleet.command_rollout("a/b?c", "abort")
    with pytest.raises(InvalidInputError, match="there is no alert"):
        fleet.acknowledge("a9")
    with pytest.raises(InvalidInputError, match="no bundle of ghosts 1"):
        fleet.create_rollout("ghosts", "1", {"name": "canary"})
    with pytest.raises(InvalidInputError, match="uses must be"):
        fleet.new_enrolment_key(uses=0)
    admin = {"authorization": f"Bearer {read_admin_token(server.data_dir)}"}
    for body in (b"", b"{", b"[]", b'{"model":1}', b'{"model":"a","version":"1","x":1}'):
        answer = http.post("/api/v1/rollouts", content=body, headers=admin)
        the_problem(answer, 400, "the rollout can't be read")
    the_problem(http.get("/nowhere"), 404, "does not answer GET /nowhere")


def test_a_body_over_the_limit_is_refused_before_it_is_read(http, server):
    admin = {"authorization": f"Bearer {read_admin_token(server.data_dir)}"}
    announced = http.post("/device/v1/enrol", content=b"x" * 20_000)
    the_problem(announced, 413, "longer than 16,384 bytes")
    chunked = http.post("/device/v1/enrol", content=iter([b"x" * 9000] * 3))
    the_problem(chunked, 413, "longer")
    the_problem(http.post("/api/v1/rollouts", content=b"x" * 70_000, headers=admin), 413, "longer")


def test_a_malformed_or_unproven_enrolment_is_a_problem_in_words(http, fleet):
    for body in (b"", b"{}", b'{"format":2}', b"\xff"):
        the_problem(http.post("/device/v1/enrol", content=body), 400, "the enrolment request")
    token = Token.parse(fleet.new_enrolment_key().token)
    stranger = Device("pi-x", exchange_public(new_exchange_key()))
    false = Token(token.id, "0" * 40, token.fingerprint)
    answer = http.post("/device/v1/enrol", content=msgspec.json.encode(stranger.enrolment(false)))
    the_problem(answer, 422, "token is unknown here")


def test_a_taken_device_id_is_a_conflict(http, fleet, device):
    token = Token.parse(fleet.new_enrolment_key().token)
    thief = Device(device.name, exchange_public(new_exchange_key()))
    answer = http.post("/device/v1/enrol", content=msgspec.json.encode(thief.enrolment(token)))
    the_problem(answer, 409, "device id pi-1 is taken by another key")


def test_answers_are_not_cached_and_the_api_describes_itself(http, server, fleet):
    admin = {"authorization": f"Bearer {read_admin_token(server.data_dir)}"}
    answer = http.get("/api/v1/overview", headers=admin)
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["content-type"] == "application/json"
    assert http.get("/healthz").json()["status"] == "ok"
    described = http.get("/openapi.json").json()
    create = described["paths"]["/api/v1/rollouts"]["post"]
    body = create["requestBody"]["content"]["application/json"]["schema"]
    assert body == {"$ref": "#/components/schemas/NewRollout"}
    named = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(described)))
    assert named <= set(described["components"]["schemas"])
    assert http.get("/docs").status_code == 404


def test_the_history_is_told_as_it_happens_and_from_where_a_listener_was_cut_off(
    http, server, fleet, device
):
    admin = {"authorization": f"Bearer {read_admin_token(server.data_dir)}"}
    told = []
    with http.stream(
        "GET", "/api/v1/events/stream", headers={**admin, "last-event-id": "0"}, timeout=60
    ) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        for line in stream.iter_lines():
            if not line.startswith("data:"):
                continue
            told.append(json.loads(line.removeprefix("data:")))
            if len(told) == 1:
                fleet.revoke(device.name)
                fleet.readmit(device.name)
            if told[-1]["name"] == "readmitted":
                break
    ids = [event["id"] for event in told]
    assert ids == sorted(set(ids))
    assert ids[0] == 1
    assert ("revoked", device.name) in {(e["name"], e["device"]) for e in told}
    assert [event.id for event in fleet.history(device=device.name)][:1] == ids[-1:]
    assert http.get("/api/v1/events/stream").status_code == 401


def test_the_overview_shows_what_joined(fleet, device, digest):
    seen = fleet.overview()
    assert device.name in {row.id for row in seen.devices}
    assert digest in {row.digest for row in seen.versions}
    assert seen.headline


def test_a_device_s_latency_is_told_once_it_reported_some(fleet, device, server):
    assert fleet.latency("pi-1") == []
    with pytest.raises(InvalidInputError, match="there is no device 'pi-99'"):
        fleet.latency("pi-99")
    command = [sys.executable, "-m", "edge_sdk.cli", "benchmark", "--server", server.where.url]
    known = {**os.environ, "EDGE_TOKEN": read_admin_token(server.data_dir)}
    told = subprocess.run([*command, "--device", "pi-1"], env=known, capture_output=True, text=True)
    assert told.stdout == "pi-1 has reported no answers yet\n", told.stderr
    asked = fleet.measure("pi-1", 30)
    assert (asked.device, asked.words) == ("pi-1", "")
    assert fleet.measured(asked) == asked  # it is away
    assert fleet.measure("pi-1", 30).command == asked.command + 1
    with pytest.raises(InvalidInputError, match="no device 'pi-99' that could be asked"):
        fleet.measure("pi-99", 30)
    with pytest.raises(InvalidInputError, match="runs"):
        fleet.measure("pi-1", 0)
    both = subprocess.run([*command, "x", "--device", "pi-1"], env=known, capture_output=True,
                          text=True)  # fmt: skip
    assert (both.returncode, both.stdout) == (2, "")
    assert "give FILES to measure here, or --device" in both.stderr
