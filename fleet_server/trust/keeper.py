"""Keeps a running server's repository fresh, and calls for a person when it can't."""

import hashlib
import logging

import msgspec

from edge_sdk.errors import EdgeError, InvalidInputError
from edge_sdk.formats import to_json
from fleet_server.records import AlertRecord
from fleet_server.store import Store
from fleet_server.store.listing import AlertFilter
from fleet_server.trust.founding import create
from fleet_server.trust.repository import Repository
from fleet_server.trust.roles import ROOT, TARGETS
from fleet_server.views import AlertRow

KIND, SCOPE = "trust", "repository"
log = logging.getLogger("fleet_server")


class Keeper:
    """Renews what is a quarter through its life; `look` every so often is enough."""

    def __init__(self, repository: Repository, store: Store) -> None:
        self._repository, self._store = repository, store

    def look(self, now: float) -> bool:
        """Renew, and open or close the alert; returns whether anything changed."""
        trouble, renewed = "", []
        try:
            renewed = self._repository.renew(now)
        except (EdgeError, OSError) as error:
            trouble = f"the metadata can't be renewed: {error}"
        try:
            aged = [s.problem for s in self._repository.standing(now) if s.problem]
        except (EdgeError, OSError) as error:
            aged = [str(error)]
        problem = "; ".join(dict.fromkeys(filter(None, [trouble, *aged])))
        changed = self._alert(problem, now)
        return changed or bool(renewed)

    def _alert(self, problem: str, now: float) -> bool:
        known = self._store.open_alerts(AlertFilter(kind=KIND))
        if not problem:
            for alert in known:
                self._close(alert, now)
            return bool(known)
        opened = known[0].opened_at if known else now
        row = AlertRow(
            id=known[0].id if known else _alert_id(now),
            state=known[0].state if known else "open",
            severity="critical",
            kind=KIND,
            scope=SCOPE,
            title="Devices may soon take no update: the signed metadata is not kept fresh",
            detail=problem,
            opened_at=opened,
            devices=len(self._store.devices()),
        )
        document = to_json(row)
        if known and known[0].document == document:
            return False
        alert = AlertRecord(
            id=row.id,
            state=row.state,
            scope=SCOPE,
            kind=KIND,
            document=document,
            opened_at=opened,
            updated_at=now,
        )
        if known:
            self._store.save_alert(alert)
        else:
            self._store.decide_alert(alert, KIND, "alert opened")
            log.error("trust: %s", problem)
            self._store.add_event(now, "trust", "alert opened", problem[:300])
        return True

    def _close(self, alert: AlertRecord, now: float) -> None:
        closed = msgspec.structs.replace(alert, state="closed", updated_at=now, closed_at=now)
        self._store.decide_alert(closed, KIND, "alert closed")
        self._store.add_event(now, "trust", "alert closed", alert.scope)


def open_repository(repository: Repository, pinned: str, now: float) -> str:
    """The digest of its first root; at the first start it is made, with every key beside.

    Raises:
        InvalidInputError: it is not the one whose root enrolled devices pin.
    """
    folder, keys = repository.folder, repository.keys.folder
    if not folder.exists():
        if pinned:
            raise InvalidInputError(
                f"{folder.path} holds no repository, and enrolled devices believe no other: "
                "restore it from a backup, or start a new fleet in an empty data folder"
            )
        create(folder.path, keys, profiles=[], root_keys=1, threshold=1, now=now)
        log.warning(
            "trust: made a repository whose root and targets keys lie in %s: move %s.pem and "
            "%s.pem to a machine that is offline, or make it with 'edge trust init' beforehand",
            keys,
            ROOT,
            TARGETS,
        )
    folder.make()
    if pinned and folder.root_digest() != pinned:
        raise InvalidInputError(
            f"{folder.path} begins with another root than enrolled devices believe: "
            "restore it from a backup"
        )
    return folder.root_digest()


def _alert_id(now: float) -> str:
    return "a" + hashlib.sha256(f"{KIND}/{now}".encode()).hexdigest()[:6]
