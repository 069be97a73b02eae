"""PURE: who may do what. A route needs one scope, a role is a set of scopes, a token has some.

What a request needs follows from its method and path alone, in `scope_of`: a new route is covered
the day it is written, and one that nobody thought of needs an administrator.
"""

from collections.abc import Iterable
from typing import Literal, get_args

import msgspec

from edge_sdk.errors import InvalidInputError

Role = Literal["viewer", "operator", "approver", "admin"]
Scope = Literal[
    "read",  # everything but secrets
    "publish",  # bundles and models into the registry
    "enrol",  # tokens by which devices join
    "devices",  # revoke, readmit, label, ask a device for something
    "rollouts",  # start, pause, resume, abort
    "alerts",  # acknowledge, mute, re-baseline, label samples
    "approve",  # let a rollout that waits for a person go on
    "admin",  # users, webhooks, everybody's tokens
]
SCOPES: tuple[Scope, ...] = get_args(Scope)
ROLES: dict[Role, frozenset[Scope]] = {
    "viewer": frozenset({"read"}),
    "operator": frozenset({"read", "publish", "enrol", "devices", "rollouts", "alerts"}),
    "approver": frozenset({"read", "publish", "enrol", "devices", "rollouts", "alerts", "approve"}),
    "admin": frozenset(SCOPES),
}
_OF_NOUN: dict[str, Scope] = {
    "bundles": "publish",
    "models": "publish",
    "enrolment-keys": "enrol",
    "devices": "devices",
    "commands": "devices",
    "sticks": "devices",
    "rollouts": "rollouts",
    "alerts": "alerts",
    "drift": "alerts",
    "labels": "alerts",
    "samples": "alerts",
    "tokens": "read",  # of one's own; others' need admin, which the route asks for
    "me": "read",
    "logout": "read",
}
_ADMINS = ("users", "webhooks", "login-links")


class Caller(msgspec.Struct, frozen=True):
    """Whoever asks: a name for the audit log, and what they may do."""

    name: str
    scopes: frozenset[Scope]

    def may(self, scope: Scope) -> bool:
        return scope in self.scopes


SESSION_SECONDS = 12 * 3600.0  # of a person who logged in
CONSOLE = Caller("console", frozenset(SCOPES))
"""Who holds the server's own token: a person at its machine."""


def scope_of(method: str, path: str) -> Scope:
    """What a request needs.

    >>> scope_of("GET", "/api/v1/devices"), scope_of("POST", "/api/v1/rollouts/r1/approve")
    ('read', 'approve')
    >>> scope_of("POST", "/rollouts/r1/abort"), scope_of("GET", "/api/v1/users")
    ('rollouts', 'admin')
    >>> scope_of("DELETE", "/api/v1/something-new")
    'admin'
    """
    parts = [part for part in path.removeprefix("/api/v1").split("/") if part]
    noun = parts[0] if parts else ""
    if noun in _ADMINS:
        return "admin"
    if method in ("GET", "HEAD"):
        return "read"
    if noun == "rollouts" and parts[-1] in ("approve", "reject"):
        return "approve"
    return _OF_NOUN.get(noun, "admin")


def as_role(word: str) -> Role:
    """Raises InvalidInputError for a word that is no role."""
    for role in ROLES:
        if word == role:
            return role
    raise InvalidInputError(f"{word[:40]!r} is no role: choose of {', '.join(ROLES)}")


def as_scopes(words: Iterable[str]) -> frozenset[Scope]:
    """Raises InvalidInputError for a word that is no scope."""
    asked = set(words)
    unknown = sorted(asked - set(SCOPES))
    if unknown or not asked:
        what = (
            f"{unknown[0][:40]!r} is no scope" if unknown else "a token without a scope is no use"
        )
        raise InvalidInputError(f"{what}: choose of {', '.join(SCOPES)}")
    return frozenset(scope for scope in SCOPES if scope in asked)
