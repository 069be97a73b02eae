"""A bucket of S3, or of a store that speaks like it; the one import of obstore.

Keys, region and endpoint come from the environment by the names that AWS gave them
(AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION, AWS_ENDPOINT_URL, ...), or from the machine's
role, and nowhere else.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

from edge_sdk.errors import EdgeError, InvalidInputError

FORM = "s3://BUCKET[/PREFIX]"
_URL = re.compile(r"s3://[A-Za-z0-9][A-Za-z0-9._-]+(/[^?#@]*)?")
TRIES = 3


class Bucket:
    """What lies in a bucket below a prefix, by name. Every method raises EdgeError."""

    def __init__(self, url: str) -> None:
        """Asks nothing yet.

        Raises:
            InvalidInputError: no URL of this form, or one with something secret in it.
            EdgeError: obstore is missing.
        """
        if not _URL.fullmatch(url):
            raise InvalidInputError(f"a bucket is given as {FORM}, its keys by AWS_ACCESS_KEY_ID")
        try:
            import obstore
        except ImportError as error:
            raise EdgeError(
                "a bucket needs obstore: pip install 'edge-deployment-sdk[server,s3]'"
            ) from error
        self._obstore, self._url = obstore, url
        plain = os.environ.get("AWS_ENDPOINT_URL", "").startswith("http://")
        with self._told("opened"):
            self._store = obstore.store.S3Store.from_url(
                url,
                client_options={"connect_timeout": "5s", "timeout": "60s", "allow_http": plain},
                retry_config={"max_retries": TRIES},
            )

    def names(self) -> set[str]:
        """All that lie there."""
        with self._told("listed"):
            return {one["path"] for page in self._obstore.list(self._store) for one in page}

    def put(self, name: str, data: bytes) -> None:
        """Keep these bytes; they are safe when it returns."""
        with self._told("written"):
            self._obstore.put(self._store, name, data)

    def get(self, name: str) -> bytes:
        """The bytes under a name."""
        with self._told("read"):
            return bytes(self._obstore.get(self._store, name).bytes())

    @contextmanager
    def _told(self, done: str) -> Iterator[None]:
        try:
            yield
        except (OSError, self._obstore.exceptions.BaseError) as error:
            words = str(error).partition("\n")[0]
            raise EdgeError(
                f"{self._url} can't be {done} ({words}): is it there, reachable, and may this "
                "server's keys do that?"
            ) from error
