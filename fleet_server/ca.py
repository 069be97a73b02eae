"""The server's own certificate authority: one for the server itself, one for each device.

Devices believe this CA and no other, by its fingerprint in the trust document. So `not before`
protects nothing, and it is set to 1970: a device that starts without a clock can still connect.
The CA itself has no end (RFC 5280, 4.1.2.5): devices change it with the trust document only.
"""

import ipaddress
import re
import ssl
from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from edge_sdk.errors import FormatError, InvalidInputError
from edge_sdk.files import sha256, write_atomic
from fleet_server.data_dir import CA_CERTIFICATE

_CA_KEY, _SERVER_KEY, _SERVER = "ca.key", "server.key", "server.pem"
SERVER_DAYS, DEVICE_DAYS = 365, 90
SERVER_RENEW_DAYS = 60
MAX_CSR, MAX_NAME = 4096, 253
_DAWN, _NEVER = datetime(1970, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
_LABEL = r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)"
_HOST = re.compile(rf"(?:\*\.)?{_LABEL}(?:\.{_LABEL})*\.?")


class Ca(msgspec.Struct, frozen=True):
    """The authority; `certificate` is public."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @property
    def pem(self) -> str:
        return _pem(self.certificate).decode()

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the DER, hex: what the trust document names."""
        return sha256(self.certificate.public_bytes(serialization.Encoding.DER))

    def __repr__(self) -> str:
        return f"Ca({self.fingerprint[:12]})"

    def issue(self, csr: str, device: str, now: float) -> str:
        """A certificate (PEM) for the key of a device's request.

        Only the key is taken from the request: name, purpose and time are the server's to say.

        Raises:
            FormatError: not a request, not signed by its own key, or another kind of key.
        """
        extensions = [(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), False)]
        begins = datetime.fromtimestamp(now, UTC) - timedelta(hours=1)
        span = (begins, begins + timedelta(days=DEVICE_DAYS, hours=1))
        return _pem(self.sign(device, _requested_key(csr), span, extensions)).decode()

    def sign(
        self,
        name: str,
        key: ec.EllipticCurvePublicKey,
        span: tuple[datetime, datetime],
        extensions: Sequence[tuple[x509.ExtensionType, bool]],
    ) -> x509.Certificate:
        """A certificate that is no CA; `extensions` say what for, and whether that is critical."""
        own = x509.SubjectKeyIdentifier.from_public_key(self.key.public_key())
        builder = (
            _builder(name, self.certificate.subject, key, span)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own), critical=False
            )
        )
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical=critical)
        return builder.sign(self.key, hashes.SHA256())


def open_ca(folder: Path, *, first: bool) -> Ca:
    """The CA kept in `folder`; made if `first`.

    Raises:
        InvalidInputError: it is missing though devices know it, or its files do not fit together.
    """
    key_path, path = folder / _CA_KEY, folder / CA_CERTIFICATE
    if first and not (key_path.exists() and path.exists()):
        key = ec.generate_private_key(ec.SECP256R1())
        write_atomic(key_path, _private_pem(key), mode=0o600)
        write_atomic(path, _pem(_root(key)))
    for needed in (key_path, path):
        if not needed.exists():
            raise InvalidInputError(
                f"{needed} is missing, and enrolled devices believe no other CA: "
                "restore it from a backup, or start a new fleet in an empty data folder"
            )
    try:
        found = _private_key(key_path)
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
    except ValueError as error:
        raise InvalidInputError(f"the CA in {folder} is damaged ({error}): restore it") from error
    if certificate.public_key() != found.public_key():
        raise InvalidInputError(f"{path} does not belong to {key_path}: restore both")
    return Ca(found, certificate)


def server_certificate(folder: Path, ca: Ca, names: Collection[str], now: float) -> bool:
    """See that `folder` holds a certificate of this server for `names`; True if a new one was made.

    Raises:
        InvalidInputError: a name is neither a host name nor an address.
    """
    wanted = _alternatives(names)
    path, key_path = folder / _SERVER, folder / _SERVER_KEY
    if path.exists() and key_path.exists() and _serves(path, key_path, ca, wanted, now):
        return False
    key = ec.generate_private_key(ec.SECP256R1())
    purposes: list[tuple[x509.ExtensionType, bool]] = [
        (x509.SubjectAlternativeName(wanted), False),
        (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False),
    ]
    ends = datetime.fromtimestamp(now, UTC) + timedelta(days=SERVER_DAYS)
    made = ca.sign("edge fleet server", key.public_key(), (_DAWN, ends), purposes)
    write_atomic(key_path, _private_pem(key), mode=0o600)
    write_atomic(path, _pem(made))
    return True


def server_context(
    folder: Path, clients: Literal["need none", "may show", "must show"]
) -> ssl.SSLContext:
    """TLS 1.2 or newer with the certificate in `folder`; what `clients` show must be of the CA."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    load_server_certificate(context, folder)
    if clients != "need none":
        context.load_verify_locations(folder / CA_CERTIFICATE)
        must = clients == "must show"
        context.verify_mode = ssl.CERT_REQUIRED if must else ssl.CERT_OPTIONAL
    return context


def load_server_certificate(context: ssl.SSLContext, folder: Path) -> None:
    """New connections get the certificate that is in `folder` now."""
    context.load_cert_chain(folder / _SERVER, folder / _SERVER_KEY)


def usable_name(name: str) -> bool:
    """Whether a certificate can be for that host name."""
    return _HOST.fullmatch(name) is not None and len(name) <= MAX_NAME


def key_of_request(csr: str) -> str:
    """SHA-256 (hex) of the public key in a certificate request; raises FormatError."""
    return _key_id(_requested_key(csr))


def key_and_name(der: bytes) -> tuple[str, str]:
    """SHA-256 (hex) of a certificate's public key, and its common name."""
    certificate = x509.load_der_x509_certificate(der)
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    key = certificate.public_key()
    key_id = _key_id(key) if isinstance(key, ec.EllipticCurvePublicKey) else ""
    return key_id, str(names[0].value) if len(names) == 1 else ""


def _key_id(key: ec.EllipticCurvePublicKey) -> str:
    encoding, form = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    return sha256(key.public_bytes(encoding, form))


def _requested_key(csr: str) -> ec.EllipticCurvePublicKey:
    try:
        if len(csr) > MAX_CSR:
            raise ValueError(f"it is longer than {MAX_CSR} characters")
        request = x509.load_pem_x509_csr(csr.encode())
        key = request.public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != "secp256r1":
            raise ValueError("its key is not of the curve P-256")
        if not request.is_signature_valid:
            raise ValueError("it is not signed by its own key")
    except ValueError as error:
        raise FormatError(f"the certificate request can't be used: {error}") from error
    return key


def _root(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    # Devices tell CAs apart by key; the name is for people who look at several.
    own = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    subject = f"edge fleet CA {own.digest.hex()[:8]}"
    use = x509.KeyUsage(
        digital_signature=False, content_commitment=False, key_encipherment=False,
        data_encipherment=False, key_agreement=False, key_cert_sign=True, crl_sign=True,
        encipher_only=False, decipher_only=False,
    )  # fmt: skip
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)])
    return (
        _builder(subject, name, key.public_key(), (_DAWN, _NEVER))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(use, critical=True)
        .sign(key, hashes.SHA256())
    )


def _builder(
    name: str,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    span: tuple[datetime, datetime],
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(span[0])
        .not_valid_after(span[1])
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _serves(
    path: Path, key_path: Path, ca: Ca, wanted: Collection[x509.GeneralName], now: float
) -> bool:
    """Whether the certificate there is ours, for these names, and good for a while yet."""
    try:
        found = x509.load_pem_x509_certificate(path.read_bytes())
        found.verify_directly_issued_by(ca.certificate)
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        fits = found.public_key() == _private_key(key_path).public_key()
    except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
        return False
    left = found.not_valid_after_utc - datetime.fromtimestamp(now, UTC)
    return fits and set(names) == set(wanted) and left > timedelta(days=SERVER_RENEW_DAYS)


def _alternatives(names: Collection[str]) -> list[x509.GeneralName]:
    found: list[x509.GeneralName] = []
    for name in sorted(set(names)):
        try:
            found.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            if not usable_name(name):
                raise InvalidInputError(
                    f"{name!r} is neither a host name nor an address: correct --name"
                ) from None
            found.append(x509.DNSName(name))
    return found


def _private_key(path: Path) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError(f"{path.name} holds no P-256 key")  # noqa: TRY004 - as for any bad file
    return key


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return key.private_bytes(encoding, form, serialization.NoEncryption())


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
