"""Who gets in: a proven token, a usable id, and a key that is the id's own."""

import ssl

import msgspec
import pytest

from device_agent.certificate import accept_certificate, certificate_request
from edge_sdk.errors import EdgeError, InvalidInputError, RefusedError, UntrustedError
from edge_sdk.identity import Token, accept_ca, accept_trust, prove, shared_secrets
from fleet_server.controller import Controller
from fleet_server.credentials import Credentials
from fleet_server.enrolment import Allowance, enrol, new_token
from fleet_server.planning import Wish
from fleet_server.revocation import readmit, revoke
from tests.databases import all_in
from tests.server_side import NOW, Device, backend

ALL_AT_ONCE = Wish(model="digits", version="1", strategy={"name": "all-at-once"})


@pytest.fixture
def back(tmp_path, database):
    with backend(tmp_path, database) as made:
        yield made


def a_token(back, uses=1, hours=1.0, device="", now=NOW):
    allowed = Allowance(uses=uses, hours=hours, device=device)
    return new_token(back.store, back.keyring, allowed, now)


def joins(back, request, now=NOW):
    return enrol(back.store, back.keyring, request, mqtt_port=1883, now=now)


def a_device(back, name="pi-1"):
    return Device(name, back.keyring.trust.exchange)


def test_a_device_with_a_token_joins_and_both_sides_share_secrets(back):
    token, device = a_token(back), a_device(back)
    answer = joins(back, device.enrolment(token))
    trust = accept_trust(answer, token)
    assert trust == back.keyring.trust
    assert answer.mqtt_port == 1883
    record = back.store.device("pi-1")
    assert (record.profile, record.labels) == ("raspberry-pi-4", {"site": "north"})
    secrets = shared_secrets(device.private, trust.exchange, "pi-1")
    credentials = Credentials(back.store, back.keyring.exchange)
    assert credentials.password_holds("pi-1", secrets.mqtt_password.encode())
    assert credentials.token_holds("pi-1", secrets.http_token)
    assert not credentials.password_holds("pi-1", secrets.http_token.encode())
    assert not credentials.token_holds("pi-1", "")
    assert not credentials.password_holds("pi-2", b"")
    assert not credentials.token_holds("pi-2", secrets.http_token)


def test_a_token_lets_in_as_many_as_it_says(back):
    token = a_token(back, uses=2)
    for name in ("pi-1", "pi-2"):
        joins(back, a_device(back, name).enrolment(token))
    with pytest.raises(UntrustedError, match="used up"):
        joins(back, a_device(back, "pi-3").enrolment(token))
    assert [d.id for d in back.store.devices()] == ["pi-1", "pi-2"]


def test_a_token_ends_at_its_hour(back):
    token = a_token(back, hours=1.0)
    with pytest.raises(UntrustedError, match="expired"):
        joins(back, a_device(back).enrolment(token), now=NOW + 3600)
    joins(back, a_device(back).enrolment(token), now=NOW + 3599)


def test_asking_twice_with_the_same_key_is_one_device_and_one_use(back):
    token, device = a_token(back), a_device(back)
    first = joins(back, device.enrolment(token))
    again = joins(back, device.enrolment(token), now=NOW + 7200)
    assert again == first
    assert len(back.store.devices()) == 1


def test_another_key_can_not_take_a_device_id(back):
    token = a_token(back, uses=2)
    first = a_device(back)
    joins(back, first.enrolment(token))
    with pytest.raises(RefusedError, match="device id pi-1 is taken by another key"):
        joins(back, a_device(back).enrolment(token))
    assert back.store.device("pi-1").public == first.public
    assert back.store.enrolment_key(token.id).uses_left == 1


def test_a_wrong_secret_and_an_unknown_token_get_the_same_answer(back):
    token = a_token(back)
    wrong = msgspec.structs.replace(token, secret="0" * 40)
    unknown = msgspec.structs.replace(token, id="ffffffff")
    words = set()
    for bad in (wrong, unknown):
        with pytest.raises(UntrustedError) as caught:
            joins(back, a_device(back).enrolment(bad))
        words.add(str(caught.value))
    assert len(words) == 1
    assert back.store.devices() == []


def test_a_request_changed_on_the_way_is_refused(back):
    token, device = a_token(back), a_device(back)
    request = device.enrolment(token)
    other = a_device(back).public
    for change in ({"public": other}, {"device": "pi-2"}, {"labels": {"site": "south"}}):
        with pytest.raises(UntrustedError):
            joins(back, msgspec.structs.replace(request, **change))
    assert back.store.devices() == []


@pytest.mark.parametrize(
    "change",
    [
        {"device": "../x"},
        {"device": "A B"},
        {"device": ""},
        {"device": "x" * 65},
        {"profile": ""},
        {"profile": "p" * 65},
        {"profile": "two\nlines"},
        {"labels": {str(n): "x" for n in range(17)}},
        {"labels": {"site": "x" * 65}},
        {"public": "zz"},
        {"public": "00" * 32},
        {"public": "AA" * 32},
    ],
)
def test_what_can_not_be_stored_or_shown_is_refused(back, change):
    token, device = a_token(back), a_device(back)
    with pytest.raises(EdgeError) as caught:
        joins(back, device.enrolment(token, **change))
    assert not isinstance(caught.value, UntrustedError)
    assert back.store.devices() == []
    assert back.store.enrolment_key(token.id).uses_left == 1


def test_voided_tokens_let_nobody_in(back):
    token = a_token(back, uses=5)
    back.store.void_enrolment_keys()
    with pytest.raises(UntrustedError):
        joins(back, a_device(back).enrolment(token))


def test_a_token_made_for_nobody_here_is_refused(back):
    stranger = Token.new(b"another server")
    with pytest.raises(UntrustedError):
        joins(back, prove(a_device(back).enrolment(stranger), stranger.key))


def test_the_database_does_not_hold_the_tokens_secret(tmp_path, database):
    with backend(tmp_path, database) as back:
        token = a_token(back)
    written = all_in(database)
    assert token.id.encode() in written
    assert token.secret.encode() not in written
    assert bytes.fromhex(token.secret) not in written


def test_a_certificate_comes_with_the_enrolment_if_it_is_asked_for(back, tmp_path):
    token, device = a_token(back), a_device(back)
    assert joins(back, device.enrolment(token)).certificate == ""
    csr = certificate_request(tmp_path, "pi-1")
    answer = joins(back, device.enrolment(token, csr=csr))
    accept_certificate(tmp_path, answer.certificate, answer.ca)
    assert accept_ca(answer.ca, back.keyring.trust) == answer.ca
    der = ssl.PEM_cert_to_DER_cert(answer.certificate)
    credentials = Credentials(back.store, back.keyring.exchange)
    assert credentials.certificate_holds("pi-1", der)
    assert not credentials.certificate_holds("pi-2", der)
    assert joins(back, device.enrolment(token, csr=csr)).certificate


def test_a_token_and_a_public_key_do_not_get_a_certificate_of_somebody_else(back, tmp_path):
    token, device = a_token(back, uses=9), a_device(back)
    for name in ("own", "thief"):
        (tmp_path / name).mkdir()
    joins(back, device.enrolment(token, csr=certificate_request(tmp_path / "own", "pi-1")))
    with pytest.raises(RefusedError, match="another key than before"):
        joins(back, device.enrolment(token, csr=certificate_request(tmp_path / "thief", "pi-1")))


def test_a_key_made_for_a_device_replaces_its_key_and_keeps_its_history(back):
    first, second = a_device(back), a_device(back)
    joins(back, first.enrolment(a_token(back)))
    back.store.seen({"pi-1": NOW + 5}, {"pi-1": 1000})
    token = a_token(back, device="pi-1")
    with pytest.raises(UntrustedError, match="for device pi-1 alone"):
        joins(back, a_device(back, "pi-2").enrolment(token))
    joins(back, second.enrolment(token, labels={"site": "south"}), now=NOW + 10)
    record = back.store.device("pi-1")
    assert (record.public, record.labels) == (second.public, {"site": "south"})
    assert (record.rows, record.last_seen, record.enrolled_at) == (1000, NOW + 5, NOW)
    assert [e.name for e in back.store.events() if e.device] == ["enrolled anew", "enrolled"]
    with pytest.raises(RefusedError, match="taken by another key"):
        joins(back, first.enrolment(a_token(back)))


def test_a_revoked_device_needs_a_token_made_after_that(back):
    old = a_token(back, uses=9, now=NOW - 10)
    first, second = a_device(back), a_device(back)
    joins(back, first.enrolment(old))
    credentials = Credentials(back.store, back.keyring.exchange)
    password = first.secrets.mqtt_password.encode()
    assert credentials.password_holds("pi-1", password)
    revoke(back.store, "pi-1", NOW)
    credentials.forget("pi-1")
    assert not credentials.password_holds("pi-1", password)
    for request in (first.enrolment(old), second.enrolment(old)):
        with pytest.raises(RefusedError):
            joins(back, request)
    newer = a_token(back, uses=9, now=NOW + 1)
    with pytest.raises(RefusedError, match="was revoked"):
        joins(back, first.enrolment(newer))
    joins(back, second.enrolment(newer))
    assert back.store.device("pi-1").revoked_at is None
    assert credentials.password_holds("pi-1", second.secrets.mqtt_password.encode())


def test_revoking_and_readmitting_say_what_can_not_be(back):
    joins(back, a_device(back).enrolment(a_token(back)))
    with pytest.raises(InvalidInputError, match="there is no device 'pi-9'"):
        revoke(back.store, "pi-9", NOW)
    with pytest.raises(RefusedError, match="is not revoked"):
        readmit(back.store, "pi-1", NOW)
    revoke(back.store, "pi-1", NOW)
    with pytest.raises(RefusedError, match="is revoked already"):
        revoke(back.store, "pi-1", NOW)
    readmit(back.store, "pi-1", NOW)
    assert back.store.device("pi-1").revoked_at is None


@pytest.mark.parametrize("wish", [{"device": "../x"}, {"device": "pi-1", "uses": 2}])
def test_a_key_for_one_device_is_for_one_that_can_be_and_once(back, wish):
    with pytest.raises(InvalidInputError):
        a_token(back, **wish)


def test_an_order_is_withheld_from_a_revoked_device(back):
    orders = []
    controller = Controller(back.store, back.keyring.director, lambda *o: orders.append(o))
    for name in ("pi-1", "pi-2"):
        joins(back, a_device(back, name).enrolment(a_token(back)))
    revoke(back.store, "pi-1", NOW)
    controller.create(ALL_AT_ONCE, NOW)
    controller.tick(NOW)
    assert [device for device, _ in orders] == ["pi-2"]
    readmit(back.store, "pi-1", NOW)
    controller.tick(NOW + 1)
    assert back.store.assignment("pi-1") is None  # the rollout was planned without it
