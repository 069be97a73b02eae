"""What time it is, said by the server to one device that asked: the answer can't be kept for later.

A device whose clock may be wrong sends a random nonce; the director signs it with the time.
"""

import msgspec

from edge_sdk.errors import FormatError, UntrustedError
from edge_sdk.formats import from_json, to_json
from edge_sdk.signing import TIME, PublicKey, Signed, SigningKey, unseal

MAX_NONCE = 64


class SignedTime(msgspec.Struct, frozen=True, kw_only=True):
    """The server's clock in Unix seconds, for whoever made this nonce."""

    format: int = 1
    nonce: str
    now: float


def sign_time(nonce: str, now: float, director: SigningKey) -> bytes:
    """The answer for the wire."""
    return msgspec.json.encode(director.seal(to_json(SignedTime(nonce=nonce, now=now)), TIME))


def open_time(payload: bytes, nonce: str, director: PublicKey) -> float:
    """The time in an answer to `nonce`.

    Raises:
        FormatError: not an envelope or not a time.
        UntrustedError: not signed by the director, or an answer to another question.
    """
    try:
        signed = msgspec.json.decode(payload, type=Signed)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise FormatError(f"the server's time can't be read: {error}") from error
    found = from_json(SignedTime, unseal(signed, TIME, [director]), "the server's time")
    if found.nonce != nonce:
        raise UntrustedError("the server's time answers another question: it was replayed")
    return found.now
