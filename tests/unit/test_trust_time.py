"""The server's signed time answers one question, once."""

import pytest

from edge_sdk.errors import EdgeError, UntrustedError
from edge_sdk.signed_time import open_time, sign_time
from edge_sdk.signing import SigningKey
from tests.contract import golden_documents as golden

DIRECTOR = SigningKey.generate()


def test_what_was_signed_is_read():
    assert open_time(sign_time("n1", 12.5, DIRECTOR), "n1", DIRECTOR.public) == 12.5


def test_an_old_answer_is_still_read():
    payload = (golden.FOLDER / "time-1.dsse.json").read_bytes()
    assert open_time(payload, "nonce-1", golden.KEY.public) == 1_700_000_000.5


def test_an_answer_to_another_question_is_not_believed():
    with pytest.raises(UntrustedError, match="replayed"):
        open_time(sign_time("n1", 12.5, DIRECTOR), "n2", DIRECTOR.public)


def test_another_signer_is_not_believed():
    with pytest.raises(UntrustedError, match="signature does not hold"):
        open_time(sign_time("n1", 12.5, SigningKey.generate()), "n1", DIRECTOR.public)


@pytest.mark.parametrize("junk", [b"", b"{}", b"\xff", b'{"payload": 1}', b"null"])
def test_junk_is_refused_in_our_words(junk):
    with pytest.raises(EdgeError):
        open_time(junk, "n1", DIRECTOR.public)
