"""The contracts hold: bytes of version 1 stay, go round, and anything else is refused in words."""

import io
import zipfile

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edge_sdk import bundle, formats, identity, messages, sketch, topics
from edge_sdk.cli import main
from edge_sdk.errors import (
    CorruptBundleError,
    EdgeError,
    FormatError,
    InvalidInputError,
    UnsupportedVersionError,
    UntrustedError,
)
from edge_sdk.signing import SigningKey
from tests.contract import golden_documents as golden

OTHER = SigningKey.generate()


# A bundle's compressed bytes depend on the zlib that Python was built with; it is read below.
@pytest.mark.parametrize("name", sorted(set(golden.documents()) - {"bundle-1.edge"}))
def test_the_bytes_of_version_1_never_change(name):
    assert golden.documents()[name] == (golden.FOLDER / name).read_bytes()


@pytest.mark.parametrize(
    ("kind", "body", "file"),
    [
        ("telemetry", golden.WINDOW, "telemetry-1.msgpack"),
        ("report", golden.REPORT, "report-1.msgpack"),
        ("event", golden.EVENT, "event-1.msgpack"),
        ("telemetry", golden.COMPARED_WINDOW, "telemetry-1-compared.msgpack"),
        ("sample", golden.SAMPLE, "sample-1.msgpack"),
        ("link", messages.Connection(number=2, up=False), "link-1.msgpack"),
    ],
)
def test_old_messages_are_still_read(kind, body, file):
    payload = (golden.FOLDER / file).read_bytes()
    message = messages.unseal_upward(payload, kind, "pi-7", golden.MAC_KEY)
    assert messages.body(message, kind) == body


def test_an_old_order_is_still_read():
    payload = (golden.FOLDER / "assignment-1.dsse.json").read_bytes()
    assert messages.open_assignment(payload, "pi-7", golden.KEY.public) == golden.ASSIGNMENT


def test_an_old_command_is_still_read():
    payload = (golden.FOLDER / "command-1.dsse.json").read_bytes()
    assert messages.open_command(payload, "pi-7", golden.KEY.public) == golden.COMMAND


def test_a_command_is_for_one_device_and_no_order_passes_for_one():
    payload = messages.sign_command(golden.COMMAND, golden.KEY)
    with pytest.raises(UntrustedError, match="a command for 'pi-7' was sent to pi-8"):
        messages.open_command(payload, "pi-8", golden.KEY.public)
    with pytest.raises(UntrustedError):
        messages.open_command(payload, "pi-7", OTHER.public)
    order = messages.sign_assignment(golden.ASSIGNMENT, golden.KEY)
    with pytest.raises(UntrustedError):
        messages.open_command(order, "pi-7", golden.KEY.public)


def test_an_old_bundle_is_still_read():
    data = (golden.FOLDER / "bundle-1.edge").read_bytes()
    found = bundle.unpack(data, [golden.KEY.public])
    assert found.model == b"not a model"
    assert found.baseline == golden.BASELINE
    assert found.golden.inputs.shape == (1, 2, 2, 1)


def test_a_newer_version_is_refused_with_what_to_do():
    newer = formats.to_json(msgspec.structs.replace(golden.MANIFEST, format=2))
    with pytest.raises(UnsupportedVersionError, match="format 2, this side reads format 1"):
        formats.from_json(bundle.Manifest, newer, "a manifest")


def test_a_field_from_the_future_is_ignored():
    raw = msgspec.json.decode((golden.FOLDER / "manifest-1.json").read_bytes())
    raw["from_the_future"] = 1
    read = formats.from_json(bundle.Manifest, msgspec.json.encode(raw), "a manifest")
    assert read == golden.MANIFEST


@given(st.binary(max_size=300))
def test_junk_is_refused_in_our_words(junk):
    for read in (
        lambda: messages.unseal_upward(junk, "report", "pi-7", golden.MAC_KEY),
        lambda: messages.unseal_ack(junk, "pi-7", golden.MAC_KEY),
        lambda: messages.open_assignment(junk, "pi-7", golden.KEY.public),
        lambda: messages.open_command(junk, "pi-7", golden.KEY.public),
        lambda: bundle.unpack(junk, [golden.KEY.public]),
        lambda: bundle.decode_golden(junk),
        lambda: formats.from_json(identity.Trust, junk, "trust"),
    ):
        with pytest.raises(EdgeError):
            read()


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_no_changed_byte_of_a_bundle_goes_unnoticed(where, change):
    data = bytearray(golden.packed_bundle())
    where %= len(data)
    data[where] ^= change
    try:
        found = bundle.unpack(bytes(data), [golden.KEY.public])
    except EdgeError:
        return
    # A flip in zip bookkeeping (a date, a comment) may pass here: what it holds is what was signed,
    # and the order's digest over the whole file still refuses it on the device.
    assert found.members == bundle.unpack(golden.packed_bundle(), [golden.KEY.public]).members
    assert found.digest != bundle.unpack(golden.packed_bundle(), [golden.KEY.public]).digest


def test_a_bundle_by_an_unknown_key_is_refused():
    with pytest.raises(UntrustedError, match="the signature does not hold"):
        bundle.unpack(golden.packed_bundle(), [OTHER.public])


def test_a_member_that_unpacks_to_more_than_listed_is_refused():
    out = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(golden.packed_bundle())) as source,
        zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for name in source.namelist():
            data = source.read(name)
            bomb.writestr(name, b"\0" * 50_000_000 if name == bundle.MODEL else data)
    with pytest.raises(CorruptBundleError, match=r"model\.tflite is longer than 11 bytes"):
        bundle.unpack(out.getvalue(), [golden.KEY.public])


def zipped(files):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as made:
        for name, data in files.items():
            made.writestr(name, data)
    return out.getvalue()


def test_a_bundle_that_nobody_signed_may_be_looked_at_but_unpacks_no_bomb(monkeypatch):
    """Here the manifest, too, is the attacker's, and lists what the bomb unpacks to."""
    monkeypatch.setattr(bundle, "MAX_BUNDLE", 8_000_000)
    files = bundle.contents(golden.packed_bundle())
    manifest = msgspec.json.decode(files[bundle.MANIFEST_FILE])
    bomb = b"\0" * 9_000_000
    manifest["members"][bundle.CARD] = {"sha256": bundle.sha256(bomb), "length": len(bomb)}
    head = msgspec.json.encode(manifest)
    lies = zipped(files | {bundle.MANIFEST_FILE: head, bundle.CARD: bomb})
    assert len(lies) < 100_000
    many = zipped(files | {f"{number}": b"" for number in range(20)})
    for data in (lies, many):
        for read in (bundle.read_manifest, bundle.contents):
            with pytest.raises(CorruptBundleError, match=r"files that unpack to .* over the limit"):
                read(data)


def test_names_that_lead_out_of_a_folder_lead_nowhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = bundle.contents(golden.packed_bundle())
    data = zipped({"../out": b"x", "/edge-out": b"x", **files, "a/../../out": b"x"})
    assert set(bundle.unpack(data, [golden.KEY.public]).members) == set(bundle.MEMBERS)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "x.edge").write_bytes(data)
    with pytest.raises(SystemExit) as ended:
        main(["inspect", "in/x.edge"])
    assert ended.value.code == 0
    assert [str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*")] == ["in", "in/x.edge"]


def a_header_of(*shape):
    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        out, {"descr": "|u1", "fortran_order": False, "shape": shape}
    )
    return out.getvalue()


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"inputs.npy": b"\0" * 9_000_000}, "over the limit"),
        ({f"{number}.npy": b"" for number in range(20)}, "over the limit"),
        ({"expected_builtin.npy": a_header_of(1 << 50)}, "can't be read"),
        ({"expected_builtin.npy": a_header_of(3)}, "can't be read"),
        ({"inputs.npy": b"no array", "expected_builtin.npy": b"nor this"}, "no array"),
    ],
)
def test_golden_samples_that_lie_about_their_size_are_refused(monkeypatch, files, words):
    monkeypatch.setattr(bundle, "MAX_BUNDLE", 8_000_000)
    with pytest.raises(CorruptBundleError, match=words):
        bundle.decode_golden(zipped(files))


def test_same_input_gives_the_same_bundle():
    assert golden.packed_bundle() == golden.packed_bundle()


def test_an_order_for_another_device_or_by_another_key_is_refused():
    payload = messages.sign_assignment(golden.ASSIGNMENT, golden.KEY)
    with pytest.raises(UntrustedError, match="an order for 'pi-7' was sent to pi-8"):
        messages.open_assignment(payload, "pi-8", golden.KEY.public)
    forged = messages.sign_assignment(golden.ASSIGNMENT, OTHER)
    with pytest.raises(UntrustedError):
        messages.open_assignment(forged, "pi-7", golden.KEY.public)


def test_a_signed_manifest_does_not_pass_for_an_order():
    signed = golden.KEY.seal(
        formats.to_json(golden.ASSIGNMENT), "application/vnd.edge.manifest+json"
    )
    with pytest.raises(UntrustedError, match=r"expected application/vnd\.edge\.assignment"):
        messages.open_assignment(msgspec.json.encode(signed), "pi-7", golden.KEY.public)


def test_a_message_moved_to_another_topic_or_device_or_changed_is_refused():
    payload = golden.sealed(golden.EVENT, 3)
    with pytest.raises(UntrustedError, match="wrong HMAC"):
        messages.unseal_upward(payload, "report", "pi-7", golden.MAC_KEY)
    with pytest.raises(UntrustedError, match="in the name of"):
        messages.unseal_upward(payload, "event", "pi-8", golden.MAC_KEY)
    with pytest.raises(UntrustedError, match="wrong HMAC"):
        messages.unseal_upward(payload, "event", "pi-7", b"x" * 32)


@pytest.mark.parametrize(
    "name", ["edge/1/pi-7/desired", "edge/2/pi-7/report", "edge/1/a/b/report", "", "edge/1/x/#"]
)
def test_only_upward_topics_are_parsed(name):
    with pytest.raises(FormatError):
        topics.parse_upward(name)


def test_both_sides_derive_the_same_secrets_and_no_other_device_does():
    device, server = identity.new_exchange_key(), identity.new_exchange_key()
    mine = identity.shared_secrets(device, identity.exchange_public(server), "pi-7")
    theirs = identity.shared_secrets(server, identity.exchange_public(device), "pi-7")
    assert mine == theirs
    assert mine != identity.shared_secrets(device, identity.exchange_public(server), "pi-8")


def test_a_token_proves_itself_and_pins_the_server():
    document = formats.to_json(golden.TRUST)
    token = identity.Token.new(document)
    assert identity.Token.parse(str(token)) == token
    request = identity.EnrolRequest(token_id=token.id, device="d", public="0" * 64, profile="p")
    proof = identity.prove(request, token.key)
    assert identity.proven(proof, token.key)
    assert token.secret not in str(proof)
    assert not identity.proven(msgspec.structs.replace(proof, device="e"), token.key)
    answer = msgspec.json.decode(
        (golden.FOLDER / "enrol-answer-1.json").read_bytes(), type=identity.EnrolAnswer
    )
    assert identity.accept_trust(answer, token) == golden.TRUST
    other = identity.Token.new(b"another server's document")
    with pytest.raises(UntrustedError, match="not the one the token names"):
        identity.accept_trust(answer, other)


def test_a_bad_token_is_not_repeated_in_the_error():
    with pytest.raises(InvalidInputError) as caught:
        identity.Token.parse("edge1.secret-stuff")
    assert "secret-stuff" not in str(caught.value)


numbers = hnp.arrays(
    np.float64, st.integers(0, 60), elements=st.floats(-1e6, 1e6) | st.just(float("nan"))
)


@given(numbers, numbers)
def test_the_sketch_of_two_halves_added_is_the_sketch_of_the_whole(one, other):
    channel = sketch.Channel(kind="numeric", edges=(-10.0, 0.0, 3.0), counts=(), mean=0, sd=1)
    added = sketch.merge(sketch.sketch(channel, one), sketch.sketch(channel, other))
    whole = sketch.sketch(channel, np.concatenate([one, other]))
    assert added.counts == whole.counts
    assert (added.rows, added.missing) == (whole.rows, whole.missing)
    assert (added.low, added.high) == (whole.low, whole.high)
    assert added.total == pytest.approx(whole.total, rel=1e-9, abs=1e-6)
    assert sum(whole.counts) == whole.rows


def test_sketches_on_other_edges_are_not_added_up():
    with pytest.raises(InvalidInputError, match="can't be added up"):
        sketch.merge(sketch.Sketch([1]), sketch.Sketch([1, 2]))


def test_edges_have_a_name_that_only_edges_change():
    moved = msgspec.structs.replace(golden.BASELINE, rows=9)
    assert moved.edges_id == golden.BASELINE.edges_id
    brightness = golden.BASELINE.channels["input.brightness"]
    other = dict(golden.BASELINE.channels)
    other["input.brightness"] = msgspec.structs.replace(brightness, edges=(0.0, 0.4, 1.0))
    assert sketch.Baseline(other, 8).edges_id != golden.BASELINE.edges_id
