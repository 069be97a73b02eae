"""Users, their sessions and tokens, and the audit log."""

from collections.abc import Iterator

import msgspec
from sqlalchemy import RowMapping, delete, func, insert, select, update

from fleet_server.access import as_scopes
from fleet_server.audit import FIRST, AuditEntry, sealed
from fleet_server.records import SessionRecord, TokenRecord, UserRecord
from fleet_server.store import tables
from fleet_server.store.database import Database

STEP = 1000  # entries in one read of the whole log


class People(Database):
    """Who may ask, and what was asked and decided."""

    def add_user(self, user: UserRecord) -> None:
        with self._write() as c:
            c.execute(insert(tables.users).values(msgspec.structs.asdict(user)))

    def user(self, name: str) -> UserRecord | None:
        table = tables.users
        with self._read() as c:
            row = c.execute(select(table).where(table.c.name == name)).mappings().first()
        return UserRecord(**row) if row else None

    def users(self) -> list[UserRecord]:
        """By name."""
        with self._read() as c:
            rows = c.execute(select(tables.users).order_by(tables.users.c.name)).mappings().all()
        return [UserRecord(**row) for row in rows]

    def change_user(self, user: UserRecord) -> None:
        """Role, password or welcome; whoever is not welcome any more has no session either."""
        table = tables.users
        with self.transaction(), self._write() as c:
            c.execute(
                update(table).where(table.c.name == user.name).values(msgspec.structs.asdict(user))
            )
            c.execute(delete(tables.sessions).where(tables.sessions.c.user == user.name))

    def bind_user(self, name: str, subject: str) -> bool:
        """Whether the user is this one of a provider's people; who is nobody's yet becomes it."""
        table = tables.users
        free = (table.c.name == name) & table.c.subject.in_(("", subject))
        with self._write() as c:
            return bool(c.execute(update(table).where(free).values(subject=subject)).rowcount)

    def add_session(self, session: SessionRecord, now: float) -> None:
        """Also forgets the sessions that are over."""
        table = tables.sessions
        with self.transaction(), self._write() as c:
            c.execute(delete(table).where(table.c.expires_at <= now))
            c.execute(insert(table).values(msgspec.structs.asdict(session)))

    def session(self, digest: str) -> SessionRecord | None:
        table = tables.sessions
        with self._read() as c:
            row = c.execute(select(table).where(table.c.digest == digest)).mappings().first()
        return SessionRecord(**row) if row else None

    def end_session(self, digest: str) -> None:
        with self._write() as c:
            c.execute(delete(tables.sessions).where(tables.sessions.c.digest == digest))

    def add_token(self, token: TokenRecord) -> None:
        values = msgspec.structs.asdict(token) | {"scopes": " ".join(sorted(token.scopes))}
        with self._write() as c:
            c.execute(insert(tables.tokens).values(values))

    def token(self, digest: str) -> TokenRecord | None:
        table = tables.tokens
        with self._read() as c:
            row = c.execute(select(table).where(table.c.digest == digest)).mappings().first()
        return _token(row) if row else None

    def tokens(self, user: str | None = None) -> list[TokenRecord]:
        """Newest first; of one user, or of all."""
        table = tables.tokens
        wanted = select(table).order_by(table.c.created_at.desc(), table.c.id)
        if user is not None:
            wanted = wanted.where(table.c.user == user)
        with self._read() as c:
            return [_token(row) for row in c.execute(wanted).mappings()]

    def drop_token(self, token: str) -> None:
        with self._write() as c:
            c.execute(delete(tables.tokens).where(tables.tokens.c.id == token))

    def add_audit(self, at: float, actor: str, action: str, target: str, detail: str = "") -> None:
        """Write an entry behind the newest."""
        table = tables.audit
        with self.transaction(), self._write() as c:
            last = c.execute(
                select(table.c.id, table.c.digest).order_by(table.c.id.desc()).limit(1)
            ).first()
            entry = sealed(
                AuditEntry(
                    id=last.id + 1 if last else 1,
                    at=at,
                    actor=actor,
                    action=action,
                    target=target,
                    detail=detail,
                    previous=last.digest if last else FIRST,
                )
            )
            c.execute(insert(table).values(msgspec.structs.asdict(entry)))

    def audit(
        self, *, before: int | None = None, limit: int = 50, actor: str = "", target: str = ""
    ) -> list[AuditEntry]:
        """Newest first; those numbered below `before`, by one actor, about one target."""
        table = tables.audit
        wanted = select(table).order_by(table.c.id.desc()).limit(limit)
        if before is not None:
            wanted = wanted.where(table.c.id < before)
        if actor:
            wanted = wanted.where(table.c.actor == actor)
        if target:
            wanted = wanted.where(table.c.target == target)
        with self._read() as c:
            return [AuditEntry(**row) for row in c.execute(wanted).mappings()]

    def audit_chain(self) -> Iterator[AuditEntry]:
        """Everything, oldest first."""
        table, after = tables.audit, 0
        while True:
            wanted = select(table).where(table.c.id > after).order_by(table.c.id).limit(STEP)
            with self._read() as c:
                rows = [AuditEntry(**row) for row in c.execute(wanted).mappings()]
            if not rows:
                return
            yield from rows
            after = rows[-1].id

    def user_count(self) -> int:
        with self._read() as c:
            return int(c.execute(select(func.count()).select_from(tables.users)).scalar_one())


def _token(row: RowMapping) -> TokenRecord:
    return TokenRecord(**{**row, "scopes": as_scopes(row["scopes"].split())})
