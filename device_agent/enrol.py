"""Joining a fleet: once, with a token; every later start reads what was agreed from disk."""

import http.client
import json
import logging
import random
import re
import secrets
import socket
import threading
from collections.abc import Callable

import msgspec

from device_agent.certificate import accept_certificate, certificate_request
from device_agent.config import AgentConfig
from device_agent.endpoint import Endpoint, backoff, whole
from device_agent.notify import notify
from device_agent.store import DeviceKey, Enrolment, Store
from edge_sdk.errors import FormatError, InvalidInputError, ServerError
from edge_sdk.formats import from_json
from edge_sdk.identity import (
    EnrolAnswer,
    EnrolRequest,
    Secrets,
    Token,
    Trust,
    accept_ca,
    accept_trust,
    exchange_public,
    new_exchange_key,
    prove,
    shared_secrets,
)

TIMEOUT = 10.0
FIRST_WAIT = 0.5
MAX_ANSWER = 1024 * 1024
log = logging.getLogger("edge.agent")


class Identity(msgspec.Struct, frozen=True):
    """Who this device is to its fleet."""

    device: str
    trust: Trust
    secrets: Secrets
    server: Endpoint
    mqtt_port: int


class _NotNowError(Exception):
    """The server can't be reached or is unwell; never leaves this module."""


def join(
    config: AgentConfig,
    profile: str,
    store: Store,
    token: Callable[[], Token],
    chance: random.Random,
    stop: threading.Event,
) -> Identity | None:
    """The device's identity, enrolling if it has none yet; None if told to stop before.

    `token` is asked only at the first enrolment. A server that is not there is waited for.

    Raises:
        ServerError: the server says no: wrong token, or the name is taken.
        UntrustedError: the server is not the one that the token names.
        InvalidInputError: the config names another device or server than the state folder.
    """
    key = store.key() or _new_key(config, store)
    if config.device.id not in ("auto", key.device):
        raise InvalidInputError(
            f"the state folder {store.folder} belongs to {key.device}, the config says "
            f"{config.device.id}: use another folder for another device"
        )
    server = Endpoint.parse(config.link.server)
    enrolment = store.enrolment()
    if enrolment is not None and enrolment.server != str(server):
        raise InvalidInputError(
            f"{key.device} is enrolled at {enrolment.server}, the config says {server}: "
            f"use another state folder, or delete {store.folder / 'enrolment.json'} to enrol anew"
        )
    if enrolment is None:
        secret = token()
        csr = certificate_request(store.folder, key.device) if server.tls else ""
        request = _request(config, profile, key, secret, csr)
        answer = _enrol(request, server, chance, stop)
        if answer is None:
            return None
        enrolment = _accept(answer, server, secret, store)
        store.save_enrolment(enrolment)
        log.info("%s: enrolled at %s", key.device, server)
    return recall(key, enrolment, server, store)


def recall(key: DeviceKey, enrolment: Enrolment, server: Endpoint, store: Store) -> Identity:
    """Who a device is that has joined before."""
    trust = from_json(Trust, enrolment.trust.encode(), "the trust document")
    shared = shared_secrets(bytes.fromhex(key.private), trust.exchange, key.device)
    known = msgspec.structs.replace(server, ca=enrolment.ca, proof=str(store.folder))
    return Identity(key.device, trust, shared, known, enrolment.mqtt_port)


def _new_key(config: AgentConfig, store: Store) -> DeviceKey:
    name = config.device.id
    if name == "auto":
        host = re.sub(r"[^a-z0-9-]+", "-", socket.gethostname().lower()).strip("-")[:48]
        name = f"{host or 'device'}-{secrets.token_hex(3)}"
    key = DeviceKey(name, new_exchange_key().hex())
    store.save_key(key)
    return key


def _request(
    config: AgentConfig, profile: str, key: DeviceKey, token: Token, csr: str
) -> EnrolRequest:
    bare = EnrolRequest(
        token_id=token.id,
        device=key.device,
        public=exchange_public(bytes.fromhex(key.private)),
        profile=profile,
        labels=config.device.labels,
        csr=csr,
    )
    return prove(bare, token.key)


def _enrol(
    request: EnrolRequest,
    server: Endpoint,
    chance: random.Random,
    stop: threading.Event,
) -> EnrolAnswer | None:
    attempt = 1
    while not stop.wait(backoff(attempt, FIRST_WAIT, chance)):
        notify("WATCHDOG=1")  # a server that is away is no reason to be restarted
        try:
            return _ask(server, request)
        except _NotNowError as error:
            if attempt == 1:
                log.warning("%s: %s is not ready (%s), waiting", request.device, server, error)
            attempt += 1
    return None


def _accept(answer: EnrolAnswer, server: Endpoint, token: Token, store: Store) -> Enrolment:
    """Believe the answer as far as the token's fingerprint reaches: trust, CA, certificate."""
    trust = accept_trust(answer, token)
    ca = accept_ca(answer.ca, trust) if server.tls else ""
    if server.tls:
        accept_certificate(store.folder, answer.certificate, ca)
    document = msgspec.json.encode(trust).decode()
    return Enrolment(str(server), document, answer.mqtt_port, ca)


def _ask(server: Endpoint, request: EnrolRequest) -> EnrolAnswer:
    connection = server.first_contact(TIMEOUT)
    try:
        body, headers = msgspec.json.encode(request), {"Content-Type": "application/json"}
        connection.request("POST", f"{server.prefix}/device/v1/enrol", body, headers)
        answer = connection.getresponse()
        content = whole(answer, MAX_ANSWER)
    except (OSError, http.client.HTTPException) as error:
        raise _NotNowError(str(error) or type(error).__name__) from error
    finally:
        connection.close()
    if answer.status >= 500 or answer.status == 429:
        raise _NotNowError(f"it answers {answer.status} {answer.reason}")
    if answer.status not in (200, 201):
        raise ServerError(
            f"{server} refused to enrol {request.device}: {_words(content) or answer.reason}"
        )
    try:
        return from_json(EnrolAnswer, content, "the enrolment answer")
    except FormatError as error:
        raise ServerError(f"{server} does not answer as a fleet server: {error}") from error


def _words(content: bytes) -> str:
    """The sentence in a problem document (RFC 9457), if it is one."""
    try:
        found = json.loads(content)
    except ValueError:
        return ""
    detail = found.get("detail") if isinstance(found, dict) else None
    return detail[:300] if isinstance(detail, str) else ""
