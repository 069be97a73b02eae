"""A version's story: its bundles by profile, where it comes from, and what its aliases meant when.

`champion` and `challenger` are moved by rollouts; any other alias is for people.
"""

import re

import msgspec

from edge_sdk.errors import InvalidInputError
from fleet_server.records import BundleRecord
from fleet_server.rollout.state import UNDONE, Decision, Rollout
from fleet_server.store import Store
from fleet_server.views import AliasRow, Artefact, VersionStory

CHAMPION, CHALLENGER = "champion", "challenger"
LINE = 200  # entries of a history that are shown
_NAME = re.compile(r"[a-z][a-z0-9-]{0,39}")


def version_story(store: Store, model: str, version: str) -> VersionStory | None:
    """None if no bundle of it is published."""
    bundles = [b for b in store.bundles(model) if b.version == version]
    if not bundles:
        return None
    digests = {b.digest for b in bundles}
    return VersionStory(
        model=model,
        version=version,
        aliases=tuple(a for (_, a), v in store.aliases(model).items() if v == version),
        history=_history(store, model, version),
        artefacts=tuple(_artefact(b) for b in bundles),
        running=sum(seat.running_digest in digests for seat in store.seats()),
    )


def set_alias(store: Store, wanted: AliasRow) -> AliasRow:
    """Let an alias mean a version from now on.

    Raises:
        InvalidInputError: a name that is none or that rollouts keep, or an unknown version.
    """
    if not _NAME.fullmatch(wanted.alias):
        raise InvalidInputError(
            f"alias {wanted.alias[:40]!r} must be 1 to 40 lower-case letters, digits or dashes"
        )
    if wanted.alias in (CHAMPION, CHALLENGER):
        raise InvalidInputError(f"{wanted.alias} is moved by rollouts alone")
    with store.transaction():
        versions = {b.version for b in store.bundles(wanted.model)}
        if wanted.version and wanted.version not in versions:
            raise InvalidInputError(
                f"no bundle of {wanted.model[:64]} {wanted.version[:64]} is published"
            )
        store.set_alias(wanted)
    return wanted


def follow(store: Store, rollout: Rollout, decision: Decision) -> None:
    """Move the aliases that rollouts keep, as one begins or ends."""
    now = store.aliases(rollout.model)
    challenger = now.get((rollout.model, CHALLENGER), "")
    if decision.action == "start" and challenger != rollout.version:
        _move(store, rollout, decision, CHALLENGER, rollout.version)
    if rollout.status == "promoted" and now.get((rollout.model, CHAMPION)) != rollout.version:
        _move(store, rollout, decision, CHAMPION, rollout.version)
    ended = rollout.status in ("promoted", *UNDONE)
    if ended and challenger == rollout.version:
        _move(store, rollout, decision, CHALLENGER, "")
    if rollout.status == "rolled back" and now.get((rollout.model, CHAMPION)) == rollout.version:
        _move(store, rollout, decision, CHAMPION, _before(store, rollout))


def _before(store: Store, rollout: Rollout) -> str:
    """The champion before this version; "" if there was none."""
    told = [a.version for a in store.alias_history(rollout.model) if a.alias == CHAMPION]
    return next((v for v in reversed(told) if v and v != rollout.version), "")


def _move(store: Store, rollout: Rollout, decision: Decision, alias: str, version: str) -> None:
    store.set_alias(
        AliasRow(
            model=rollout.model,
            alias=alias,
            version=version,
            by=f"rollout {rollout.id}",
            reason=f"{decision.action}: {decision.reason}",
            at=decision.at,
        )
    )


def _history(store: Store, model: str, version: str) -> tuple[AliasRow, ...]:
    meant: dict[str, str] = {}
    found = []
    for one in store.alias_history(model):
        if version in (one.version, meant.get(one.alias)):
            found.append(one)
        meant[one.alias] = one.version
    return tuple(found[-LINE:])


def _artefact(bundle: BundleRecord) -> Artefact:
    return Artefact(
        profile=bundle.profile,
        digest=bundle.digest,
        length=bundle.length,
        recipe=bundle.manifest.recipe.name,
        accuracy=bundle.manifest.metrics.accuracy,
        drop=bundle.manifest.metrics.drop,
        published_at=bundle.published_at,
        lineage=msgspec.to_builtins(bundle.manifest.lineage),
    )
