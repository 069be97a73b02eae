"""Who asks: bearer tokens of programs, sessions of browsers, passwords, and links that open once.

Nothing secret is stored: tokens and cookies as SHA-256, passwords as argon2. Every attempt to
change something is written to the audit log before it is made.
"""

import hashlib
import hmac
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError
from fastapi import Request
from starlette.exceptions import HTTPException

from edge_sdk.errors import EdgeError, InvalidInputError, RefusedError
from fleet_server.access import CONSOLE, ROLES, SESSION_SECONDS, Caller, Role, scope_of
from fleet_server.limits import Buckets
from fleet_server.records import SessionRecord, TokenRecord, UserRecord
from fleet_server.store import Store

PREFIX = "edgetok_"
LINK_SECONDS = 3600.0
MAX_LINKS = 100
MIN_PASSWORD, MAX_PASSWORD, MAX_NAME = 10, 1024, 64
MAX_WORDS = 300
OURSELVES = ("controller", "server", "decay", "trust")  # who decides by rules, in the audit log
_READING = ("GET", "HEAD", "OPTIONS")


class Guard:
    """The one door to operators' rights.

    Args:
        store: users, sessions, tokens, audit log.
        admin_token: the server's own, in its data folder: whoever reads it is the console.
        now: Unix seconds.
        first_link: takes the digest of a code that was made before the start, once.
        hasher: of passwords; by default as slow as argon2-cffi advises.
    """

    def __init__(
        self,
        store: Store,
        admin_token: str,
        now: Callable[[], float],
        hasher: PasswordHasher | None = None,
        first_link: Callable[[str], bool] = lambda _digest: False,
    ) -> None:
        self._store = store
        self._admin_token = admin_token
        self._now = now
        self._links: dict[str, float] = {}
        self._first_link = first_link
        self._hasher = hasher or PasswordHasher()
        self._nobody = self._hasher.hash(secrets.token_hex(16))
        self._failures = Buckets(rate=0.2, burst=20)
        self._knocks = Buckets(rate=0.5, burst=20)
        self._asked = Buckets(rate=100.0, burst=1000)
        self._lock = threading.Lock()

    # who is it?

    def of_bearer(self, token: str) -> Caller | None:
        """Whoever a program asks for; None for a token that is unknown, over, or of a gone user."""
        if hmac.compare_digest(token.encode(), self._admin_token.encode()):
            return CONSOLE
        if not token.startswith(PREFIX):
            return None
        found = self._store.token(digest(token))
        if found is None or found.expires_at <= self._now():
            return None
        owner = self._user(found.user)
        return Caller(f"{owner.name}/{found.name}", owner.scopes & found.scopes) if owner else None

    def of_session(self, cookie: str) -> Caller | None:
        """Whoever's browser shows this cookie."""
        found = self._store.session(digest(cookie)) if cookie else None
        if found is None or found.expires_at <= self._now():
            return None
        return self._user(found.user)

    def of_password(self, name: str, password: str) -> Caller | None:
        """Whoever has this name and password."""
        return self._user(name) if self.log_in(name, password) else None

    def _user(self, name: str) -> Caller | None:
        if name == CONSOLE.name:
            return CONSOLE
        user = self._store.user(name)
        welcome = user is not None and user.disabled_at is None
        return Caller(name, ROLES[user.role]) if user and welcome else None

    # may they?

    @contextmanager
    def allowed(self, caller: Caller, request: Request) -> Iterator[None]:
        """Let a request through if the caller may; raises HTTPException 403 or 429."""
        method, path = request.method, request.url.path
        self._wait(self._asked, caller.name)
        scope = scope_of(method, path)
        what = f"{method} {path.removeprefix('/api/v1').lstrip('/')}"[:MAX_WORDS]
        parts = what.split("/")
        target = parts[1] if len(parts) > 1 else ""
        if not caller.may(scope):
            self._store.add_audit(self._now(), caller.name, what, target, f"denied: needs {scope}")
            raise HTTPException(403, f"this needs the right '{scope}', which {caller.name} has not")
        if method in _READING:
            yield
            return
        self._store.add_audit(self._now(), caller.name, what, target)
        request.state.made = ""
        try:
            yield
            if request.state.made:
                made = f"made {request.state.made}"[:MAX_WORDS]
                self._store.add_audit(self._now(), caller.name, what, target, made)
        except EdgeError as error:
            why = f"refused: {error}"[:MAX_WORDS]
            self._store.add_audit(self._now(), caller.name, what, target, why)
            raise

    def refuse_guessing(self, address: str) -> None:
        """Raises HTTPException 429 if too many attempts from there failed of late."""
        with self._lock:
            left = self._failures.left(address, self._now())
        if left < 1:
            raise _too_often(60.0)

    def failed(self, address: str) -> None:
        """Somebody there did not know a secret."""
        with self._lock:
            self._failures.take(address, self._now())

    def knock(self, address: str) -> None:
        """A stranger there has us ask somebody else; raises HTTPException 429 if too often."""
        self._wait(self._knocks, address)

    def slow_down(self, device: str) -> None:
        """Raises HTTPException 429 for a device that asks too often."""
        self._wait(self._asked, f"device {device}")

    def _wait(self, buckets: Buckets, key: str) -> None:
        with self._lock:
            seconds = buckets.take(key, self._now())
        if seconds:
            raise _too_often(seconds)

    # browsers

    def new_link(self) -> str:
        """The path of a link that opens the pages once, within the hour."""
        with self._lock:
            now = self._now()
            fresh = [(code, until) for code, until in self._links.items() if until > now]
            code = secrets.token_urlsafe(24)
            self._links = {**dict(fresh[-MAX_LINKS + 1 :]), digest(code): now + LINK_SECONDS}
        return f"/login?code={code}"

    def accepts(self, code: str) -> bool:
        """Whether the link with this code is good; it is used up then."""
        with self._lock:
            until = self._links.pop(digest(code), 0.0)
        return until > self._now() or self._first_link(digest(code))

    def log_in(self, name: str, password: str) -> bool:
        """Whether the password is this user's. As slow for nobody as for somebody."""
        user = self._store.user(name) if len(name) <= MAX_NAME else None
        known = user is not None and user.disabled_at is None and bool(user.password)
        try:
            self._hasher.verify(user.password if user and known else self._nobody, password)
        except (Argon2Error, InvalidHashError):
            return False
        return known

    def admit(self, name: str, subject: str) -> None:
        """Let in whom a provider knows by `subject`, as the user of that name.

        The first who comes under a name keeps it: names at a provider change hands, subjects don't.

        Raises:
            RefusedError: there is no such user, they have a password here, or it is another person.
        """
        user = self._store.user(name) if len(name) <= MAX_NAME else None
        if user is None or user.disabled_at is not None:
            raise RefusedError(
                f"{name[:MAX_NAME]} is no user here: an administrator may say "
                f"'edge user add {name[:MAX_NAME]} --no-password'"
            )
        if user.password:
            raise RefusedError(f"{name} has a password here: log in with it")
        if not self._store.bind_user(name, subject):
            raise RefusedError(
                f"another person logged in as {name} before: if this is the right one, an "
                f"administrator may say 'edge user disable {name}' and 'edge user enable {name}'"
            )

    def open_session(self, name: str) -> str:
        """What the user's browser is to keep."""
        secret, now = secrets.token_urlsafe(32), self._now()
        session = SessionRecord(
            digest=digest(secret), user=name, created_at=now, expires_at=now + SESSION_SECONDS
        )
        self._store.add_session(session, now)
        self._store.add_audit(now, name, "logged in", "")
        return secret

    def log_out(self, cookie: str) -> None:
        self._store.end_session(digest(cookie))

    # users and tokens

    def new_user(self, name: str, role: Role, password: str) -> UserRecord:
        """Add a user; an empty password is for one who logs in elsewhere.

        Raises:
            InvalidInputError: a name that is taken or can't be used, a password too short.
        """
        if not (0 < len(name) <= MAX_NAME and name.isprintable()) or {"/", ":"} & set(name):
            raise InvalidInputError(
                f"a user's name is 1 to {MAX_NAME} printable characters without '/' and ':'"
            )
        if name in (CONSOLE.name, *OURSELVES) or self._store.user(name) is not None:
            raise InvalidInputError(f"the name {name} is taken")
        hashed = self.hashed(password) if password else ""
        made = UserRecord(name=name, role=role, password=hashed, created_at=self._now())
        self._store.add_user(made)
        return made

    def hashed(self, password: str) -> str:
        """Raises InvalidInputError for a password that is too short or too long."""
        if not MIN_PASSWORD <= len(password) <= MAX_PASSWORD:
            raise InvalidInputError(f"a password has {MIN_PASSWORD} to {MAX_PASSWORD:,} characters")
        return self._hasher.hash(password)

    def new_token(self, owner: Caller, name: str, scopes: frozenset[str], hours: float) -> str:
        """A token's text, shown this once.

        Raises:
            InvalidInputError: no such scope, or one that the owner has not; a name or a length of
                time that can't be used.
        """
        if not (0 < len(name) <= MAX_NAME and name.isprintable()) or not 0 < hours <= 24 * 366:
            raise InvalidInputError(
                f"a token has a name of 1 to {MAX_NAME} printable characters, and a year at most"
            )
        beyond = sorted(scopes - owner.scopes)
        if beyond:
            raise InvalidInputError(f"{owner.name} has not the right {beyond[0]!r} to give away")
        text, now = PREFIX + secrets.token_urlsafe(32), self._now()
        self._store.add_token(
            TokenRecord(
                id=secrets.token_hex(4),
                name=name,
                digest=digest(text),
                user=owner.name.partition("/")[0],
                scopes=owner.scopes & scopes,
                created_at=now,
                expires_at=now + hours * 3600,
            )
        )
        return text


def digest(secret: str) -> str:
    """Secrets are kept and looked up by this, so that neither a copy nor a look-up's time helps."""
    return hashlib.sha256(secret.encode(errors="surrogatepass")).hexdigest()


def _too_often(seconds: float) -> HTTPException:
    return HTTPException(
        429, f"too many requests: wait {seconds:.0f} s", {"retry-after": f"{seconds:.0f}"}
    )
