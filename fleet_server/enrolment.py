"""A device joins: its token's proof is checked, its key written down, the trust document given.

A device that is known keeps its history. Another key for it needs an operator's word: a token made
for this device, or one made after the device was revoked. (One made before may be on the stolen
device itself.)
"""

import base64
import re

import msgspec

from edge_sdk.errors import FormatError, InvalidInputError, RefusedError, UntrustedError
from edge_sdk.identity import EnrolAnswer, EnrolRequest, Token, proven, shared_secrets
from edge_sdk.topics import valid_device_id
from fleet_server.ca import key_of_request
from fleet_server.keyring import Keyring
from fleet_server.records import DeviceRecord, EnrolmentKey
from fleet_server.store import Store

MAX_TEXT = 64
MAX_LABELS = 16
_NO_KEY = bytes(32)
_PUBLIC = re.compile(r"[0-9a-f]{64}")


class IdTakenError(RefusedError):
    """A device id that another device's key holds."""


class Allowance(msgspec.Struct, frozen=True, kw_only=True):
    """What a token is good for: so many uses within so many hours; `device` if for one alone."""

    uses: int = 1
    hours: float = 24.0
    note: str = ""
    device: str = ""


def new_token(store: Store, keyring: Keyring, allowed: Allowance, now: float) -> Token:
    """A token by which devices may join; only its hash is kept.

    Raises:
        InvalidInputError: it is for one device, whose id can't be used, or for several uses.
    """
    if allowed.device and not valid_device_id(allowed.device):
        raise InvalidInputError(f"{allowed.device[:MAX_TEXT]!r} is no device id")
    if allowed.device and allowed.uses != 1:
        raise InvalidInputError("a key for one device has one use")
    token = Token.new(keyring.trust_document)
    store.add_enrolment_key(
        EnrolmentKey(
            id=token.id,
            key_hash=token.key,
            created=now,
            expires=now + allowed.hours * 3600,
            uses_left=allowed.uses,
            note=allowed.note,
            device=allowed.device,
        )
    )
    return token


def enrol(
    store: Store, keyring: Keyring, request: EnrolRequest, *, mqtt_port: int, now: float
) -> EnrolAnswer:
    """Let a device in. A device that asks again with the same key is not counted again.

    Raises:
        UntrustedError: an unknown, void, used-up or expired token, or a wrong proof.
        FormatError: an id, profile, label, key or certificate request that can't be used.
        IdTakenError: the id belongs to another key, or its key was revoked.
    """
    key = store.enrolment_key(request.token_id)
    proof_holds = proven(request, key.key_hash if key else _NO_KEY)
    if key is None or not proof_holds:
        raise UntrustedError("the enrolment token is unknown here: is it from this server?")
    _check(request, keyring)
    if key.device not in ("", request.device):
        raise UntrustedError(f"the enrolment token is for device {key.device} alone")
    wanted = DeviceRecord(
        id=request.device,
        public=request.public,
        profile=request.profile,
        labels=request.labels,
        enrolled_at=now,
        tls_key=key_of_request(request.csr) if request.csr else "",
    )
    with store.transaction():
        known = store.device(request.device)
        if known is None:
            _spend(store, request.token_id, now)
            store.add_device(wanted)
            _tell(store, wanted, "enrolled", now)
        elif known.public == request.public:
            _again(store, known, wanted)
        else:
            if not may_rekey(known, key):
                raise IdTakenError(
                    f"device id {request.device} is taken by another key: choose another id, "
                    f"or allow it by 'edge enroll key new --device {request.device}'"
                )
            _spend(store, request.token_id, now)
            store.rekey(wanted)
            _tell(store, wanted, "enrolled anew", now)
    return EnrolAnswer(
        device=request.device,
        trust=base64.b64encode(keyring.trust_document).decode(),
        mqtt_port=mqtt_port,
        ca=keyring.ca.pem,
        certificate=keyring.ca.issue(request.csr, request.device, now) if request.csr else "",
    )


def may_rekey(known: DeviceRecord, key: EnrolmentKey) -> bool:
    """Whether this token lets another key take the place of a known device's."""
    if known.revoked_at is not None:
        return key.created > known.revoked_at
    return key.device == known.id


def renew(store: Store, keyring: Keyring, device: str, csr: str, now: float) -> str:
    """A new certificate (PEM) for a device that has proven its key; raises FormatError."""
    key = key_of_request(csr)
    certificate = keyring.ca.issue(csr, device, now)
    store.set_tls_key(device, key)
    return certificate


def _again(store: Store, known: DeviceRecord, wanted: DeviceRecord) -> None:
    """The answer got lost. A token and a public key must not do for a certificate of others."""
    if known.revoked_at is not None:
        raise IdTakenError(
            f"device {known.id} was revoked: let it in again by 'edge device readmit {known.id}'"
        )
    if wanted.tls_key in ("", known.tls_key):
        return
    if known.tls_key:
        raise IdTakenError(
            f"device {known.id} asks for a certificate for another key than before: "
            f"allow a new one by 'edge enroll key new --device {known.id}'"
        )
    store.set_tls_key(known.id, wanted.tls_key)


def _tell(store: Store, device: DeviceRecord, name: str, now: float) -> None:
    store.add_event(now, device.id, name, f"profile {device.profile}", device.id)


def _spend(store: Store, token_id: str, now: float) -> None:
    key = store.enrolment_key(token_id)
    if key is None or key.uses_left < 1:
        raise UntrustedError("the enrolment token is used up: make one with 'edge enroll key new'")
    if now >= key.expires:
        raise UntrustedError("the enrolment token has expired: make one with 'edge enroll key new'")
    store.use_enrolment_key(token_id)


def _check(request: EnrolRequest, keyring: Keyring) -> None:
    if not valid_device_id(request.device):
        raise FormatError(
            f"{request.device[:MAX_TEXT]!r} is no device id: use 1 to 64 of a-z, 0-9, '.', '_', '-'"
        )
    texts = [request.profile, *request.labels, *request.labels.values()]
    if any(not t or len(t) > MAX_TEXT or not t.isprintable() for t in texts):
        raise FormatError(f"profile and labels must be 1 to {MAX_TEXT} printable characters each")
    if len(request.labels) > MAX_LABELS:
        raise FormatError(f"a device has at most {MAX_LABELS} labels, not {len(request.labels)}")
    if not _PUBLIC.fullmatch(request.public):
        raise FormatError("the device's public key must be 64 lower-case hex digits")
    shared_secrets(keyring.exchange, request.public, request.device)
