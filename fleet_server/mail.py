"""Alerts by e-mail: one address a hook, over the operator's own SMTP server, encrypted.

`smtp://` asks for STARTTLS (RFC 3207), `smtps://` begins with TLS (RFC 8314); both believe the
system's CAs. Only a relay on this machine may be spoken to without.
"""

import ipaddress
import re
import smtplib
import ssl
from email.message import EmailMessage
from email.utils import formatdate
from urllib.parse import unquote, urlsplit

import msgspec

from edge_sdk.errors import InvalidInputError, ServerError

TIMEOUT = 15.0
PORTS = {"smtp": 587, "smtps": 465}
# A dot-atom and a name of a host (RFC 5321, 4.1.2), which leaves no room for what a header or a
# command of SMTP would read otherwise.
ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
ADDRESS = re.compile(
    rf"(?=[^@]{{1,64}}@.{{1,255}}$){ATOM}(\.{ATOM})*@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*"
)
FORM = "smtp://[USER@]HOST[:PORT]/?from=ADDRESS (or smtps://), its password by EDGE_SMTP_PASSWORD"


class Relay(msgspec.Struct, frozen=True):
    """The SMTP server that takes our mail; `user` is empty if it asks for no login."""

    host: str
    port: int
    sender: str
    user: str = ""
    password: str = ""
    implicit_tls: bool = False


def parse_relay(url: str, password: str) -> Relay:
    """The relay that a URL names.

    Raises:
        InvalidInputError: it has another form, or a password in it.
    """
    try:
        parts = urlsplit(url)
        host, port, user = parts.hostname or "", parts.port, unquote(parts.username or "")
    except ValueError as error:
        raise InvalidInputError(f"an SMTP server is given as {FORM}: {error}") from error
    if parts.password is not None:
        raise InvalidInputError("a URL is no place for a password: give it by EDGE_SMTP_PASSWORD")
    name, _, sender = parts.query.partition("=")
    sender = unquote(sender)
    if parts.scheme not in PORTS or not host or name != "from" or not is_address(sender):
        raise InvalidInputError(f"an SMTP server is given as {FORM}")
    if bool(user) != bool(password):
        raise InvalidInputError("an SMTP login needs both: USER@ in its URL and EDGE_SMTP_PASSWORD")
    return Relay(host, port or PORTS[parts.scheme], sender, user, password, parts.scheme == "smtps")


def is_address(text: str) -> bool:
    r"""Whether it is one plain e-mail address.

    >>> is_address("ops@example.org"), is_address("ops@example.org\nBcc: x@example.org")
    (True, False)
    """
    return ADDRESS.fullmatch(text) is not None


def letter(to: str, sender: str, subject: str, text: str, name: str, at: float) -> EmailMessage:
    """A message; `name` is unique to it, so that one that is sent again is seen to be the same."""
    made = EmailMessage()
    made["From"], made["To"] = sender, to
    made["Subject"] = " ".join(subject.split())[:200]  # no line break gets into a header
    made["Date"] = formatdate(at)
    made["Message-ID"] = f"<{name}@{sender.rpartition('@')[2]}>"
    made["Auto-Submitted"] = "auto-generated"  # RFC 3834: no out-of-office answers it
    made.set_content(text)
    return made


class Mailer:
    """Sends over one relay, a connection a message.

    Args:
        relay: where to.
        trust: whom to believe; None for the system's CAs.
    """

    def __init__(self, relay: Relay, trust: ssl.SSLContext | None = None) -> None:
        self.relay = relay
        self._trust = trust or ssl.create_default_context()

    def send(self, message: EmailMessage) -> None:
        """Raises ServerError: the relay was not reached, is not trusted, or did not take it."""
        relay = self.relay
        try:
            with self._connect() as smtp:
                if relay.user:
                    smtp.login(relay.user, relay.password)
                smtp.send_message(message)
        except (OSError, smtplib.SMTPException, ValueError) as error:
            # ValueError: a host, login or letter that smtplib can't put into ASCII
            raise ServerError(f"{relay.host} did not take the mail: {error}") from error

    def _connect(self) -> smtplib.SMTP:
        relay = self.relay
        if relay.implicit_tls:
            return smtplib.SMTP_SSL(relay.host, relay.port, timeout=TIMEOUT, context=self._trust)
        smtp = smtplib.SMTP(relay.host, relay.port, timeout=TIMEOUT)
        try:
            smtp.ehlo()
            if smtp.has_extn("starttls"):
                smtp.starttls(context=self._trust)
            elif relay.user or not _this_machine(relay.host):
                raise ServerError(f"{relay.host} offers no STARTTLS, so nothing is sent there")
        except BaseException:
            smtp.close()
            raise
        return smtp


def _this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
