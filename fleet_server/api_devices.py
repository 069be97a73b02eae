"""What devices ask over HTTP, `/device/v1`: to join, for their order, and for bundles."""

import re
from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from fastapi.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse
from starlette.websockets import WebSocket

from edge_sdk.formats import from_json
from edge_sdk.identity import (
    CertificateAnswer,
    CertificateRequest,
    EnrolAnswer,
    EnrolRequest,
)
from fleet_server.answers import (
    HEADERS,
    NotFoundError,
    answer,
    bearer,
    read_body,
    unauthorized,
)
from fleet_server.api_deliveries import delivery_router
from fleet_server.api_trust import trust_router
from fleet_server.enrolment import enrol, renew
from fleet_server.mqtt.websocket import speak_mqtt
from fleet_server.openapi import gives, takes
from fleet_server.parts import Parts
from fleet_server.proven import proven_certificate

MAX_ENROL = 16 * 1024
DIGEST = re.compile(r"[0-9a-f]{64}")


def device_router(parts: Parts) -> APIRouter:
    """The routes; every one but enrolment needs `Authorization: Bearer DEVICE:TOKEN`.

    With TLS every one but enrolment and renewal needs the device's certificate too.
    """
    router = APIRouter(prefix="/device/v1", tags=["devices"])

    bearing, caller = _who_calls(parts)
    Caller = Annotated[str, Depends(caller)]  # noqa: N806 - a type

    @router.post("/enrol", responses=gives(EnrolAnswer), openapi_extra=takes(EnrolRequest))
    async def join(request: Request) -> Response:
        """Join the fleet with an enrolment token."""
        body = await read_body(request, MAX_ENROL)
        wish = from_json(EnrolRequest, body, "the enrolment request")
        before = await run_in_threadpool(parts.store.device, wish.device)
        given = await run_in_threadpool(
            enrol,
            parts.store,
            parts.keyring,
            wish,
            mqtt_port=parts.mqtt_port(),
            now=parts.now(),
        )
        if before is not None and before.public != wish.public:
            parts.dismiss(wish.device)  # whoever holds the old key
        parts.changed()
        return answer(given)

    @router.post(
        "/certificate",
        responses=gives(CertificateAnswer),
        openapi_extra=takes(CertificateRequest),
    )
    async def certificate(request: Request, device: Annotated[str, Depends(bearing)]) -> Response:
        """A new certificate for mutual TLS, before the old one expires."""
        body = await read_body(request, MAX_ENROL)
        wish = from_json(CertificateRequest, body, "the certificate request")
        made = await run_in_threadpool(
            renew, parts.store, parts.keyring, device, wish.csr, parts.now()
        )
        return answer(CertificateAnswer(certificate=made))

    @router.get("/desired")
    def desired(device: Caller) -> Response:
        """The device's signed order; 204 if it has none."""
        order = parts.store.assignment(device)
        if order is None:
            return Response(status_code=204, headers=HEADERS)
        return Response(order.envelope, 200, HEADERS, "application/json")

    @router.get("/command")
    def command(device: Caller) -> Response:
        """What the server wants of the device beside its order, signed; 204 if nothing."""
        envelope = parts.store.command(device)
        if envelope is None:
            return Response(status_code=204, headers=HEADERS)
        return Response(envelope, 200, HEADERS, "application/json")

    @router.get("/bundles/{digest}", dependencies=[Depends(caller)])
    def bundle(digest: str) -> Response:
        """A bundle file, whole or from where a download broke off (Range, If-Range)."""
        if not DIGEST.fullmatch(digest) or not parts.registry.offered(digest):
            raise NotFoundError(f"no bundle {digest[:64]!r} is published here, or it was withdrawn")
        headers = {"etag": f'"{digest}"', "cache-control": "private, max-age=31536000, immutable"}
        return FileResponse(parts.registry.path(digest), 200, headers, "application/octet-stream")

    router.include_router(trust_router(parts, caller))
    router.include_router(delivery_router(parts, caller))
    return router


def mqtt_socket(parts: Parts) -> Callable[[WebSocket], Awaitable[None]]:
    """The WebSocket `/mqtt`; who a device is it says there as on the MQTT port."""

    async def speak(socket: WebSocket) -> None:
        shown = proven_certificate(socket)
        if parts.mqtt is None or (parts.mutual and not shown):
            await socket.close()  # before it was accepted: HTTP 403
            return
        await speak_mqtt(socket, shown, parts.mqtt)

    return speak


def _who_calls(parts: Parts) -> tuple[Callable[[Request], str], Callable[..., str]]:
    """Dependencies that give the calling device: by its token, and by its certificate as well."""

    def bearing(request: Request) -> str:
        device, _, token = bearer(request).partition(":")
        if not parts.credentials.token_holds(device, token):
            raise unauthorized("the device is unknown here or its token is wrong")
        parts.guard.slow_down(device)
        return device

    def caller(request: Request, device: Annotated[str, Depends(bearing)]) -> str:
        shown = proven_certificate(request)
        if parts.mutual and not (shown and parts.credentials.certificate_holds(device, shown)):
            raise HTTPException(
                403,
                f"{device} did not show its present certificate: "
                "POST /device/v1/certificate gives it another",
            )
        return device

    return bearing, caller
