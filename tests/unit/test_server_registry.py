"""Bundles are taken from trusted publishers, whole, and once for good."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_sdk.bundle import unpack
from edge_sdk.errors import CorruptBundleError, EdgeError, InvalidInputError, RefusedError
from edge_sdk.errors import UntrustedError as Untrusted
from edge_sdk.files import sha256
from edge_sdk.signing import SigningKey
from tests.bundles import make_bundle
from tests.server_side import NOW, backend


@pytest.fixture
def back(tmp_path, database):
    with backend(tmp_path, database) as made:
        yield made


def nothing_more_than_the_first(back, tmp_path):
    files = [path.name for path in (tmp_path / "bundles").iterdir()]
    return len(back.store.bundles()) == 1 and files == [f"{back.bundle.digest}.edge"]


def test_a_published_bundle_lies_under_its_digest_with_its_documents(back):
    data = make_bundle(back.publisher, version="2")
    record = back.registry.publish(data, NOW + 1)
    assert record.digest == sha256(data)
    assert back.registry.path(record.digest).read_bytes() == data
    found = back.store.bundle(record.digest)
    assert found == record
    assert found.manifest.version == "2"
    assert found.edges_id == found.baseline.edges_id
    assert [b.version for b in back.store.bundles("digits")] == ["1", "2"]


def test_the_same_bytes_again_change_nothing(back, tmp_path):
    record = back.registry.publish(make_bundle(back.publisher), NOW + 99)
    assert record.published_at == NOW
    assert nothing_more_than_the_first(back, tmp_path)


def test_a_bundle_file_that_was_lost_comes_back_by_publishing_again(back):
    path = back.registry.path(back.bundle.digest)
    path.unlink()
    back.registry.publish(make_bundle(back.publisher), NOW)
    assert path.exists()


def test_other_bytes_under_the_same_version_are_refused(back, tmp_path):
    with pytest.raises(RefusedError, match=r"published with other bytes.*new number"):
        back.registry.publish(make_bundle(back.publisher, model=b"another"), NOW)
    assert nothing_more_than_the_first(back, tmp_path)


def test_a_stranger_publishes_nothing(back, tmp_path):
    with pytest.raises(Untrusted):
        back.registry.publish(make_bundle(SigningKey.generate(), version="2"), NOW)
    assert nothing_more_than_the_first(back, tmp_path)


@pytest.mark.parametrize("name", ["a/b", "", "x" * 65, "bell\x07"])
def test_names_that_can_not_be_shown_or_put_in_a_path_are_refused(back, tmp_path, name):
    with pytest.raises(InvalidInputError, match="printable"):
        back.registry.publish(make_bundle(back.publisher, name=name), NOW)
    assert nothing_more_than_the_first(back, tmp_path)


def test_a_bundle_that_is_cut_is_refused(back, tmp_path):
    data = make_bundle(back.publisher, version="2")
    for length in (0, 10, len(data) // 2, len(data) - 1):
        with pytest.raises(CorruptBundleError):
            back.registry.publish(data[:length], NOW)
    assert nothing_more_than_the_first(back, tmp_path)


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(where=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
def test_a_changed_byte_is_refused_in_our_words_or_changes_no_content(back, where, flip):
    whole = make_bundle(back.publisher, version="2")
    data = bytearray(whole)
    data[int(where * len(data))] ^= flip
    try:
        record = back.registry.publish(bytes(data), NOW)
    except EdgeError:
        return
    assert record.manifest == unpack(whole, [back.publisher.public]).manifest


def test_a_damaged_offset_in_the_archive_is_refused_in_our_words(back, tmp_path):
    data = bytearray(make_bundle(back.publisher, version="2"))
    end = data.rindex(b"PK\x05\x06")  # where the archive says how long its directory is
    data[end + 12 : end + 16] = b"\xff\xff\xff\x7f"
    with pytest.raises(CorruptBundleError):
        back.registry.publish(bytes(data), NOW)
    assert nothing_more_than_the_first(back, tmp_path)
