"""What lies on a USB stick between a fleet server and a device that it can't reach.

`orders/DEVICE.json` are signed orders, `bundles/DIGEST.edge` the bundles they name, `metadata/` is
the trust repository's, and `reports/*.json` are sealed messages on their way back. Nothing here is
secret, and nothing is believed for lying here: orders, bundles and metadata are signed, and
messages authenticated by their device.
"""

from pathlib import Path

import msgspec

from edge_sdk.errors import InvalidInputError
from edge_sdk.files import write_atomic
from edge_sdk.formats import from_json, to_json
from edge_sdk.topics import Upward

ORDERS, BUNDLES, METADATA, REPORTS = "orders", "bundles", "metadata", "reports"
MAX_REPORTS = 64 * 1024 * 1024


class Report(msgspec.Struct, frozen=True):
    """One sealed upward message."""

    device: str
    kind: Upward
    payload: bytes


class Reports(msgspec.Struct, frozen=True):
    """A file of them, in the order they were sealed."""

    messages: tuple[Report, ...]
    format: int = 1


def save_reports(path: Path, messages: list[Report]) -> None:
    """Write a report file."""
    write_atomic(path, to_json(Reports(tuple(messages))))


def read_reports(path: Path) -> tuple[Report, ...]:
    """Raises InvalidInputError for a file that is not one."""
    try:
        if path.stat().st_size > MAX_REPORTS:
            raise InvalidInputError(f"{path} is over the limit of {MAX_REPORTS:,} bytes")
        data = path.read_bytes()
    except OSError as error:
        raise InvalidInputError(f"{path} can't be read: {error.strerror}") from error
    return from_json(Reports, data, str(path)).messages
