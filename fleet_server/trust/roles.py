"""TUF metadata as values: who signs what, for how long, and what the next version says.

root and targets are meant to be signed offline; targets delegates one role a hardware profile,
whose key is online as those of snapshot and timestamp are. No file and no clock here.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

import msgspec
from securesystemslib.signer import Key  # type: ignore[attr-defined]
from tuf.api.metadata import (  # type: ignore[attr-defined]
    DelegatedRole,
    Delegations,
    MetaFile,
    Root,
    Signed,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

from edge_sdk.bundle import file_name
from edge_sdk.errors import InvalidInputError, RefusedError

ROOT, TARGETS, SNAPSHOT, TIMESTAMP = "root", "targets", "snapshot", "timestamp"
TOP = (ROOT, TARGETS, SNAPSHOT, TIMESTAMP)
OFFLINE = (ROOT, TARGETS)
PREFIX = "profile-"
ISSUED = "x-edge-issued"  # in the timestamp: when it was signed, Unix seconds
DAY = timedelta(days=1)
LIVES = {ROOT: 365 * DAY, TARGETS: 365 * DAY, SNAPSHOT: 7 * DAY, TIMESTAMP: DAY}
PROFILE_LIFE = 90 * DAY
MOST = 10_000  # bundles of one profile: about 2 MB, and devices read no list above 5 MB
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """A bundle as the repository lists it."""

    name: str
    version: str
    profile: str
    digest: str
    length: int

    @property
    def path(self) -> str:
        return target_path(self.name, self.version, self.profile)

    @property
    def stored_path(self) -> str:
        """Where its bytes lie below `targets/`: no two contents share a name."""
        folder, _, name = self.path.rpartition("/")
        return f"{folder}/{self.digest}.{name}"


def target_path(name: str, version: str, profile: str) -> str:
    """The name that devices ask for: `PROFILE/NAME-VERSION-PROFILE.edge`."""
    return f"{profile}/{file_name(name, version, profile)}"


def role_of(profile: str) -> str:
    """The role that may list bundles for this profile; never the name of a top-level role.

    Raises:
        InvalidInputError: a name that a path pattern or a file name would read otherwise.
    """
    if not _NAME.fullmatch(profile):
        raise InvalidInputError(
            f"profile {profile[:64]!r} can't have a role of its own: use letters, digits, '.', "
            "'_', '+' and '-'"
        )
    return PREFIX + profile


def life(role: str) -> timedelta:
    """How long a version of this role's metadata is believed."""
    return LIVES.get(role, PROFILE_LIFE)


def at(now: float) -> datetime:
    """TUF counts in whole seconds, UTC."""
    return datetime.fromtimestamp(int(now), UTC)


def first_root(
    root_keys: Sequence[Key], threshold: int, others: Mapping[str, Key], now: float
) -> Root:
    """Root version 1; `others` has the key of targets, snapshot and timestamp.

    Raises:
        InvalidInputError: a threshold that these keys can't reach.
    """
    if not 1 <= threshold <= len(root_keys):
        raise InvalidInputError(
            f"a threshold of {threshold} can't be met by {len(root_keys)} root keys"
        )
    root = Root(expires=at(now) + life(ROOT))
    for key in root_keys:
        root.add_key(key, ROOT)
    root.roles[ROOT].threshold = threshold
    for role in (TARGETS, SNAPSHOT, TIMESTAMP):
        root.add_key(others[role], role)
    return root


def first_targets(keys: Mapping[str, Key], now: float) -> Targets:
    """The offline targets role with one delegation a profile; it lists nothing itself."""
    targets = Targets(expires=at(now) + life(TARGETS), delegations=Delegations({}, {}))
    for profile, key in keys.items():
        delegate(targets, profile, key)
    return targets


def empty_role(now: float) -> Targets:
    """A profile's role that lists nothing yet."""
    return Targets(expires=at(now) + PROFILE_LIFE)


def delegate(targets: Targets, profile: str, key: Key) -> None:
    """Let `key` sign for `PROFILE/*` and nothing else; any key it had before is revoked."""
    role = role_of(profile)
    delegations = targets.delegations or Delegations({}, {})
    targets.delegations = delegations
    known = delegations.roles if delegations.roles is not None else {}
    if role in known:
        for old in list(known[role].keyids):
            targets.revoke_key(old, role)
    known[role] = DelegatedRole(role, [], 1, terminating=True, paths=[f"{profile}/*"])
    delegations.roles = known
    targets.add_key(key, role)


def delegated(targets: Targets) -> dict[str, DelegatedRole]:
    """Role name to delegation."""
    return dict((targets.delegations.roles if targets.delegations else None) or {})


def check_allowed(targets: Targets, target: Target) -> str:
    """The role that may list this target.

    Raises:
        InvalidInputError: a name or version that could be read as another path.
        RefusedError: nothing is delegated for it.
    """
    role = role_of(target.profile)
    for what, text in (("name", target.name), ("version", target.version)):
        if not _NAME.fullmatch(text):
            raise InvalidInputError(
                f"the bundle's {what} {text[:64]!r} can't be listed: use letters, digits, '.', "
                "'_', '+' and '-'"
            )
    found = delegated(targets).get(role)
    if found is None or not found.is_delegated_path(target.path):
        raise RefusedError(
            f"nobody may list bundles for profile {target.profile}: delegate it with "
            f"'edge trust delegate {target.profile}' and the offline targets key"
        )
    return role


def listed(role: Targets, target: Target) -> bool:
    """Whether these very bytes are listed under this name."""
    known = role.targets.get(target.path)
    return known is not None and known.hashes == {"sha256": target.digest}


def enlist(role: Targets, target: Target) -> None:
    """List the target; raises RefusedError if the list is full."""
    if target.path not in role.targets and len(role.targets) >= MOST:
        raise RefusedError(
            f"{MOST:,} bundles are listed for profile {target.profile}, no more fit: take old "
            "versions off it with 'edge trust withdraw MODEL VERSION'"
        )
    role.targets[target.path] = TargetFile(target.length, {"sha256": target.digest}, target.path)


def raise_version(signed: Signed, role: str, now: float) -> None:
    """The next version, good for a whole life from now."""
    signed.version += 1
    signed.expires = at(now) + life(role)


def leap(signed: Signed, now: float) -> None:
    """Let the next version be the time in seconds; no role ever had so many versions."""
    signed.version = max(signed.version, int(now) - 1)


def snapshot_meta(files: Mapping[str, tuple[int, bytes]]) -> dict[str, MetaFile]:
    """`NAME.json` to version, length and hash of what is published under that name."""
    return {
        f"{role}.json": MetaFile.from_data(version, data, ["sha256"])
        for role, (version, data) in files.items()
    }


def next_snapshot(old: Snapshot | None, meta: dict[str, MetaFile], now: float) -> Snapshot:
    """A snapshot of these files; first or one above `old`."""
    version = old.version + 1 if old else 1
    return Snapshot(version=version, expires=at(now) + life(SNAPSHOT), meta=meta)


def next_timestamp(
    old: Timestamp | None, snapshot_version: int, snapshot: bytes, now: float
) -> Timestamp:
    """The timestamp that makes this snapshot the current one; it bears when it was signed."""
    return Timestamp(
        version=old.version + 1 if old else 1,
        expires=at(now) + life(TIMESTAMP),
        snapshot_meta=MetaFile.from_data(snapshot_version, snapshot, ["sha256"]),
        unrecognized_fields={ISSUED: int(now)},
    )


def used_of_life(signed: Signed, role: str, now: float) -> float:
    """How much of its life is over: 0 just signed, 1 expired."""
    return 1 - (signed.expires - at(now)) / life(role)
