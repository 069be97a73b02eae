"""Alerts by e-mail: through a real SMTP server, encrypted, once, and again until it is taken."""

import socket
import ssl
from contextlib import contextmanager
from email import message_from_bytes
from email.policy import default

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult
from starlette.testclient import TestClient

from edge_sdk.errors import InvalidInputError, ServerError
from fleet_server import alert_life as life
from fleet_server import mail as mail_module
from fleet_server.ca import open_ca, server_certificate, server_context
from fleet_server.fleet import alert_record
from fleet_server.mail import Mailer, Relay, is_address, letter, parse_relay
from fleet_server.records import Hook
from fleet_server.store import Store
from fleet_server.webhooks import Messenger
from tests.server_side import NOW, backend
from tests.unit.test_decay_alerts import a_finding

FROM, TO = "fleet@edge.example", "ops@edge.example"
SPECIALS = '"(),:;<>@[]\\'


class Box:
    """What arrived."""

    def __init__(self):
        self.got, self.refuse = [], 0

    async def handle_DATA(self, server, session, envelope):  # noqa: N802 - aiosmtpd calls it so
        if self.refuse:
            self.refuse -= 1
            return "451 try again"
        assert session.ssl is not None or not server.tls_context
        self.got.append(message_from_bytes(envelope.content, policy=default))
        return "250 OK"


def login(_server, _session, _envelope, _mechanism, data):
    return AuthResult(success=(data.login, data.password) == (b"fleet", b"s3cret"))


@contextmanager
def smtp_server(tls=None):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    box = Box()
    secured = {} if tls is None else {
        "tls_context": tls, "require_starttls": True, "authenticator": login, "auth_required": True,
    }  # fmt: skip
    running = Controller(box, hostname="127.0.0.1", port=port, **secured)
    running.start()
    try:
        yield box, port
    finally:
        running.stop()


@pytest.fixture(scope="module")
def tls(tmp_path_factory):
    """The server's side with a certificate for localhost, and a client's that believes its CA."""
    folder = tmp_path_factory.mktemp("ca")
    ca = open_ca(folder, first=True)
    server_certificate(folder, ca, ["localhost", "127.0.0.1"], NOW)
    return server_context(folder, "need none"), ssl.create_default_context(cadata=ca.pem)


def relay(port, **changes):
    known = {"user": "fleet", "password": "s3cret"} | changes
    return Relay("localhost", port, FROM, **known)


@contextmanager
def told(store, mailer):
    made = Messenger(store, mailer=mailer)
    try:
        yield made
    finally:
        made.close()


def test_an_alert_is_mailed_encrypted_with_what_to_do_once_and_again_until_it_is_taken(
    database, tls
):
    row = life.opened("digits", a_finding(), NOW)
    with Store(database) as store, smtp_server(tls[0]) as (box, port):
        store.add_hook(
            Hook(id="w1", url=f"mailto:{TO}", secret="x", events="alert", private=False,
                 created_at=NOW)
        )  # fmt: skip
        store.save_alert(alert_record(row, NOW))
        store.add_event(NOW, "pi-1", "enrolled", "", "pi-1")
        store.add_event(NOW, "decay", "alert opened", f"{row.id}: {row.title}")
        box.refuse = 1
        with told(store, Mailer(relay(port), tls[1])) as messenger:
            messenger.look(NOW)
            assert store.hooks()[0].failures == 1
            messenger.look(NOW + 60)
            messenger.look(NOW + 120)
    [mail] = box.got
    assert (mail["from"], mail["to"], mail["auto-submitted"]) == (FROM, TO, "auto-generated")
    assert mail["subject"] == f"[edge] alert opened: {row.title}"
    text = mail.get_content()
    assert row.action in text
    assert f"edge alert show {row.id}" in text


def test_a_relay_that_is_not_believed_or_does_not_know_us_gets_nothing(tls, monkeypatch):
    monkeypatch.setattr(mail_module, "TIMEOUT", 3.0)
    mail = letter(TO, FROM, "s", "t", "n", NOW)
    with smtp_server(tls[0]) as (box, port):
        with pytest.raises(ServerError, match="CERTIFICATE_VERIFY_FAILED"):
            Mailer(relay(port)).send(mail)  # the system's CAs don't know it
        with pytest.raises(ServerError, match="did not take the mail"):
            Mailer(relay(port, password="wrong"), tls[1]).send(mail)
        assert not box.got
    with pytest.raises(ServerError, match="did not take the mail"):
        Mailer(relay(port), tls[1]).send(mail)  # nobody listens any more


def test_a_password_never_travels_in_the_open_and_only_a_relay_of_this_machine_may_be_plain():
    mail = letter(TO, FROM, "s", "t", "n", NOW)
    with smtp_server() as (box, port):
        Mailer(relay(port, user="", password="")).send(mail)
        with pytest.raises(ServerError, match="no STARTTLS"):
            Mailer(relay(port)).send(mail)
    assert len(box.got) == 1


def test_what_devices_say_can_not_write_headers():
    mail = letter(TO, FROM, "drift at site=x\r\nBcc: all@edge.example\n", "t", "n", NOW)
    assert mail["subject"] == "drift at site=x Bcc: all@edge.example"
    assert "bcc" not in mail


@pytest.mark.parametrize(
    ("url", "password", "why"),
    [
        ("http://mail.example/?from=a@b.example", "", "is given as smtp"),
        ("smtp://mail.example/", "", "is given as smtp"),
        ("smtp://mail.example/?a@b.example", "", "is given as smtp"),
        ("smtp://mail.example/?to=a@b.example", "", "is given as smtp"),
        ("smtp://mail.example:x/?from=a@b.example", "", "is given as smtp"),
        ("smtp://u:p@mail.example/?from=a@b.example", "", "no place for a password"),
        ("smtp://u@mail.example/?from=a@b.example", "", "needs both"),
        ("smtp://mail.example/?from=a@b.example", "p", "needs both"),
        ("smtp://mail.example/?from=a@b.example%0aBcc:x@y.example", "", "is given as smtp"),
    ],
)
def test_an_smtp_server_that_can_not_be_is_refused_with_the_form_it_has(url, password, why):
    with pytest.raises(InvalidInputError, match=why):
        parse_relay(url, password)


def test_an_address_is_a_plain_one_without_anything_that_a_header_would_read_otherwise():
    assert is_address("o'neil+fleet_1@mail.edge.example")
    for char in [*map(chr, range(0x21)), *SPECIALS, "\x7f", "\x85", "ä", "\u2028", "\ud800"]:
        assert not is_address(f"ops{char}x@edge.example")
        assert not is_address(f"ops@edge.example{char}")
    for text in ("@edge.example", "ops@", ".ops@x.example", "a..b@x.example", "ops@x..example",
                 f"{'a' * 65}@x.example", f"a@{'x' * 256}"):  # fmt: skip
        assert not is_address(text)


@pytest.mark.parametrize("changes", [{"password": "s3crèt"}, {"user": "flötte"}])
def test_a_login_that_smtp_can_not_say_is_a_failed_delivery_and_no_crash(tls, changes):
    with smtp_server(tls[0]) as (_, port), pytest.raises(ServerError, match="did not take"):
        Mailer(relay(port, **changes), tls[1]).send(letter(TO, FROM, "s", "t", "n", NOW))


def test_a_relay_whose_name_is_none_is_a_failed_delivery_and_no_crash():
    with pytest.raises(ServerError, match="did not take the mail"):
        Mailer(Relay("mail..example", 25, FROM)).send(letter(TO, FROM, "s", "t", "n", NOW))


def test_an_smtp_server_has_the_usual_ports():
    assert parse_relay("smtp://mail.example/?from=a+b%40c.example", "").sender == "a+b@c.example"
    plain = parse_relay("smtp://fleet%40x@mail.example/?from=a@b.example", "p")
    assert (plain.port, plain.user, plain.implicit_tls) == (587, "fleet@x", False)
    assert parse_relay("smtps://mail.example/?from=a@b.example", "").port == 465


def test_mail_is_promised_only_by_a_server_that_can_send_it(tmp_path, database):
    with backend(tmp_path, database) as back:
        app, _ = back.application()
        http = TestClient(app, headers={"authorization": f"Bearer {back.keyring.admin_token}"})
        refused = http.post("/api/v1/webhooks", json={"url": f"mailto:{TO}"})
        assert (refused.status_code, "--smtp" in refused.text) == (400, True)
        app, _ = back.application(mails=True)
        http = TestClient(app, headers={"authorization": f"Bearer {back.keyring.admin_token}"})
        assert http.post("/api/v1/webhooks", json={"url": f"mailto:{TO}"}).status_code == 201
        assert http.post("/api/v1/webhooks", json={"url": "mailto:x"}).status_code == 400
        assert http.get("/api/v1/webhooks").json()["items"][0]["events"] == "alert"
