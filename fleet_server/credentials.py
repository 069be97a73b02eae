"""Whether somebody is the device they say: by secrets derived from its key, stored nowhere.

With TLS a device needs its certificate too, but to join and to get another one.
"""

import hmac
import threading

from edge_sdk.identity import Secrets, shared_secrets
from edge_sdk.topics import valid_device_id
from fleet_server.ca import key_and_name
from fleet_server.store import Store

_NOBODY = Secrets(b"", "", "")


class Credentials:
    """The secrets that the server shares with each device that is welcome, derived once a start."""

    def __init__(self, store: Store, exchange: bytes) -> None:
        self._store = store
        self._exchange = exchange
        self._derived: dict[str, Secrets] = {}
        self._lock = threading.Lock()  # else a look begun before `forget` could be kept after it

    def of(self, device: str) -> Secrets | None:
        """None for an unknown or revoked device."""
        with self._lock:
            found = self._derived.get(device)
            if found is None and valid_device_id(device):
                record = self._store.device(device)
                if record is not None and record.revoked_at is None:
                    found = shared_secrets(self._exchange, record.public, device)
                    self._derived[device] = found
            return found

    def forget(self, device: str) -> None:
        """The device was revoked, or has another key now."""
        with self._lock:
            self._derived.pop(device, None)

    def forget_all(self) -> None:
        """Ask the database again for everybody: another process may have revoked a device."""
        with self._lock:
            self._derived.clear()

    def certificate_holds(self, device: str, der: bytes) -> bool:
        """Whether a certificate, which the CA did sign, is this device's present one."""
        key, name = key_and_name(der)
        record = self._store.device(device)
        return record is not None and bool(key) and (key, name) == (record.tls_key, device)

    def password_holds(self, device: str, password: bytes) -> bool:
        """For MQTT; constant time."""
        return _equal(password, (self.of(device) or _NOBODY).mqtt_password)

    def token_holds(self, device: str, token: str) -> bool:
        """For HTTP; constant time."""
        return _equal(token.encode(), (self.of(device) or _NOBODY).http_token)


def _equal(given: bytes, secret: str) -> bool:
    same = hmac.compare_digest(given, secret.encode())
    return same and bool(secret)
