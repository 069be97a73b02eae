"""Users, tokens and the audit log, `/api/v1`."""

import msgspec
from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool

from edge_sdk.errors import InvalidInputError, RefusedError
from fleet_server.access import Caller, as_role, as_scopes
from fleet_server.answers import (
    NotFoundError,
    answer,
    bearer,
    read_body,
    read_json,
    refuse_if_changed,
)
from fleet_server.api_types import (
    AuditPage,
    AuditRow,
    Me,
    NewPassword,
    NewRole,
    NewToken,
    NewUser,
    Page,
    TokenRow,
    TokenText,
    UserRow,
)
from fleet_server.asking import caller_of, tell_made
from fleet_server.audit import AuditEntry
from fleet_server.guard import digest
from fleet_server.openapi import gives, takes
from fleet_server.paging import page_of, within
from fleet_server.parts import Parts
from fleet_server.records import TokenRecord, UserRecord
from fleet_server.store import Store

MAX_BODY = 64 * 1024


def people_routes(router: APIRouter, parts: Parts) -> None:
    """Add the routes to the operators' router, which knows who asks."""
    _users(router, parts)
    _changing_users(router, parts)
    _tokens(router, parts)

    @router.get("/audit", responses=gives(AuditPage))
    def audit(
        before: int | None = None, limit: int = 100, actor: str = "", target: str = ""
    ) -> Response:
        """Who did what, newest first; `next` is the `before` of the page that follows."""
        wanted = within(limit)
        rows = parts.store.audit(before=before, limit=wanted, actor=actor, target=target)
        more = rows[-1].id if len(rows) == wanted and rows[-1].id > 1 else None
        return answer(AuditPage(tuple(audit_row(row) for row in rows), more))


def _users(router: APIRouter, parts: Parts) -> None:
    guard, store = parts.guard, parts.store

    @router.get("/me", responses=gives(Me))
    def me(request: Request) -> Response:
        """Who asks, and what they may do."""
        caller = caller_of(request)
        return answer(Me(caller.name, tuple(sorted(caller.scopes))))

    @router.get("/users", responses=gives(Page[UserRow]))
    def users(after: str = "", limit: int = 100, role: str = "") -> Response:
        """Everybody, by name."""
        rows = [_user_row(user) for user in store.users() if role in ("", user.role)]
        return answer(page_of(rows, lambda row: row.name, after, limit))

    @router.get("/users/{name}", responses=gives(UserRow))
    def one(name: str) -> Response:
        """One user."""
        return answer(_user_row(known_user(store, name)))

    @router.post(
        "/users", status_code=201, responses=gives(UserRow, 201), openapi_extra=takes(NewUser)
    )
    async def add(request: Request) -> Response:
        """Add a user."""
        wish = read_json(NewUser, await read_body(request, MAX_BODY), "the user")
        role = as_role(wish.role)
        made = await run_in_threadpool(guard.new_user, wish.name, role, wish.password)
        tell_made(request, f"{made.name}, {made.role}")
        return answer(_user_row(made), 201)


def _changing_users(router: APIRouter, parts: Parts) -> None:
    guard, store = parts.guard, parts.store

    def change(request: Request, name: str, **what: object) -> Response:
        with store.transaction():
            user = known_user(store, name)
            refuse_if_changed(request, _user_row(user))
            changed = msgspec.structs.replace(user, **what)
            store.change_user(changed)
        return answer(_user_row(changed))

    @router.post(
        "/users/{name}/password", responses=gives(UserRow), openapi_extra=takes(NewPassword)
    )
    async def password(name: str, request: Request) -> Response:
        """Give a user another password; open sessions end."""
        wish = read_json(NewPassword, await read_body(request, MAX_BODY), "the password")
        await run_in_threadpool(known_user, store, name)
        hashed = await run_in_threadpool(guard.hashed, wish.password)
        return await run_in_threadpool(change, request, name, password=hashed)

    @router.post("/users/{name}/role", responses=gives(UserRow), openapi_extra=takes(NewRole))
    async def role(name: str, request: Request) -> Response:
        """Give a user another role."""
        wish = read_json(NewRole, await read_body(request, MAX_BODY), "the role")
        return await run_in_threadpool(change, request, name, role=as_role(wish.role))

    @router.post("/users/{name}/disable", responses=gives(UserRow))
    def disable(name: str, request: Request) -> Response:
        """Shut a user out: sessions end, tokens stop. What they did stays in the audit log."""
        return change(request, name, disabled_at=parts.now())

    @router.post("/users/{name}/enable", responses=gives(UserRow))
    def enable(name: str, request: Request) -> Response:
        """Let a user in again; who logs in elsewhere (OIDC) may be another person there now."""
        return change(request, name, disabled_at=None, subject="")


def _tokens(router: APIRouter, parts: Parts) -> None:
    guard, store = parts.guard, parts.store

    def mine(caller: Caller) -> str | None:
        return None if caller.may("admin") else caller.name.partition("/")[0]

    @router.get("/tokens", responses=gives(Page[TokenRow]))
    def tokens(request: Request, after: str = "", limit: int = 100) -> Response:
        """One's own tokens, newest first; an administrator sees everybody's."""
        rows = [_token_row(t) for t in store.tokens(mine(caller_of(request)))]
        return answer(page_of(rows, lambda row: row.id, after, limit))

    @router.post(
        "/tokens", status_code=201, responses=gives(TokenText, 201), openapi_extra=takes(NewToken)
    )
    async def add(request: Request) -> Response:
        """Make a token with some of one's own rights; its text is shown this once.

        A name and a password (Basic) do in place of a token.
        """
        caller = caller_of(request)
        if "/" in caller.name:
            raise RefusedError("a token makes no tokens: log in by name, or ask at the console")
        wish = read_json(NewToken, await read_body(request, MAX_BODY), "the token")
        scopes = caller.scopes if wish.scopes is None else as_scopes(wish.scopes)
        text = await run_in_threadpool(guard.new_token, caller, wish.name, scopes, wish.hours)
        tell_made(request, f"{wish.name}, {wish.hours:g} h: {', '.join(sorted(scopes))}")
        return answer(TokenText(text), 201)

    @router.post("/tokens/{token}/revoke", responses=gives(TokenRow))
    def revoke(token: str, request: Request) -> Response:
        """End a token; answers what it was."""
        whose = mine(caller_of(request))
        found = next((t for t in store.tokens(whose) if t.id == token), None)
        if found is None:
            raise InvalidInputError(f"there is no token {token[:40]!r} of yours")
        store.drop_token(token)
        return answer(_token_row(found))

    @router.post("/logout", responses=gives(TokenRow))
    def log_out(request: Request) -> Response:
        """End the token that this is asked with; answers what it was."""
        found = store.token(digest(bearer(request)))
        if found is None:
            raise RefusedError("the server's own token holds as long as its data folder")
        store.drop_token(found.id)
        return answer(_token_row(found))


def known_user(store: Store, name: str) -> UserRecord:
    """Raises NotFoundError."""
    found = store.user(name)
    if found is None:
        raise NotFoundError(f"there is no user {name[:64]!r}")
    return found


def audit_row(entry: AuditEntry) -> AuditRow:
    return AuditRow(**msgspec.structs.asdict(entry))


def _user_row(user: UserRecord) -> UserRow:
    return UserRow(
        name=user.name,
        role=user.role,
        created_at=user.created_at,
        disabled=user.disabled_at is not None,
    )


def _token_row(token: TokenRecord) -> TokenRow:
    return TokenRow(
        id=token.id,
        name=token.name,
        user=token.user,
        scopes=tuple(sorted(token.scopes)),
        created_at=token.created_at,
        expires_at=token.expires_at,
    )
