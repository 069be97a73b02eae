"""Boards as data, and the commands that need nothing but the base install."""

import json
import re
import stat
from importlib import resources

import pytest
from click.testing import CliRunner

from edge_sdk.cli.bundles import inspect
from edge_sdk.cli.keys import keys, signer
from edge_sdk.cli.profiles import profile
from edge_sdk.errors import CorruptBundleError, InvalidInputError, UntrustedError
from edge_sdk.profiles import load_profile, parse_profile, profile_names
from edge_sdk.signing import PublicKey, SigningKey
from tests.bundles import make_bundle


def run(command, *words):
    done = CliRunner().invoke(command, [str(word) for word in words])
    if done.exception is not None:
        raise done.exception
    return done


@pytest.mark.parametrize("name", profile_names())
def test_every_shipped_profile_can_be_used_and_is_named_as_its_file(name):
    assert load_profile(name).name == name


@pytest.mark.parametrize("name", profile_names())
def test_every_figure_of_a_shipped_profile_has_a_source_above_it(name):
    text = (resources.files("hw_profiles") / f"{name}.toml").read_text()
    for group in text.split("\n\n"):
        if re.search(r"^\w+ = [\d.]", group.replace("format = 1", ""), re.MULTILINE):
            assert "#" in group, group


def test_the_boards_of_the_first_release_are_there():
    assert {"raspberry-pi-4", "raspberry-pi-zero-2-w", "coral-usb", "cortex-m7"} <= {
        *profile_names()
    }


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("ram_bytes = 0", "ram_bytes must be above zero"),
        ("slowdown = -1.0", "slowdown must be above zero"),
        ("flash_byte = 1", "flash_byte"),
        ('precisions = ["int3"]', "int3"),
        ("precisions = []", "precisions must name at least one"),
        ("format = 7", "upgrade the side that is older"),
    ],
)
def test_a_wrong_profile_says_what_is_wrong(line, words):
    text = (resources.files("hw_profiles") / "raspberry-pi-4.toml").read_text()
    field = line.split(" = ")[0]
    changed = re.sub(rf"^{field} = .*$", "", text, flags=re.MULTILINE) + f"\n{line}\n"
    with pytest.raises(InvalidInputError, match=re.escape(words)):
        parse_profile(changed.encode(), "mine.toml")


def test_the_list_is_for_people_and_programs():
    shown = run(profile, "list")
    assert "raspberry-pi-4" in shown.stdout
    assert [one["name"] for one in json.loads(run(profile, "list", "--json").stdout)] == (
        profile_names()
    )


def test_a_board_is_shown_by_name_or_by_path(tmp_path):
    text = (resources.files("hw_profiles") / "cortex-m7.toml").read_text()
    own = tmp_path / "own.toml"
    own.write_text(text.replace('"cortex-m7"\n', '"mine"\n', 1) + "slowdown = 9.5\n")
    assert "unknown, so no latency is estimated" in run(profile, "show", "cortex-m7").stdout
    assert "about 9.5 x this host" in run(profile, "show", own).stdout
    assert json.loads(run(profile, "show", own, "--json").stdout)["name"] == "mine"


def test_a_new_key_is_private_and_never_written_over_another(tmp_path):
    path = tmp_path / "keys" / "mine.key"
    shown = run(keys, "new", path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert shown.stdout.strip() == SigningKey.load(path).public.hex
    with pytest.raises(InvalidInputError, match="never overwritten"):
        run(keys, "new", path)
    path.unlink()
    with pytest.raises(InvalidInputError, match=r"mine\.pub exists"):
        run(keys, "new", path)


def test_the_user_s_own_key_is_made_once_and_announced(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("EDGE_SIGNING_KEY", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    first = signer(None)()
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert signer(None)().public.hex == first.public.hex
    assert capsys.readouterr().err == ""
    assert (tmp_path / "edge" / "signing.key").exists()
    monkeypatch.setenv("EDGE_SIGNING_KEY", str(tmp_path / "other.key"))
    assert signer(None)().public.hex != first.public.hex


def test_a_key_that_is_named_is_never_made_up(tmp_path):
    with pytest.raises(InvalidInputError, match="edge keys new"):
        signer(tmp_path / "missing.key")


@pytest.fixture
def bundle(tmp_path):
    key = SigningKey.generate()
    key.save(tmp_path / "signing.key")
    path = tmp_path / "model.edge"
    path.write_bytes(make_bundle(key))
    return path


def test_inspect_says_that_nobody_checked_the_signature(bundle):
    shown = run(inspect, bundle).stdout
    assert "NOT CHECKED" in shown
    assert "model.tflite" in shown
    assert json.loads(run(inspect, bundle, "--json").stdout)["signed_by"] is None


def test_inspect_checks_it_with_a_key(bundle):
    public = bundle.with_name("signing.pub")
    assert "holds, and so does every member" in run(inspect, bundle, "--key", public).stdout
    found = json.loads(run(inspect, bundle, "--key", public, "--json").stdout)
    assert found["signed_by"] == PublicKey.load(public).keyid


def test_inspect_refuses_a_damaged_bundle_with_a_key_or_without(bundle):
    data = bytearray(bundle.read_bytes())
    data[len(data) // 2] ^= 1
    bundle.write_bytes(data)
    for options in ((), ("--key", bundle.parent / "signing.pub")):
        with pytest.raises(CorruptBundleError):
            run(inspect, bundle, *options)


def test_inspect_refuses_another_key_and_what_is_no_bundle(bundle, tmp_path):
    SigningKey.generate().save(tmp_path / "other.key")
    with pytest.raises(UntrustedError):
        run(inspect, bundle, "--key", tmp_path / "other.pub")
    bundle.write_bytes(b"no zip")
    with pytest.raises(CorruptBundleError):
        run(inspect, bundle)
    with pytest.raises(InvalidInputError, match="No such file"):
        run(inspect, tmp_path / "missing.edge")
