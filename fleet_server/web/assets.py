"""The page's own files, read once: nothing is ever fetched from another host."""

import hashlib
from collections.abc import Mapping
from importlib import resources

import msgspec

TYPES = {
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}


class Asset(msgspec.Struct, frozen=True):
    """One file; `url` changes with its content, so a browser may keep it for ever."""

    content: bytes
    media_type: str
    url: str


def load_assets() -> Mapping[str, Asset]:
    """Files by name."""
    found: dict[str, Asset] = {}
    for file in resources.files("fleet_server.web").joinpath("static").iterdir():
        kind = TYPES.get(file.name.rpartition(".")[2])
        if kind is not None:
            content = file.read_bytes()
            digest = hashlib.sha256(content).hexdigest()[:12]
            found[file.name] = Asset(content, kind, f"/static/{file.name}?v={digest}")
    return found
