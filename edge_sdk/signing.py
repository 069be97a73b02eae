"""Ed25519 signatures over documents, as DSSE (https://github.com/secure-systems-lab/dsse).

The signatures are securesystemslib's; this module only gives them our errors and our files.
A payload type is part of what is signed, so a signed assignment can never pass for a manifest.
"""

import base64
from pathlib import Path
from typing import Any

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import CryptoSigner, SSlibKey  # type: ignore[attr-defined]

from edge_sdk.errors import InvalidInputError, UntrustedError
from edge_sdk.files import private, write_atomic

MANIFEST = "application/vnd.edge.manifest+json"
ASSIGNMENT = "application/vnd.edge.assignment+json"
COMMAND = "application/vnd.edge.command+json"
TIME = "application/vnd.edge.time+json"


class Signature(msgspec.Struct, frozen=True):
    """One DSSE signature: the key's id and the base64 of the Ed25519 bytes."""

    keyid: str
    sig: str


class Signed(msgspec.Struct, frozen=True, rename={"payload_type": "payloadType"}):
    """A DSSE envelope as it travels: base64 payload, its type, its signatures."""

    payload: str
    payload_type: str
    signatures: tuple[Signature, ...]


class SigningKey:
    """A private Ed25519 key."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._signer = CryptoSigner(key)
        self._key = key

    @classmethod
    def generate(cls) -> "SigningKey":
        """A new key from the system's randomness."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def load(cls, path: Path) -> "SigningKey":
        """Read a PEM file that only its owner may read.

        Raises:
            InvalidInputError: missing, readable by others, or not an Ed25519 key.
        """
        try:
            data = path.read_bytes()
        except OSError as error:
            raise InvalidInputError(
                f"signing key {path} can't be read ({error.strerror}): "
                f"make one with 'edge keys new {path}'"
            ) from error
        if not private(path):
            raise InvalidInputError(f"signing key {path} is readable by others: chmod 600 {path}")
        try:
            key = load_pem_private_key(data, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise InvalidInputError(f"{path} is not an unencrypted PEM private key") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise InvalidInputError(f"{path} holds another kind of key; ours are Ed25519")
        return cls(key)

    def save(self, path: Path) -> None:
        """Write PEM, readable by the owner only, and the public half beside it as `.pub`."""
        pem = self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, pem, mode=0o600)
        write_atomic(path.with_suffix(".pub"), self.public.pem())

    @property
    def public(self) -> "PublicKey":
        return PublicKey(self._key.public_key())

    @property
    def signer(self) -> CryptoSigner:
        """The same key for securesystemslib, which TUF signs with."""
        return self._signer

    def sign(self, payload: bytes, payload_type: str) -> Signature:
        """A detached DSSE signature; Ed25519 is deterministic, so same input, same bytes."""
        found = Envelope(payload, payload_type, {}).sign(self._signer)
        return Signature(found.keyid, base64.b64encode(bytes.fromhex(found.signature)).decode())

    def seal(self, payload: bytes, payload_type: str) -> Signed:
        """A whole envelope that carries the payload."""
        signature = self.sign(payload, payload_type)
        return Signed(base64.b64encode(payload).decode(), payload_type, (signature,))


class PublicKey:
    """A public Ed25519 key; `hex` is its 32 raw bytes."""

    def __init__(self, key: Ed25519PublicKey) -> None:
        self._key = key
        self.sslib = SSlibKey.from_crypto(key)

    @classmethod
    def from_hex(cls, text: str) -> "PublicKey":
        try:
            return cls(Ed25519PublicKey.from_public_bytes(bytes.fromhex(text)))
        except ValueError as error:
            raise InvalidInputError(f"{text[:80]!r} is not an Ed25519 public key") from error

    @classmethod
    def load(cls, path: Path) -> "PublicKey":
        """Read a PEM public key; raises InvalidInputError."""
        try:
            data = path.read_bytes()
        except OSError as error:
            raise InvalidInputError(f"public key {path} can't be read: {error.strerror}") from error
        try:
            key = load_pem_public_key(data)
        except (ValueError, UnsupportedAlgorithm) as error:
            raise InvalidInputError(f"{path} is not a PEM public key") from error
        if not isinstance(key, Ed25519PublicKey):
            raise InvalidInputError(f"{path} holds another kind of key; ours are Ed25519")
        return cls(key)

    @property
    def hex(self) -> str:
        return self._key.public_bytes(Encoding.Raw, PublicFormat.Raw).hex()

    @property
    def keyid(self) -> str:
        return str(self.sslib.keyid)

    def pem(self) -> bytes:
        return self._key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def verify(
    payload: bytes, payload_type: str, signatures: tuple[Signature, ...], keys: list[PublicKey]
) -> str:
    """The id of the trusted key that signed `payload` as `payload_type`.

    Raises:
        UntrustedError: no signature by any of `keys` holds.
    """
    if not keys:
        raise UntrustedError("no key is trusted here, so nothing can be verified")
    try:
        document: dict[str, Any] = {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": payload_type,
            "signatures": [{"keyid": s.keyid, "sig": s.sig} for s in signatures],
        }
        envelope = Envelope.from_dict(document)
        accepted = envelope.verify([key.sslib for key in keys], 1)
    except (VerificationError, ValueError) as error:
        signers = ", ".join(s.keyid[:12] for s in signatures) or "nobody"
        trusted = ", ".join(key.keyid[:12] for key in keys)
        raise UntrustedError(
            f"the signature does not hold: signed by {signers}, trusted here: {trusted}"
        ) from error
    return next(iter(accepted))


def unseal(signed: Signed, payload_type: str, keys: list[PublicKey]) -> bytes:
    """The payload of an envelope whose type and signature hold; raises UntrustedError."""
    if signed.payload_type != payload_type:
        raise UntrustedError(f"expected {payload_type}, got {signed.payload_type[:80]!r}")
    try:
        payload = base64.b64decode(signed.payload, validate=True)
    except ValueError as error:
        raise UntrustedError("the payload is not base64") from error
    verify(payload, payload_type, signed.signatures, keys)
    return payload
