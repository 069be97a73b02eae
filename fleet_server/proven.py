"""What an HTTPS client proved in its handshake, brought to the application.

uvicorn keeps it to itself. It is put where the ASGI specification's TLS extension has it
(`scope["extensions"]["tls"]["client_cert_chain"]`, PEM), for requests and WebSockets alike.
"""

import asyncio
import ssl
from typing import Any

from fastapi.requests import HTTPConnection
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol


class ProvenH11(H11Protocol):
    """uvicorn's HTTP/1.1, telling the application whose certificate the connection bears."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.app = _telling(self.app, transport)


class ProvenWebSocket(WebSocketsSansIOProtocol):
    """The same of its WebSockets."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.app = _telling(self.app, transport)


def _telling(inner: Any, transport: asyncio.BaseTransport) -> Any:  # noqa: ANN401 - ASGI's own
    tls = transport.get_extra_info("ssl_object")
    der = tls.getpeercert(binary_form=True) if tls else None
    if der is None:
        return inner
    told = {"client_cert_chain": [ssl.DER_cert_to_PEM_cert(der)]}

    async def app(scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401
        extensions = {**scope.get("extensions", {}), "tls": told}
        await inner({**scope, "extensions": extensions}, receive, send)

    return app


def proven_certificate(request: HTTPConnection) -> bytes:
    """The certificate (DER) that the client proved to hold; b"" if it showed none."""
    chain = request.scope.get("extensions", {}).get("tls", {}).get("client_cert_chain", [])
    return ssl.PEM_cert_to_DER_cert(chain[0]) if chain else b""
