"""Who a device is and whom it trusts: enrolment by one token, keys made on the device.

The device makes an X25519 key; with the server's exchange key both derive the same secrets (HKDF,
RFC 5869), so no secret of the device ever crosses the wire. The token's secret does not either: the
request proves it by an HMAC. The token also carries the fingerprint of the server's `Trust`
document, so a first contact over plain HTTP can't be given a false one.
"""

import base64
import hashlib
import hmac
import secrets
import ssl

import msgspec
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from edge_sdk.errors import InvalidInputError, UntrustedError
from edge_sdk.formats import from_json
from edge_sdk.signing import PublicKey


class Trust(msgspec.Struct, frozen=True):
    """Whom a fleet's devices believe.

    Attributes:
        publishers: Ed25519 keys (hex) whose signature a bundle needs.
        director: the Ed25519 key (hex) that signs orders.
        exchange: the server's X25519 key (hex).
        ca: SHA-256 (hex) of the server's CA certificate (DER); TLS is believed from it alone.
        root: SHA-256 (hex) of the first root metadata of its TUF repository.
    """

    publishers: tuple[str, ...]
    director: str
    exchange: str
    ca: str = ""
    root: str = ""
    format: int = 1

    @property
    def publisher_keys(self) -> list[PublicKey]:
        return [PublicKey.from_hex(text) for text in self.publishers]

    @property
    def director_key(self) -> PublicKey:
        return PublicKey.from_hex(self.director)


class Token(msgspec.Struct, frozen=True):
    """An enrolment token: `edge1.ID.SECRET.FINGERPRINT`."""

    id: str
    secret: str
    fingerprint: str

    @classmethod
    def new(cls, trust_document: bytes) -> "Token":
        """A token with 160 random bits for a server with this trust document."""
        return cls(secrets.token_hex(4), secrets.token_hex(20), fingerprint(trust_document))

    @classmethod
    def parse(cls, text: str) -> "Token":
        """Raises InvalidInputError, without repeating the secret."""
        parts = text.strip().split(".")
        if len(parts) != 4 or parts[0] != "edge1" or not all(parts):
            raise InvalidInputError(
                "the enrolment token is not of the form edge1.ID.SECRET.FINGERPRINT: "
                "copy it whole from 'edge enroll key new'"
            )
        return cls(*parts[1:])

    def __str__(self) -> str:
        return f"edge1.{self.id}.{self.secret}.{self.fingerprint}"

    @property
    def key(self) -> bytes:
        """What the server keeps in place of the secret, and what proves it."""
        return hashlib.sha256(b"edge/1 token " + self.secret.encode()).digest()


class EnrolRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A device asks to join.

    Attributes:
        public: the device's X25519 key (hex).
        profile: hardware profile it claims to be.
        labels: site and the like, for groups and slices.
        csr: a certificate request (PEM) for the device's own P-256 key; empty if it wants none.
        proof: HMAC-SHA-256 (hex) under the token's key over everything above.
    """

    format: int = 1
    token_id: str
    device: str
    public: str
    profile: str
    labels: dict[str, str] = {}
    csr: str = ""
    proof: str = ""


class EnrolAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The server's answer: where MQTT is, and the trust document as bytes (base64) to check.

    Attributes:
        ca: the server's CA certificate (PEM), to be checked against the trust document.
        certificate: the device's own (PEM), for mutual TLS; empty if it did not ask for one.
    """

    format: int = 1
    device: str
    trust: str
    mqtt_port: int
    ca: str = ""
    certificate: str = ""


class CertificateRequest(msgspec.Struct, frozen=True, kw_only=True):
    """An enrolled device asks for a new certificate, for the key of this request (PEM)."""

    format: int = 1
    csr: str


class CertificateAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The new certificate (PEM)."""

    format: int = 1
    certificate: str


class Secrets(msgspec.Struct, frozen=True):
    """What device and server share, derived on both sides and stored on neither wire."""

    mac: bytes
    mqtt_password: str
    http_token: str


def fingerprint(trust_document: bytes) -> str:
    """128 bits of SHA-256, hex."""
    return hashlib.sha256(trust_document).hexdigest()[:32]


def prove(request: EnrolRequest, key: bytes) -> EnrolRequest:
    """The request with its proof of the token."""
    return msgspec.structs.replace(request, proof=_proof(request, key))


def proven(request: EnrolRequest, key: bytes) -> bool:
    """Whether the request was made with this token; constant time."""
    return hmac.compare_digest(request.proof.encode(), _proof(request, key).encode())


def accept_trust(answer: EnrolAnswer, token: Token) -> Trust:
    """The trust document of an answer, if it is the one the token names.

    Raises:
        UntrustedError: it is another one (a false server, or a token of another server).
    """
    try:
        document = base64.b64decode(answer.trust, validate=True)
    except ValueError as error:
        raise UntrustedError("the server's trust document is not base64") from error
    if not hmac.compare_digest(fingerprint(document), token.fingerprint):
        raise UntrustedError(
            "the server's trust document is not the one the token names: "
            "is the token from this server?"
        )
    return from_json(Trust, document, "the server's trust document")


def accept_ca(pem: str, trust: Trust) -> str:
    """A CA certificate (PEM), if it is the one that the trust document names.

    Raises:
        UntrustedError: it is another one, or none.
    """
    try:
        der = ssl.PEM_cert_to_DER_cert(pem)
    except ValueError as error:
        raise UntrustedError("the server's CA certificate is not PEM") from error
    if not hmac.compare_digest(hashlib.sha256(der).hexdigest(), trust.ca):
        raise UntrustedError("the server's CA certificate is not the one its trust document names")
    return pem


def new_exchange_key() -> bytes:
    """A new private X25519 key, 32 raw bytes."""
    return X25519PrivateKey.generate().private_bytes_raw()


def exchange_public(private: bytes) -> str:
    """The public half, hex."""
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw().hex()


def shared_secrets(private: bytes, peer: str, device: str) -> Secrets:
    """What both sides derive from their own private and the other's public key (hex).

    Raises:
        InvalidInputError: `peer` is no usable X25519 key.
    """
    try:
        public = X25519PublicKey.from_public_bytes(bytes.fromhex(peer))
        shared = X25519PrivateKey.from_private_bytes(private).exchange(public)
    except ValueError as error:
        raise InvalidInputError("the other side's key is not a usable X25519 key") from error
    info = b"edge/1 device secrets " + device.encode()
    material = HKDF(hashes.SHA256(), length=96, salt=None, info=info).derive(shared)
    return Secrets(material[:32], material[32:64].hex(), material[64:].hex())


def _proof(request: EnrolRequest, key: bytes) -> str:
    bare = msgspec.structs.replace(request, proof="")
    content = msgspec.json.encode(bare, order="deterministic")
    return hmac.digest(key, b"edge/1 enrol " + content, "sha256").hex()
