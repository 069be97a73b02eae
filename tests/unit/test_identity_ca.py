"""The server's CA: made once, believed by its fingerprint, careful about what it signs."""

import ssl
import stat
from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from device_agent.certificate import (
    accept_certificate,
    certificate_request,
    mutual_context,
    renewal_due,
    validity,
)
from edge_sdk.errors import FormatError, InvalidInputError, UntrustedError
from edge_sdk.identity import Trust, accept_ca
from fleet_server.ca import (
    key_and_name,
    key_of_request,
    open_ca,
    server_certificate,
    server_context,
)
from fleet_server.tls import Tls, server_names
from tests.server_side import NOW

DAY = 86_400.0


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "keys").mkdir(mode=0o700)
    (tmp_path / "device").mkdir()
    return tmp_path


@pytest.fixture
def ca(folder):
    return open_ca(folder / "keys", first=True)


def names_in(path):
    found = x509.load_pem_x509_certificate(path.read_bytes())
    san = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return {str(name.value) for name in san}


def test_the_ca_is_made_once_and_its_key_is_private(folder, ca):
    keys = folder / "keys"
    assert open_ca(keys, first=False).fingerprint == ca.fingerprint
    assert open_ca(keys, first=True).fingerprint == ca.fingerprint
    assert stat.S_IMODE((keys / "ca.key").stat().st_mode) == 0o600
    (keys / "ca.key").unlink()
    with pytest.raises(InvalidInputError, match=r"ca\.key is missing"):
        open_ca(keys, first=False)


def test_a_ca_that_does_not_fit_its_key_is_refused(folder, ca):
    (folder / "other").mkdir()
    open_ca(folder / "other", first=True)
    (folder / "keys" / "ca.pem").write_bytes((folder / "other" / "ca.pem").read_bytes())
    with pytest.raises(InvalidInputError, match="does not belong to"):
        open_ca(folder / "keys", first=False)


def test_a_device_takes_the_ca_that_the_trust_document_names_and_no_other(folder, ca):
    trust = Trust((), "", "", ca.fingerprint)
    assert accept_ca(ca.pem, trust) == ca.pem
    (folder / "other").mkdir()
    stranger = open_ca(folder / "other", first=True)
    for pem in (stranger.pem, "", "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----"):
        with pytest.raises(UntrustedError):
            accept_ca(pem, trust)
    with pytest.raises(UntrustedError):
        accept_ca(ca.pem, Trust((), "", ""))


def test_the_servers_certificate_is_kept_until_names_or_time_ask_for_another(folder, ca):
    keys = folder / "keys"
    names = ["pi.lan", "127.0.0.1", "::1"]
    assert server_certificate(keys, ca, names, NOW)
    assert names_in(keys / "server.pem") == {"pi.lan", "127.0.0.1", "::1"}
    assert not server_certificate(keys, ca, names, NOW + 300 * DAY)
    assert server_certificate(keys, ca, names, NOW + 310 * DAY)
    assert server_certificate(keys, ca, [*names, "new.lan"], NOW + 310 * DAY)
    (keys / "server.pem").write_bytes(b"half a certifi")
    assert server_certificate(keys, ca, names, NOW)
    assert stat.S_IMODE((keys / "server.key").stat().st_mode) == 0o600


def test_a_running_server_changes_to_the_new_certificate_in_time(folder, ca):
    keys = folder / "keys"
    tls = Tls(keys, ca, server_names("127.0.0.1", ["pi.lan"]), NOW)
    assert "pi.lan" in names_in(keys / "server.pem")
    first = (keys / "server.pem").read_bytes()
    tls.tend(NOW + 100 * DAY)
    assert (keys / "server.pem").read_bytes() == first
    tls.tend(NOW + 320 * DAY)
    assert (keys / "server.pem").read_bytes() != first
    assert tls.web.minimum_version == ssl.TLSVersion.TLSv1_2
    assert tls.web.verify_mode == ssl.CERT_OPTIONAL
    assert tls.mqtt.verify_mode == ssl.CERT_REQUIRED


def test_a_device_without_a_clock_can_still_check_the_server(folder, ca):
    server_certificate(folder / "keys", ca, ["localhost"], NOW)
    for name in ("ca.pem", "server.pem"):
        found = x509.load_pem_x509_certificate((folder / "keys" / name).read_bytes())
        assert found.not_valid_before_utc == datetime(1970, 1, 1, tzinfo=UTC)


def test_a_devices_certificate_is_for_its_key_its_name_and_ninety_days(folder, ca):
    device = folder / "device"
    csr = certificate_request(device, "another-name")
    accept_certificate(device, ca.issue(csr, "pi-7", NOW), ca.pem)
    found = x509.load_pem_x509_certificate((device / "tls.pem").read_bytes())
    key, name = key_and_name(found.public_bytes(serialization.Encoding.DER))
    assert (key, name) == (key_of_request(csr), "pi-7")
    assert stat.S_IMODE((device / "tls.key").stat().st_mode) == 0o600
    assert validity(device)[1].timestamp() == pytest.approx(NOW + 90 * DAY)
    purposes = found.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(purposes) == [x509.ExtendedKeyUsageOID.CLIENT_AUTH]
    assert mutual_context(device, ca.pem).verify_mode == ssl.CERT_REQUIRED
    assert [c["subject"] for c in server_context_cas(folder, ca)]


def server_context_cas(folder, ca):
    server_certificate(folder / "keys", ca, ["localhost"], NOW)
    return server_context(folder / "keys", "must show").get_ca_certs()


def test_renewal_is_due_a_month_before_the_end_and_when_something_is_wrong(folder, ca):
    device = folder / "device"
    assert renewal_due(device, NOW)
    accept_certificate(device, ca.issue(certificate_request(device, "pi-7"), "pi-7", NOW), ca.pem)
    assert not renewal_due(device, NOW)
    assert not renewal_due(device, NOW + 59 * DAY)
    assert renewal_due(device, NOW + 61 * DAY)
    assert renewal_due(device, 0.0)
    (device / "tls.key").write_bytes(b"damaged")
    assert renewal_due(device, NOW)
    assert certificate_request(device, "pi-7")


def test_a_device_keeps_no_certificate_for_another_key_or_of_another_ca(folder, ca):
    (folder / "other").mkdir()
    stranger = open_ca(folder / "other", first=True)
    device = folder / "device"
    csr = certificate_request(device, "pi-7")
    foreign = certificate_request(folder / "other", "pi-7")
    for pem in (stranger.issue(csr, "pi-7", NOW), ca.issue(foreign, "pi-7", NOW), "", ca.pem):
        with pytest.raises(UntrustedError):
            accept_certificate(device, pem, ca.pem)
    assert not (device / "tls.pem").exists()


def request_for(key):
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "pi-7")])
    made = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    return made.public_bytes(serialization.Encoding.PEM).decode()


@pytest.mark.parametrize(
    "csr",
    [
        "",
        "no request",
        "x" * 5000,
        request_for(rsa.generate_private_key(65537, 2048)),
        request_for(ec.generate_private_key(ec.SECP384R1())),
    ],
    ids=["empty", "junk", "too long", "rsa", "p-384"],
)
def test_requests_that_the_ca_can_not_sign_are_refused(ca, csr):
    with pytest.raises(FormatError, match="certificate request can't be used"):
        ca.issue(csr, "pi-7", NOW)


def test_the_ca_makes_no_other_cas(folder, ca):
    csr = certificate_request(folder / "device", "pi-7")
    found = x509.load_pem_x509_certificate(ca.issue(csr, "pi-7", NOW).encode())
    assert not found.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
