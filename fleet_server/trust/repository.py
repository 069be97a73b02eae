"""The repository as the server uses it: list a bundle, withdraw one, keep the metadata fresh.

Each change is one commit: the changed roles, a snapshot of all, then the timestamp. While a root or
targets with other keys waits for signatures, roles are signed by both the old key and the new, so
that the moment of publishing it breaks no client.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from tuf.api.metadata import (  # type: ignore[attr-defined]
    Metadata,
    Root,
    Targets,
)

from edge_sdk.errors import RefusedError
from fleet_server.trust import roles
from fleet_server.trust.folder import Current, RepositoryFolder
from fleet_server.trust.keys import KeyFolder
from fleet_server.trust.roles import OFFLINE, ROOT, SNAPSHOT, TARGETS, TIMESTAMP, Target

RENEW_AT = 0.25  # of a life; half of it is the limit that people are told about
ALARM_AT = 0.5
OFFLINE_ALARM_AT = 11 / 12  # about a month before a yearly signature ends


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """One role as `edge trust status` shows it; `used` is 0 just signed, 1 expired."""

    role: str
    version: int
    expires: float
    used: float
    threshold: int
    keys: tuple[str, ...]
    targets: int = 0
    missing: int | None = None

    @property
    def problem(self) -> str:
        """What is wrong with its age, in words; empty if nothing is."""
        limit = {TIMESTAMP: ALARM_AT, SNAPSHOT: ALARM_AT + RENEW_AT}.get(
            self.role, OFFLINE_ALARM_AT
        )
        if self.used >= 1:
            return f"{self.role} has expired"
        if self.used > limit:
            return f"{self.role} is past {limit:.0%} of its life and was not renewed"
        return ""


class Repository:
    """A TUF repository and the keys on this machine; raises InvalidInputError if a key is not."""

    def __init__(self, path: Path, keys: Path) -> None:
        self.folder, self.keys = RepositoryFolder(path), KeyFolder(keys)
        self._lists: tuple[tuple[int, int], set[tuple[str, str]]] = ((0, 0), set())

    @property
    def root_digest(self) -> str:
        return self.folder.root_digest()

    def allows(self, target: Target) -> None:
        """Raises RefusedError or InvalidInputError if `publish` would."""
        current = self.folder.read()
        if not self._may_delegate(current, target.profile):
            roles.check_allowed(current.targets.signed, target)

    def publish(self, target: Target, source: Path | None, now: float) -> None:
        """List a bundle for its profile; again changes nothing.

        `source` is its file; None if its bytes are served from elsewhere.

        Raises:
            RefusedError: no role may list it, or the key that may delegate is not here.
        """
        with self.folder.changing():
            current = self.folder.read()
            if self._may_delegate(current, target.profile):
                self.stage_delegation(current, target.profile, now)
                self.publish_staged(now)
                current = self.folder.read()
            role = roles.check_allowed(current.targets.signed, target)
            if source:
                self.folder.store_target(target, source)
            metadata = current.profiles[role]
            if roles.listed(metadata.signed, target):
                return
            roles.enlist(metadata.signed, target)
            roles.raise_version(metadata.signed, role, now)
            self.commit(current, {role: metadata}, now)

    def lists(self, target: Target) -> bool:
        """Whether clients are told of these very bytes; read when something was published since."""
        stamp = self.folder.stamp()
        if self._lists[0] != stamp:
            profiles = self.folder.read().profiles.values()
            listed = {
                (path, file.hashes["sha256"])
                for metadata in profiles
                for path, file in metadata.signed.targets.items()
            }
            self._lists = stamp, listed
        return (target.path, target.digest) in self._lists[1]

    def withdraw(self, name: str, version: str, now: float) -> list[str]:
        """Take a version of a model out of every profile's list; the paths that were there."""
        with self.folder.changing():
            current = self.folder.read()
            gone, changed = [], {}
            for role, metadata in current.profiles.items():
                path = roles.target_path(name, version, role.removeprefix(roles.PREFIX))
                if metadata.signed.targets.pop(path, None) is not None:
                    roles.raise_version(metadata.signed, role, now)
                    changed[role] = metadata
                    gone.append(path)
            if changed:
                self.commit(current, changed, now)
            for path in gone:
                self.folder.drop_target(path)
        return gone

    def supersede(self, now: float) -> None:
        """Sign anew all that the keys here may, above every number that was ever given out.

        For a copy from the past: clients take nothing older than what they saw.
        """
        with self.folder.changing():
            current = self.folder.read()
            roles.leap(current.snapshot.signed, now)
            roles.leap(current.timestamp.signed, now)
            for role, metadata in current.profiles.items():
                roles.leap(metadata.signed, now)
                roles.raise_version(metadata.signed, role, now)
            self.commit(current, current.profiles, now)
            if self._may_sign_targets(current):
                targets = Metadata(roles_copy(current.targets))
                roles.leap(targets.signed, now)
                roles.raise_version(targets.signed, TARGETS, now)
                self.stage(current, TARGETS, targets)
                self.publish_staged(now)

    def renew(self, now: float) -> list[str]:
        """Sign anew what is a quarter through its life, publish what is staged and complete."""
        with self.folder.changing():
            done = self.publish_staged(now)
            current = self.folder.read()
            changed = {
                role: metadata
                for role, metadata in current.profiles.items()
                if roles.used_of_life(metadata.signed, role, now) >= RENEW_AT
            }
            for role, metadata in changed.items():
                roles.raise_version(metadata.signed, role, now)
            aged = [
                role
                for role, metadata in ((SNAPSHOT, current.snapshot), (TIMESTAMP, current.timestamp))
                if roles.used_of_life(metadata.signed, role, now) >= RENEW_AT
            ]
            if changed or SNAPSHOT in aged:
                self.commit(current, changed, now)
                return [*done, *changed, SNAPSHOT, TIMESTAMP]
            if aged:
                self._commit_timestamp(
                    current, current.snapshot.signed.version, self._snapshot_bytes(current), now
                )
            return [*done, *aged]

    def standing(self, now: float) -> list[Standing]:
        """Every role, and what is staged."""
        current = self.folder.read()
        top: dict[str, Metadata[Any]] = {
            ROOT: current.root,
            TARGETS: current.targets,
            SNAPSHOT: current.snapshot,
            TIMESTAMP: current.timestamp,
        }
        found = []
        for role, metadata in (top | current.profiles).items():
            delegator = current.root.signed if role in top else current.targets.signed
            signers = delegator.get_delegated_role(role)
            found.append(
                Standing(
                    role=role,
                    version=metadata.signed.version,
                    expires=metadata.signed.expires.timestamp(),
                    used=roles.used_of_life(metadata.signed, role, now),
                    threshold=signers.threshold,
                    keys=tuple(sorted(signers.keyids)),
                    targets=len(metadata.signed.targets) if role in current.profiles else 0,
                    missing=self._missing(current, role) if role in OFFLINE else None,
                )
            )
        return found

    # --- what ceremonies use too; the caller holds `folder.changing()` -------------------------

    def commit(
        self, current: Current, changed: Mapping[str, Metadata[Targets]], now: float
    ) -> None:
        """Publish changed roles (their version already raised), a snapshot and a timestamp."""
        files = dict(current.files)
        for role, metadata in changed.items():
            if role == TARGETS:
                current.targets = metadata
            else:
                self._sign(current, role, metadata)
            files[role] = (metadata.signed.version, metadata.to_bytes())
            self.folder.write(role, *files[role])
        meta = roles.snapshot_meta(files)
        snapshot = Metadata(roles.next_snapshot(current.snapshot.signed, meta, now))
        self._sign(current, SNAPSHOT, snapshot)
        data = snapshot.to_bytes()
        self.folder.write(SNAPSHOT, snapshot.signed.version, data)
        self._commit_timestamp(current, snapshot.signed.version, data, now)
        self.folder.prune()

    def stage_delegation(self, current: Current, profile: str, now: float) -> None:
        """Stage a targets in which the profile's role has a new key."""
        targets = Metadata(roles_copy(self.folder.staged(TARGETS) or current.targets))
        if targets.signed.version == current.targets.signed.version:
            roles.raise_version(targets.signed, TARGETS, now)
        roles.delegate(targets.signed, profile, self.keys.make(roles.role_of(profile)))
        self.stage(current, TARGETS, targets)

    def stage(self, current: Current, role: str, metadata: Metadata[Any]) -> None:
        """Sign with every key here that counts, and keep it until the others have signed."""
        keyids = set(current.root.signed.get_delegated_role(role).keyids)
        root = metadata if role == ROOT else self.folder.staged(ROOT)
        if root is not None:
            keyids |= set(root.signed.get_delegated_role(role).keyids)
        for signer in self.keys.signers(role, keyids):
            metadata.sign(signer, append=True)
        self.folder.stage(role, metadata)

    def publish_staged(self, now: float) -> list[str]:
        """Publish what is staged and has all its signatures; which roles that was."""
        done = []
        current = self.folder.read()
        targets = self.folder.staged(TARGETS)
        if targets is not None and not self._missing(current, TARGETS):
            changed = {TARGETS: targets, **self._resigned(current, targets.signed, now)}
            self.commit(current, changed, now)
            self.folder.unstage(TARGETS)
            done.append(TARGETS)
        root = self.folder.staged(ROOT)
        if root is not None and not self._missing(current, ROOT):
            current = self.folder.read()
            self.commit(current, {}, now)  # signed by old keys and new: clients of both are served
            self._check_served(root.signed)
            self.folder.write(ROOT, root.signed.version, root.to_bytes())
            self.folder.unstage(ROOT)
            self.commit(self.folder.read(), {}, now)
            done.append(ROOT)
        return done

    def _missing(self, current: Current, role: str) -> int | None:
        """How many signatures the staged version lacks; None if nothing is staged."""
        staged = self.folder.staged(role)
        if staged is None:
            return None
        payload, signatures = staged.signed_bytes, staged.signatures
        if role == TARGETS:
            signed = current.root.signed.get_verification_result(TARGETS, payload, signatures)
            return int(signed.missing)
        both = staged.signed.get_root_verification_result(current.root.signed, payload, signatures)
        return max(int(both.first.missing), int(both.second.missing))

    def _resigned(
        self, current: Current, targets: Targets, now: float
    ) -> dict[str, Metadata[Targets]]:
        """The profile roles whose key is another in the new targets, and those that are new."""
        known = roles.delegated(current.targets.signed)
        changed = {}
        for role, delegation in roles.delegated(targets).items():
            metadata = current.profiles.get(role)
            if metadata is None:
                changed[role] = Metadata(roles.empty_role(now))
            elif role not in known or known[role].keyids != delegation.keyids:
                roles.raise_version(metadata.signed, role, now)
                changed[role] = metadata
        return changed

    def _check_served(self, root: Root) -> None:
        """Whether what is published now can be verified under the root that is to come."""
        current = self.folder.read()
        for role in (TARGETS, SNAPSHOT, TIMESTAMP):
            metadata: Metadata[Any] = getattr(current, role)
            result = root.get_verification_result(role, metadata.signed_bytes, metadata.signatures)
            if not result.verified:
                raise RefusedError(
                    f"root version {root.version} names another {role} key, which has not signed "
                    f"{role} yet: 'edge trust rotate {role}' on the machine that holds both keys"
                )

    def _may_delegate(self, current: Current, profile: str) -> bool:
        """Whether a profile is new here and this machine holds the offline key to admit it."""
        if roles.role_of(profile) in roles.delegated(current.targets.signed):
            return False
        return self._may_sign_targets(current)

    def _may_sign_targets(self, current: Current) -> bool:
        accepted = current.root.signed.get_delegated_role(TARGETS)
        return len(self.keys.signers(TARGETS, accepted.keyids)) >= accepted.threshold

    def _commit_timestamp(self, current: Current, version: int, data: bytes, now: float) -> None:
        timestamp = Metadata(roles.next_timestamp(current.timestamp.signed, version, data, now))
        self._sign(current, TIMESTAMP, timestamp)
        self.folder.write_timestamp(timestamp.to_bytes())

    def _snapshot_bytes(self, current: Current) -> bytes:
        name = f"{current.snapshot.signed.version}.{SNAPSHOT}.json"
        return (self.folder.metadata / name).read_bytes()

    def _sign(self, current: Current, role: str, metadata: Metadata[Any]) -> None:
        """By the key that counts now and, if another is staged, by that one too."""
        above = TARGETS if role.startswith(roles.PREFIX) else ROOT
        delegators = [(current.targets if above == TARGETS else current.root).signed]
        staged = self.folder.staged(above)
        if staged is not None:
            delegators.append(staged.signed)
        keyids: set[str] = set()
        for delegator in delegators:
            try:
                keyids |= set(delegator.get_delegated_role(role).keyids)
            except ValueError:
                continue  # this one has no such role yet, or no more
        metadata.signatures.clear()
        for signer in self.keys.needed(role, keyids):
            metadata.sign(signer, append=True)


def roles_copy(metadata: Metadata[Any]) -> Any:  # noqa: ANN401 - whatever the metadata holds
    """The signed part, to be changed without touching the published one."""
    return Metadata.from_bytes(metadata.to_bytes()).signed
