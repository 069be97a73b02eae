"""Log in at somebody else's: OpenID Connect, authorisation code with PKCE, by Authlib.

The provider says who a person is, this server who may do what: a user of that name has to be here.
What the browser brings back is checked against what it was sent away with: `state`, which it also
has as a cookie (login CSRF), `nonce`, and the code's verifier. The last two follow from the first
and a secret of this process, so nothing is kept of those who are away, and nobody can crowd others
out. The provider takes a code once.
"""

import base64
import hmac
import secrets
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import msgspec

from edge_sdk.errors import EdgeError, InvalidInputError, RefusedError, ServerError

TIMEOUT = 10.0
WAIT_SECONDS = 600.0
FRESH_SECONDS = 3600.0
LEEWAY = 60
ENDPOINTS = ("authorization_endpoint", "token_endpoint", "jwks_uri")
SIGNATURES = ["RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "EdDSA"]


class OidcSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Which provider, and what it knows this server as.

    Attributes:
        issuer: `https://…`, below which is `.well-known/openid-configuration`.
        secret: empty for a public client.
        claim: what of the ID token is a user's name here; an `email` must be verified.
    """

    issuer: str
    client: str
    secret: str = ""
    claim: str = "email"

    def __repr__(self) -> str:
        return f"OidcSettings({self.issuer}, {self.client})"


class Known(msgspec.Struct, frozen=True):
    """Who came back: the name that is asked for here, and who that is at the provider."""

    name: str
    subject: str


class Oidc:
    """One provider; `begin` sends a browser there, `finish` says who came back."""

    def __init__(self, settings: OidcSettings, now: Callable[[], float]) -> None:
        """`now` is in Unix seconds.

        Raises:
            InvalidInputError: the issuer is no address that can be trusted.
            EdgeError: the extra `oidc` is not installed.
        """
        parts = urlsplit(settings.issuer)
        local = parts.hostname in ("localhost", "127.0.0.1", "::1")
        if not parts.hostname or parts.scheme not in ("https", *(["http"] if local else [])):
            raise InvalidInputError(f"an OIDC issuer is https://HOST/…, not {settings.issuer!r}")
        _library()
        self.settings, self._now = settings, now
        self._secret = secrets.token_bytes(32)
        self._known: tuple[dict[str, Any], dict[str, Any], float] | None = None

    @property
    def provider(self) -> str:
        """Its name for people."""
        return urlsplit(self.settings.issuer).hostname or ""

    def begin(self, back: str) -> tuple[str, str]:
        """Where to send a browser that shall come back to the address `back`, and its `state`.

        Raises:
            ServerError: the provider does not answer.
        """
        told, _ = self._provider()
        state = f"{int(self._now() + WAIT_SECONDS)}.{secrets.token_urlsafe(32)}"
        with self._session(back, state) as session:
            url, _ = session.create_authorization_url(
                told["authorization_endpoint"],
                state,
                code_verifier=self._derived(state, "verifier"),
                nonce=self._derived(state, "nonce"),
            )
        return url, state

    def finish(self, url: str, state: str) -> Known:
        """Who came back to `url`; `state` is the browser's cookie.

        Raises:
            RefusedError: nobody was sent away like this, or what was brought back does not hold.
            ServerError: the provider does not answer.
        """
        from authlib.common.errors import AuthlibBaseError

        until = state.partition(".")[0]
        if not until.isdecimal() or int(until[:20]) <= self._now():
            raise RefusedError("this log-in was not begun here, or long ago: begin anew")
        told, _ = self._provider()
        with self._session(url.partition("?")[0], state) as session:
            try:
                given = session.fetch_token(
                    told["token_endpoint"],
                    authorization_response=url,
                    code_verifier=self._derived(state, "verifier"),
                    state=state,
                )
            except AuthlibBaseError as error:
                raise RefusedError(f"{self.provider} did not log anybody in: {error}") from error
            except OSError as error:
                raise self._silent(error) from error
        claims = self._claims(given, self._derived(state, "nonce"))
        return Known(self._name(claims), f"{claims['iss']} {claims['sub']}")

    def _derived(self, state: str, purpose: str) -> str:
        """Nobody else can tell it, so a `state` that was made up fails at the provider or here."""
        told = hmac.digest(self._secret, f"{purpose} {state}".encode(), "sha256")
        return base64.urlsafe_b64encode(told).rstrip(b"=").decode()

    def _claims(self, given: dict[str, Any], nonce: str) -> dict[str, Any]:
        """What a valid ID token says."""
        from authlib.oidc.core import CodeIDToken
        from joserfc import jwt
        from joserfc.errors import JoseError
        from joserfc.jwk import KeySet

        told, keys = self._provider()
        options = {
            "iss": {"essential": True, "value": told["issuer"]},
            "aud": {"essential": True, "value": self.settings.client},
        }
        params = {
            "nonce": nonce,
            "client_id": self.settings.client,
            "access_token": given.get("access_token"),
        }
        try:
            text = str(given.get("id_token", ""))
            token = jwt.decode(text, KeySet.import_key_set(keys), algorithms=SIGNATURES)  # type: ignore[arg-type]
            claims = CodeIDToken(token.claims, token.header, options, params)
            claims.validate(self._now(), LEEWAY)
        except (JoseError, ValueError) as error:
            self._known = None  # its keys may have changed
            raise RefusedError(f"the ID token of {self.provider} does not hold: {error}") from error
        return dict(claims)

    def _name(self, claims: dict[str, Any]) -> str:
        claim = self.settings.claim
        name = claims.get(claim)
        if not isinstance(name, str) or not name:
            raise RefusedError(f"{self.provider} does not tell the claim {claim!r}")
        if claim == "email" and claims.get("email_verified") is not True:
            raise RefusedError(f"{self.provider} has not verified the address {name[:64]}")
        return name

    def _provider(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """What the provider tells of itself, and its keys; asked for once an hour."""
        known = self._known
        if known is not None and known[2] > self._now():
            return known[0], known[1]
        issuer = self.settings.issuer.rstrip("/")
        with self._session("", "") as session:
            told = self._fetch(session, f"{issuer}/.well-known/openid-configuration")
            if str(told.get("issuer", "")).rstrip("/") != issuer:
                raise ServerError(f"{issuer} says that it is {str(told.get('issuer'))[:100]}")
            if lacking := [name for name in ENDPOINTS if not isinstance(told.get(name), str)]:
                raise ServerError(f"{issuer} does not tell its {' and '.join(lacking)}")
            keys = self._fetch(session, told["jwks_uri"])
        self._known = told, keys, self._now() + FRESH_SECONDS
        return told, keys

    def _fetch(self, session: Any, url: str) -> dict[str, Any]:  # noqa: ANN401
        try:
            answer = session.get(url, withhold_token=True, timeout=TIMEOUT)
            answer.raise_for_status()
            found = answer.json()
        except (OSError, ValueError) as error:
            raise self._silent(error) from error
        if not isinstance(found, dict):
            raise ServerError(f"{url} does not answer as an OIDC provider")
        return found

    def _silent(self, error: Exception) -> ServerError:
        return ServerError(f"the OIDC provider {self.provider} does not answer: {error}")

    def _session(self, back: str, state: str) -> Any:  # noqa: ANN401
        made = _library()(
            self.settings.client,
            self.settings.secret or None,
            scope="openid email profile",
            redirect_uri=back,
            state=state,
            code_challenge_method="S256",
            token_endpoint_auth_method="client_secret_basic" if self.settings.secret else "none",
            default_timeout=TIMEOUT,
        )
        made.trust_env = False
        return made


def _library() -> Any:  # noqa: ANN401 - Authlib has no types
    try:
        from authlib.integrations.requests_client import OAuth2Session
    except ModuleNotFoundError as error:
        raise EdgeError(
            f"logging in by OIDC needs {error.name}: pip install 'edge-deployment-sdk[server,oidc]'"
        ) from error
    return OAuth2Session
