"""A new repository: its keys, and the first version of every role."""

from pathlib import Path

from tuf.api.metadata import (  # type: ignore[attr-defined]
    Metadata,
    Root,
    Targets,
)

from edge_sdk.errors import InvalidInputError
from fleet_server.trust import roles
from fleet_server.trust.repository import Repository
from fleet_server.trust.roles import ROOT, SNAPSHOT, TARGETS, TIMESTAMP


def create(
    path: Path, keys: Path, *, profiles: list[str], root_keys: int, threshold: int, now: float
) -> Repository:
    """A new repository with new keys.

    Raises:
        InvalidInputError: there is one already, or the threshold can't be met.
    """
    made = Repository(path, keys)
    if made.folder.exists():
        raise InvalidInputError(f"{path} holds a repository already: 'edge trust status'")
    if not 1 <= threshold <= root_keys:
        raise InvalidInputError(f"a threshold of {threshold} can't be met by {root_keys} root keys")
    made.folder.make()
    with made.folder.changing():
        public = {role: made.keys.make(role) for role in (TARGETS, SNAPSHOT, TIMESTAMP)}
        roots = [made.keys.make(ROOT) for _ in range(root_keys)]
        root = Metadata(roles.first_root(roots, threshold, public, now))
        online = {name: made.keys.make(roles.role_of(name)) for name in profiles}
        targets = Metadata(roles.first_targets(online, now))
        _sign_first(made, root, targets)
        made.folder.write(ROOT, 1, root.to_bytes())
        files = {TARGETS: targets}
        files |= {roles.role_of(name): Metadata(roles.empty_role(now)) for name in profiles}
        _write_first(made, root, files, now)
    return made


def _sign_first(made: Repository, root: Metadata[Root], targets: Metadata[Targets]) -> None:
    for role, metadata in ((ROOT, root), (TARGETS, targets)):
        for signer in made.keys.needed(role, root.signed.roles[role].keyids):
            metadata.sign(signer, append=True)


def _write_first(
    made: Repository, root: Metadata[Root], files: dict[str, Metadata[Targets]], now: float
) -> None:
    """The first snapshot and timestamp; an earlier half-made repository is written over."""
    targets = files[TARGETS]
    for role, metadata in files.items():
        if role != TARGETS:
            for signer in made.keys.needed(role, roles.delegated(targets.signed)[role].keyids):
                metadata.sign(signer)
        made.folder.write(role, 1, metadata.to_bytes())
    meta = roles.snapshot_meta({role: (1, m.to_bytes()) for role, m in files.items()})
    snapshot = Metadata(roles.next_snapshot(None, meta, now))
    snapshot.sign(made.keys.needed(SNAPSHOT, root.signed.roles[SNAPSHOT].keyids)[0])
    made.folder.write(SNAPSHOT, 1, snapshot.to_bytes())
    timestamp = Metadata(roles.next_timestamp(None, 1, snapshot.to_bytes(), now))
    timestamp.sign(made.keys.needed(TIMESTAMP, root.signed.roles[TIMESTAMP].keyids)[0])
    made.folder.write_timestamp(timestamp.to_bytes())
