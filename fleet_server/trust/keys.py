"""The keys of a repository's roles: PEM files, `ROLE.pem`, `ROLE.2.pem` and so on, in one folder.

Which of them count is not said by their names: metadata lists the ids of the keys it accepts.
"""

from collections.abc import Iterable
from pathlib import Path

from securesystemslib.signer import CryptoSigner, Key  # type: ignore[attr-defined]

from edge_sdk.errors import InvalidInputError
from edge_sdk.signing import SigningKey


class KeyFolder:
    """Where the keys are that this machine may sign with; some may be elsewhere, offline."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def make(self, role: str) -> Key:
        """A new key for the role, beside those it has; its public half."""
        number, path = 1, self.folder / f"{role}.pem"
        while path.exists():
            number += 1
            path = self.folder / f"{role}.{number}.pem"
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        key = SigningKey.generate()
        key.save(path)
        return key.public.sslib

    def signers(self, role: str, keyids: Iterable[str]) -> list[CryptoSigner]:
        """Those of the role's keys here that are among `keyids`.

        Raises:
            InvalidInputError: a key file that others can read, or that is no key.
        """
        wanted = set(keyids)
        paths = [self.folder / f"{role}.pem", *sorted(self.folder.glob(f"{role}.*.pem"))]
        found = [SigningKey.load(path) for path in paths if path.exists()]
        return [key.signer for key in found if key.public.keyid in wanted]

    def needed(self, role: str, keyids: Iterable[str]) -> list[CryptoSigner]:
        """As `signers`, but there must be one; raises InvalidInputError."""
        ids = list(keyids)
        found = self.signers(role, ids)
        if not found:
            short = ", ".join(sorted(keyid[:8] for keyid in ids)) or "none"
            raise InvalidInputError(
                f"{self.folder} holds no key that may sign {role} (it takes {short}): "
                "give the folder that does with --keys"
            )
        return found
