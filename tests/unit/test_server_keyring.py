"""The server's keys: made once, kept to themselves, and never replaced behind devices' backs."""

import stat

import pytest

from edge_sdk.errors import InvalidInputError
from edge_sdk.identity import fingerprint
from edge_sdk.signing import SigningKey
from fleet_server.data_dir import read_admin_token
from fleet_server.keyring import open_keyring

ONE, OTHER = (SigningKey.generate().public for _ in range(2))


def opened(tmp_path, *publishers):
    return open_keyring(tmp_path / "keys", publishers, tmp_path / "signing.pub")


def test_a_second_start_finds_the_same_keys_and_the_same_trust_document(tmp_path):
    first = opened(tmp_path, ONE)
    second = opened(tmp_path)
    assert second.trust_document == first.trust_document
    assert (second.exchange, second.admin_token) == (first.exchange, first.admin_token)
    assert second.director.public.hex == first.director.public.hex == first.trust.director
    assert not first.renewed
    assert not second.renewed
    assert read_admin_token(tmp_path) == first.admin_token


def test_the_order_of_publishers_does_not_matter(tmp_path):
    first = opened(tmp_path, ONE, OTHER)
    assert not opened(tmp_path, OTHER, ONE, OTHER).renewed
    assert first.trust.publishers == tuple(sorted([ONE.hex, OTHER.hex]))


def test_other_publishers_give_another_document_and_say_so(tmp_path):
    first = opened(tmp_path, ONE)
    second = opened(tmp_path, OTHER)
    assert second.renewed
    assert fingerprint(second.trust_document) != fingerprint(first.trust_document)
    assert not opened(tmp_path).renewed


def test_without_a_publisher_the_users_own_key_is_trusted(tmp_path):
    (tmp_path / "signing.pub").write_bytes(ONE.pem())
    assert opened(tmp_path).trust.publishers == (ONE.hex,)


def test_with_nobody_to_trust_it_says_what_to_do_and_makes_nothing(tmp_path):
    with pytest.raises(InvalidInputError, match=r"no .*signing.pub; make a key .*--publisher"):
        opened(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_nobody_else_can_read_the_secrets(tmp_path):
    opened(tmp_path, ONE)
    folder = tmp_path / "keys"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for name in ("admin.token", "director.pem", "exchange.key"):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600
    folder.chmod(0o755)
    with pytest.raises(InvalidInputError, match="chmod 700"):
        opened(tmp_path)


@pytest.mark.parametrize("name", ["director.pem", "exchange.key"])
def test_a_key_that_devices_believe_is_not_silently_replaced(tmp_path, name):
    opened(tmp_path, ONE)
    (tmp_path / "keys" / name).unlink()
    with pytest.raises(InvalidInputError, match="restore it from a backup"):
        opened(tmp_path)
    assert not (tmp_path / "keys" / name).exists()


def test_a_keyring_does_not_show_its_secrets(tmp_path):
    keyring = opened(tmp_path, ONE)
    assert keyring.admin_token not in repr(keyring)
