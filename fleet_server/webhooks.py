"""What happens in the fleet, told to other services: signed, in order, again until it is taken.

A `mailto:` address gets the same by e-mail.

A hook reads the history from where it got to, so nothing is left out over a restart or an outage.
It goes to public addresses alone, unless an administrator allowed a private one: else whoever may
make a hook could ask this machine's neighbours through it (SSRF). The address that was checked is
the one that is asked; redirects are not followed.
"""

import hmac
import ipaddress
import logging
import socket
import time
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

import httpx2
import msgspec

from edge_sdk.errors import InvalidInputError, ServerError
from fleet_server.api_types import HistoryRow
from fleet_server.fleet import alert_row
from fleet_server.mail import Mailer, is_address, letter
from fleet_server.records import Delivery, EventRecord, Hook
from fleet_server.store import Store
from fleet_server.views import AlertRow

log = logging.getLogger("fleet_server.webhooks")

TIMEOUT = httpx2.Timeout(10.0)
FIRST_WAIT, LONGEST_WAIT = 5.0, 3600.0
BATCH = 50
MAX_URL, MAX_ERROR = 1000, 500
SIGNATURE = "edge-signature"
MAIL, MAILED = "mailto:", 250  # SMTP's word for taken
NO_RELAY = "e-mail needs an SMTP server: start the server with --smtp (or EDGE_SMTP)"

Resolve = Callable[[str, int], Sequence[str]]


def check_url(url: str) -> None:
    """Raises InvalidInputError for what is no web or e-mail address, or holds a password."""
    if url.startswith(MAIL):
        if not is_address(url.removeprefix(MAIL)):
            raise InvalidInputError(f"{url[:80]!r} names no e-mail address: mailto:NAME@HOST")
        return
    try:
        parts = urlsplit(url)
        web = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        fits = web and not (parts.username or parts.password) and len(url) <= MAX_URL
    except ValueError:
        fits = False
    if not fits:
        raise InvalidInputError(
            "a webhook needs http(s)://HOST/PATH without a password in it, or mailto:NAME@HOST"
        )


def addresses_of(host: str, port: int) -> Sequence[str]:
    """The addresses of a host; raises ServerError if it has none."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise ServerError(f"{host} has no address: {error}") from error
    return [str(entry[4][0]) for entry in found]


def allowed_address(url: str, resolve: Resolve, *, private: bool) -> str:
    """The address to ask; raises ServerError if one of the host's is not public.

    >>> allowed_address("http://x.example/", lambda h, p: ["127.0.0.1"], private=True)
    '127.0.0.1'
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    found = resolve(host, parts.port or (443 if parts.scheme == "https" else 80))
    for address in found:
        one = ipaddress.ip_address(address.partition("%")[0])
        inner = getattr(one, "ipv4_mapped", None) or one
        if not private and (not inner.is_global or inner.is_multicast):
            raise ServerError(
                f"{host} has the address {address}, which is not public: "
                "an administrator may allow it with --private"
            )
    return found[0]


def signature(secret: str, body: bytes, at: float) -> str:
    """`t=SECONDS,v1=HMAC-SHA-256` over `SECONDS.BODY`: the receiver checks both."""
    stamp = str(int(at))
    mac = hmac.digest(secret.encode(), stamp.encode() + b"." + body, "sha256").hex()
    return f"t={stamp},v1={mac}"


class Messenger:
    """Delivers what is due; `look` is called again and again.

    Args:
        store: hooks and the history.
        resolve: host and port to addresses.
        http: sends; it must not follow redirects.
        mailer: sends to `mailto:` addresses; None if the server was told no SMTP server.
        timer: seconds, for how long a delivery takes.
    """

    def __init__(
        self,
        store: Store,
        resolve: Resolve = addresses_of,
        http: httpx2.Client | None = None,
        mailer: Mailer | None = None,
        timer: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._mailer = mailer
        self._store, self._resolve, self._timer = store, resolve, timer
        self._http = http or httpx2.Client(timeout=TIMEOUT, follow_redirects=False, trust_env=False)

    def close(self) -> None:
        self._http.close()

    def look(self, now: float) -> None:
        """Deliver to every hook whose time has come."""
        for hook in self._store.hooks():
            if hook.next_try <= now:
                self._deliver(hook, now)

    def _deliver(self, hook: Hook, now: float) -> None:
        for event in self._store.events_after(hook.position, BATCH):
            if wants(hook, event):
                made = self.send(hook, event, now)
                self._store.add_delivery(made)
                if why := made.error:
                    failures = hook.failures + 1
                    wait = min(FIRST_WAIT * 2 ** (failures - 1), LONGEST_WAIT)
                    log.warning("webhook %s: %s; again in %d s", hook.id, why, wait)
                    self._store.save_hook(
                        msgspec.structs.replace(
                            hook, failures=failures, next_try=now + wait, last_error=why
                        )
                    )
                    return
                hook = msgspec.structs.replace(
                    hook, delivered=hook.delivered + 1, failures=0, last_error=""
                )
            hook = msgspec.structs.replace(hook, position=event.id)
            self._store.save_hook(hook)

    def send(self, hook: Hook, event: EventRecord, now: float) -> Delivery:
        """One try; it was taken if the receiver answers with a status of 200 to 299."""
        begun, status, alert = self._timer(), 0, self._alert(event)
        try:
            if hook.url.startswith(MAIL):
                self._mail(hook, event, alert, now)
                status = MAILED
            else:
                status = self._post(hook, event, alert, now)
            host = urlsplit(hook.url).hostname
            error = "" if 200 <= status < 300 else f"{host} answered {status}"
        except (httpx2.HTTPError, ServerError) as failure:
            error = str(failure) or type(failure).__name__
        return Delivery(
            hook=hook.id,
            event=event.id,
            name=event.name,
            at=now,
            status=status,
            error=error[:MAX_ERROR],
            seconds=self._timer() - begun,
        )

    def _alert(self, event: EventRecord) -> AlertRow | None:
        if not event.name.startswith("alert "):
            return None
        found = self._store.alert(event.detail.partition(":")[0])
        return alert_row(found) if found else None

    def _post(self, hook: Hook, event: EventRecord, alert: AlertRow | None, now: float) -> int:
        body = msgspec.json.encode(history_row(event, alert))
        parts = urlsplit(hook.url)
        headers = {
            "content-type": "application/json",
            "host": parts.netloc,
            "edge-event": str(event.id),
            SIGNATURE: signature(hook.secret, body, now),
        }
        address = allowed_address(hook.url, self._resolve, private=hook.private)
        bare = f"[{address}]" if ":" in address else address
        place = parts._replace(netloc=f"{bare}:{parts.port}" if parts.port else bare)
        answer = self._http.post(
            place.geturl(),
            content=body,
            headers=headers,
            extensions={"sni_hostname": parts.hostname or ""},
        )
        return answer.status_code

    def _mail(self, hook: Hook, event: EventRecord, alert: AlertRow | None, now: float) -> None:
        if self._mailer is None:
            raise ServerError(NO_RELAY)
        self._mailer.send(
            letter(
                hook.url.removeprefix(MAIL),
                self._mailer.relay.sender,
                f"[edge] {event.name}: {alert.title if alert else event.detail}",
                in_words(event, alert),
                f"edge-{hook.id}-{event.id}",
                now,
            )
        )


def in_words(event: EventRecord, alert: AlertRow | None) -> str:
    """What a person reads in an e-mail."""
    if alert is None:
        return f"{event.source}: {event.name}\n{event.detail}\n"
    lines = [
        f"{event.name}, {alert.severity}: {alert.title}",
        alert.detail,
        f"Likely cause: {alert.cause}." if alert.cause else "",
        f"What to do: {alert.action}." if alert.action else "",
        f"Seen on {alert.devices} devices; edge alert show {alert.id}",
    ]
    return "\n\n".join(line for line in lines if line) + "\n"


def history_row(event: EventRecord, alert: AlertRow | None = None) -> HistoryRow:
    """A line of the history as others are told it; with the alert that it is about."""
    return HistoryRow(
        id=event.id,
        at=event.at,
        source=event.source,
        name=event.name,
        detail=event.detail,
        device=event.device,
        alert=alert,
    )


def wants(hook: Hook, event: EventRecord) -> bool:
    """Whether an event is told to a hook: its name begins with one of the hook's words."""
    words = hook.events.split()
    return not words or any(event.name.startswith(word) for word in words)
