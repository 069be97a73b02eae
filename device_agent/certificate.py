"""The device's own TLS key and certificate: the key is made here and stays here.

Renewed in good time over HTTPS, for which alone the device's token is enough: so a device that was
off for longer than its certificate lasts comes back by itself.
"""

import http.client
import logging
import ssl
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from device_agent.endpoint import CERTIFICATE, KEY, Endpoint, mutual_context, whole
from edge_sdk.errors import EdgeError, ServerError, UntrustedError
from edge_sdk.files import write_atomic
from edge_sdk.formats import from_json
from edge_sdk.identity import CertificateAnswer, CertificateRequest

RENEW_BEFORE = timedelta(days=30)
LOOK_SECONDS, TIMEOUT = 3600.0, 10.0
MAX_ANSWER = 64 * 1024
log = logging.getLogger("edge.agent")


def certificate_request(folder: Path, device: str) -> str:
    """A request (PEM) for the key in `folder`, which is made if there is none yet."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, device)])
    builder = x509.CertificateSigningRequestBuilder().subject_name(name)
    request = builder.sign(_key(folder), hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM).decode()


def accept_certificate(folder: Path, pem: str, ca: str) -> None:
    """Keep a certificate that the server gave.

    Raises:
        UntrustedError: it is not for our key, or not by that CA (PEM).
    """
    try:
        given = x509.load_pem_x509_certificate(pem.encode())
        given.verify_directly_issued_by(x509.load_pem_x509_certificate(ca.encode()))
    except (ValueError, TypeError, InvalidSignature) as error:
        raise UntrustedError("the server gave a certificate that its CA did not sign") from error
    if given.public_key() != _key(folder).public_key():
        raise UntrustedError("the server gave a certificate for another key than ours")
    write_atomic(folder / CERTIFICATE, pem.encode())


def renewal_due(folder: Path, now: float) -> bool:
    """Whether the certificate ends soon, is missing or damaged, or by our clock has not begun."""
    span = validity(folder)
    if span is None:
        return True
    return not span[0] <= datetime.fromtimestamp(now, UTC) < span[1] - RENEW_BEFORE


def validity(folder: Path) -> tuple[datetime, datetime] | None:
    """From when to when the certificate holds; None if there is none that fits the key."""
    try:
        found = x509.load_pem_x509_certificate((folder / CERTIFICATE).read_bytes())
        key = serialization.load_pem_private_key((folder / KEY).read_bytes(), None)
    except (OSError, ValueError):
        return None
    if found.public_key() != key.public_key():
        return None
    return found.not_valid_before_utc, found.not_valid_after_utc


class Renewal:
    """Keeps the certificate fresh; `context` is None and nothing is done without TLS."""

    def __init__(
        self,
        folder: Path,
        device: str,
        token: str,
        server: Endpoint,
        wall: Callable[[], float],
    ) -> None:
        self._folder, self._device, self._token = folder, device, token
        self._server = msgspec.structs.replace(server, proof="")  # an expired one would be cut off
        self._wall = wall
        self.context = mutual_context(folder, server.ca) if server.tls else None

    def run(self, ended: threading.Event) -> None:
        """Look now and then until `ended`."""
        wait = 0.0
        while self.context is not None and not ended.wait(wait):
            wait = LOOK_SECONDS
            try:
                if renewal_due(self._folder, self._wall()):
                    self.renew(self.context)
                    log.info("%s: has a new certificate", self._device)
            except (EdgeError, OSError) as error:
                log.warning("%s: no new certificate: %s", self._device, error)
                wait = LOOK_SECONDS / 60

    def renew(self, context: ssl.SSLContext) -> None:
        """Get a new certificate; connections made with `context` from now on show it.

        Raises:
            ServerError: the server can't be reached or refuses.
            UntrustedError: it gives a wrong one.
        """
        body = msgspec.json.encode(
            CertificateRequest(csr=certificate_request(self._folder, self._device))
        )
        answer = from_json(CertificateAnswer, self._ask(body), "the certificate answer")
        accept_certificate(self._folder, answer.certificate, self._server.ca)
        context.load_cert_chain(self._folder / CERTIFICATE, self._folder / KEY)

    def _ask(self, body: bytes) -> bytes:
        connection = self._server.connection(TIMEOUT)
        headers = {
            "Authorization": f"Bearer {self._device}:{self._token}",
            "Content-Type": "application/json",
        }
        try:
            connection.request(
                "POST", f"{self._server.prefix}/device/v1/certificate", body, headers
            )
            answer = connection.getresponse()
            content = whole(answer, MAX_ANSWER)
        except (OSError, http.client.HTTPException) as error:
            words = str(error) or type(error).__name__
            raise ServerError(f"{self._server}: {words}") from error
        finally:
            connection.close()
        if answer.status != 200:
            raise ServerError(f"{self._server} answers {answer.status} {answer.reason}")
        return content


def _key(folder: Path) -> ec.EllipticCurvePrivateKey:
    path = folder / KEY
    if path.exists():
        try:
            found = serialization.load_pem_private_key(path.read_bytes(), None)
        except ValueError:
            found = None  # damaged: a device that proves itself may come with a new key
        if isinstance(found, ec.EllipticCurvePrivateKey):
            return found
    made = ec.generate_private_key(ec.SECP256R1())
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    pem = made.private_bytes(encoding, form, serialization.NoEncryption())
    write_atomic(path, pem, mode=0o600)
    return made
