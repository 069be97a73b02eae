"""What people do with the offline keys: change a key, add a signature on another machine."""

from typing import Any

import msgspec
from tuf.api.metadata import Metadata

from edge_sdk.errors import InvalidInputError
from edge_sdk.signing import SigningKey
from fleet_server.trust import roles
from fleet_server.trust.folder import Current
from fleet_server.trust.repository import Repository, roles_copy
from fleet_server.trust.roles import OFFLINE, PREFIX, ROOT, TARGETS, TOP


class Signing(msgspec.Struct, frozen=True):
    """How far a ceremony got: what was published, or whose signatures it waits for."""

    published: tuple[str, ...]
    waiting: dict[str, int]

    def __str__(self) -> str:
        waits = [
            f"{role} waits for {count} signature{'s' if count > 1 else ''}: "
            f"'edge trust sign {role} --key FILE'"
            for role, count in self.waiting.items()
        ]
        return "; ".join([*(f"{role} is published" for role in self.published), *waits])


def rotate(repository: Repository, role: str, now: float, revoke: str = "") -> Signing:
    """Give `role` a new key in place of its old one (`revoke` names which, if it has several).

    Raises:
        InvalidInputError: no such role, an unclear key, or another change still waits.
    """
    with repository.folder.changing():
        current = repository.folder.read()
        if role in TOP:
            _refuse_second(repository, ROOT)
            _rotate_top(repository, current, role, now, revoke)
        elif role.startswith(PREFIX) and role in roles.delegated(current.targets.signed):
            _refuse_second(repository, TARGETS)
            repository.stage_delegation(current, role.removeprefix(PREFIX), now)
        else:
            known = ", ".join([*TOP, *sorted(roles.delegated(current.targets.signed))])
            raise InvalidInputError(f"there is no role {role[:64]!r}: {known}")
        return _outcome(repository, now)


def delegate(repository: Repository, profile: str, now: float) -> Signing:
    """Let the server list bundles for one more profile.

    Raises:
        InvalidInputError: it may already, or another change still waits.
    """
    with repository.folder.changing():
        current = repository.folder.read()
        if roles.role_of(profile) in roles.delegated(current.targets.signed):
            raise InvalidInputError(f"profile {profile} has its role already")
        repository.stage_delegation(current, profile, now)
        return _outcome(repository, now)


def sign(repository: Repository, role: str, key: SigningKey, now: float) -> Signing:
    """Add a signature to the staged version of root or targets; publish it if it was the last.

    Raises:
        InvalidInputError: nothing is staged, or this key has no say.
    """
    if role not in OFFLINE:
        raise InvalidInputError(f"{role[:64]!r} is not signed offline: only root and targets are")
    with repository.folder.changing():
        current, staged = repository.folder.read(), repository.folder.staged(role)
        if staged is None:
            raise InvalidInputError(f"no {role} waits for a signature: 'edge trust status'")
        accepted = set(current.root.signed.get_delegated_role(role).keyids)
        if role == ROOT:
            accepted |= set(staged.signed.get_delegated_role(ROOT).keyids)
        if key.public.keyid not in accepted:
            short = ", ".join(sorted(keyid[:8] for keyid in accepted))
            raise InvalidInputError(
                f"key {key.public.keyid[:8]} has no say about {role}: that have {short}"
            )
        staged.sign(key.signer, append=True)
        repository.folder.stage(role, staged)
        return _outcome(repository, now)


def _rotate_top(
    repository: Repository, current: Current, role: str, now: float, revoke: str
) -> None:
    root = roles_copy(current.root)
    listed = root.roles[role].keyids
    old = [keyid for keyid in listed if keyid.startswith(revoke)]
    if len(old) != 1:
        raise InvalidInputError(
            f"{role} has the keys {', '.join(k[:8] for k in listed)}: "
            "name the one to replace with --revoke"
        )
    threshold = root.roles[role].threshold
    root.add_key(repository.keys.make(role), role)
    root.revoke_key(old[0], role)
    root.roles[role].threshold = threshold
    roles.raise_version(root, ROOT, now)
    repository.stage(current, ROOT, Metadata(root))
    if role == TARGETS:  # clients of the old root and of the new one must both accept it
        _resign_targets(repository, current, now)


def _resign_targets(repository: Repository, current: Current, now: float) -> None:
    targets: Metadata[Any] = Metadata(roles_copy(current.targets))
    roles.raise_version(targets.signed, TARGETS, now)
    repository.stage(current, TARGETS, targets)


def _refuse_second(repository: Repository, role: str) -> None:
    if repository.folder.staged(role) is not None:
        raise InvalidInputError(
            f"a new {role} waits for signatures already: 'edge trust sign {role}' comes first"
        )


def _outcome(repository: Repository, now: float) -> Signing:
    published: list[str] = []
    try:
        published = repository.publish_staged(now)
    except InvalidInputError:  # complete, but the online keys are on another machine
        waiting = {r: 0 for r in OFFLINE if repository.folder.staged(r) is not None}
    else:
        waiting = {s.role: s.missing for s in repository.standing(now) if s.missing is not None}
    return Signing(tuple(published), waiting)
