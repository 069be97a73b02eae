"""The repository as a client sees it: always whole, and never more than the offline keys allow."""

import random
from datetime import UTC, datetime

import pytest
from tuf.api.exceptions import DownloadHTTPError, ExpiredMetadataError
from tuf.api.metadata import Metadata
from tuf.ngclient import FetcherInterface, Updater, UpdaterConfig

from edge_sdk import files
from edge_sdk.errors import InvalidInputError, RefusedError
from edge_sdk.files import sha256
from edge_sdk.signing import SigningKey
from fleet_server.store import Store
from fleet_server.trust import ceremony, folder, roles
from fleet_server.trust.founding import create
from fleet_server.trust.keeper import Keeper, open_repository
from fleet_server.trust.repository import Repository
from fleet_server.trust.roles import Target
from tests.server_side import NOW, every_alert

DAY = 86400.0
PI, TPU = "raspberry-pi-4", "coral-usb"


@pytest.fixture
def made(tmp_path):
    return create(
        tmp_path / "trust", tmp_path / "keys", profiles=[PI], root_keys=1, threshold=1, now=NOW
    )


class Shelf(FetcherInterface):
    """Any static server: it hands out files."""

    def __init__(self, metadata):
        self.metadata = metadata

    def _fetch(self, url):
        path = self.metadata / url.rpartition("/")[2]
        if not path.is_file():
            raise DownloadHTTPError("no such file", 404)
        return iter((path.read_bytes(),))


class Client:
    """A device's view: it remembers what it saw, and refuses to go back."""

    def __init__(self, made, memory):
        self.made, self.memory = made, memory
        self.first = (made.folder.metadata / "1.root.json").read_bytes()
        memory.mkdir()

    def sees(self, name, version, profile=PI, now=NOW):
        shelf = Shelf(self.made.folder.metadata)
        updater = Updater(str(self.memory), "m/", fetcher=shelf, bootstrap=self.first)
        updater._trusted_set.reference_time = datetime.fromtimestamp(now, UTC)
        found = updater.get_targetinfo(roles.target_path(name, version, profile))
        return found.hashes["sha256"] if found else None


@pytest.fixture
def client(made, tmp_path):
    return Client(made, tmp_path / "client")


def target(version="1", profile=PI, name="digits"):
    data = f"{name} {version} {profile}".encode()
    return roles.Target(
        name=name, version=version, profile=profile, digest=sha256(data), length=len(data)
    )


def publish(made, tmp_path, version="1", profile=PI, now=NOW, name="digits"):
    wanted = target(version, profile, name)
    source = tmp_path / "bundle"
    source.write_bytes(f"{name} {version} {profile}".encode())
    made.publish(wanted, source, now)
    return wanted


def offline(made, tmp_path, *names):
    """Carry these keys away; where they are now."""
    away = tmp_path / "offline"
    away.mkdir(exist_ok=True)
    for name in names:
        (made.keys.folder / name).rename(away / name)
    return away


def test_a_published_bundle_is_seen_and_lies_under_its_digest(made, client, tmp_path):
    assert client.sees("digits", "1") is None
    wanted = publish(made, tmp_path)
    assert client.sees("digits", "1") == wanted.digest
    stored = made.folder.targets / PI / f"{wanted.digest}.digits-1-{PI}.edge"
    assert sha256(stored.read_bytes()) == wanted.digest


def test_publishing_again_changes_nothing(made, tmp_path):
    publish(made, tmp_path)
    before = {p: p.read_bytes() for p in made.folder.metadata.iterdir()}
    publish(made, tmp_path, now=NOW + 60)
    assert {p: p.read_bytes() for p in made.folder.metadata.iterdir()} == before


def test_a_withdrawn_version_is_seen_no_more_until_it_is_published_again(made, client, tmp_path):
    wanted = publish(made, tmp_path)
    assert made.withdraw("digits", "1", NOW) == [wanted.path]
    assert client.sees("digits", "1") is None
    assert not list((made.folder.targets / PI).iterdir())
    assert made.withdraw("digits", "1", NOW) == []
    publish(made, tmp_path)
    assert client.sees("digits", "1") == wanted.digest


def test_a_profile_without_delegation_is_refused_once_the_targets_key_is_offline(made, tmp_path):
    away = offline(made, tmp_path, "targets.pem")
    with pytest.raises(RefusedError, match="nobody may list bundles for profile coral-usb"):
        publish(made, tmp_path, profile=TPU)
    with pytest.raises(RefusedError, match="edge trust delegate coral-usb"):
        made.allows(target(profile=TPU))
    done = ceremony.delegate(made, TPU, NOW)
    assert done.waiting == {"targets": 1}
    done = ceremony.sign(made, "targets", SigningKey.load(away / "targets.pem"), NOW)
    assert done.published == ("targets",)
    publish(made, tmp_path, profile=TPU)


def test_with_the_targets_key_beside_a_new_profile_gets_its_role(made, client, tmp_path):
    wanted = publish(made, tmp_path, profile=TPU)
    assert client.sees("digits", "1", TPU) == wanted.digest


@pytest.mark.parametrize("name", ["a/b", "..", "", "*", "a b", "ü"])
def test_names_that_could_be_read_as_other_paths_are_refused(made, name):
    for wanted in (target(profile=name), target(name=name), target(version=name)):
        with pytest.raises((InvalidInputError, RefusedError)):
            made.allows(wanted)


def test_a_profile_key_can_list_nothing_for_another_profile(made, client, tmp_path):
    publish(made, tmp_path, profile=TPU)
    current = made.folder.read()
    pi = current.profiles[roles.role_of(PI)]
    roles.enlist(pi.signed, target("666", TPU))
    roles.raise_version(pi.signed, roles.role_of(PI), NOW)
    made.commit(current, {roles.role_of(PI): pi}, NOW)
    assert client.sees("digits", "666", TPU) is None


def test_a_full_list_takes_no_more_and_is_short_enough_for_devices():
    role = roles.empty_role(NOW)
    targets = [
        Target(name="keywords", version=f"1.{n}", profile="p", digest=f"{n:064x}", length=60_000)
        for n in range(roles.MOST + 1)
    ]
    for target in targets[:-1]:
        roles.enlist(role, target)
    with pytest.raises(RefusedError, match="10,000 bundles are listed for profile p"):
        roles.enlist(role, targets[-1])
    roles.enlist(role, targets[0])
    assert len(Metadata(role).to_bytes()) < UpdaterConfig().targets_max_length / 2


def test_root_needs_as_many_signatures_as_the_ceremony_said(tmp_path):
    made = create(
        tmp_path / "trust", tmp_path / "keys", profiles=[PI], root_keys=3, threshold=2, now=NOW
    )
    client = Client(made, tmp_path / "client")
    assert client.sees("digits", "1") is None
    away = offline(made, tmp_path, "root.pem", "root.2.pem", "root.3.pem")
    done = ceremony.rotate(made, "timestamp", NOW)
    assert done.waiting == {"root": 2}
    publish(made, tmp_path)  # goes on meanwhile, for clients of the old root
    assert client.sees("digits", "1")
    stranger = SigningKey.generate()
    with pytest.raises(InvalidInputError, match="has no say"):
        ceremony.sign(made, "root", stranger, NOW)
    done = ceremony.sign(made, "root", SigningKey.load(away / "root.pem"), NOW)
    assert done.waiting == {"root": 1}
    assert not (made.folder.metadata / "2.root.json").exists()
    done = ceremony.sign(made, "root", SigningKey.load(away / "root.3.pem"), NOW)
    assert done.published == ("root",)
    (made.keys.folder / "timestamp.pem").unlink()  # the old key is of no use any more
    publish(made, tmp_path, "2")
    assert client.sees("digits", "2")


def test_one_of_several_root_keys_is_replaced_by_name(tmp_path):
    made = create(
        tmp_path / "trust", tmp_path / "keys", profiles=[], root_keys=2, threshold=2, now=NOW
    )
    with pytest.raises(InvalidInputError, match="--revoke"):
        ceremony.rotate(made, "root", NOW)
    old = made.standing(NOW)[0].keys[0]
    assert ceremony.rotate(made, "root", NOW, old[:8]).published == ("root",)
    now = made.standing(NOW)[0]
    assert (now.version, now.threshold) == (2, 2)
    assert old not in now.keys


def test_a_signature_made_away_from_the_online_keys_waits_for_the_server(made, client, tmp_path):
    away = offline(made, tmp_path, "targets.pem")
    ceremony.delegate(made, TPU, NOW)
    elsewhere = Repository(made.folder.path, away)
    done = ceremony.sign(elsewhere, "targets", SigningKey.load(away / "targets.pem"), NOW)
    assert done.waiting == {"targets": 0}
    assert made.renew(NOW) == ["targets"]
    publish(made, tmp_path, profile=TPU)
    assert client.sees("digits", "1", TPU)


def test_a_ceremony_waits_for_the_one_before(made, tmp_path):
    offline(made, tmp_path, "root.pem")
    ceremony.rotate(made, "snapshot", NOW)
    with pytest.raises(InvalidInputError, match="waits for signatures already"):
        ceremony.rotate(made, "timestamp", NOW)


def test_what_ages_is_signed_anew_in_time_and_nothing_else(made, client, tmp_path):
    publish(made, tmp_path)
    assert made.renew(NOW + 0.2 * DAY) == []
    assert made.renew(NOW + 0.3 * DAY) == ["timestamp"]
    for day in range(1, 120):
        made.renew(NOW + day * DAY)
        assert client.sees("digits", "1", now=NOW + day * DAY)
        assert [s.problem for s in made.standing(NOW + day * DAY) if s.problem] == []


def test_what_is_not_renewed_is_told_and_then_expires(made, client, tmp_path):
    publish(made, tmp_path)
    problems = {s.role: s.problem for s in made.standing(NOW + 0.6 * DAY)}
    assert "past 50% of its life" in problems["timestamp"]
    problems = {s.role: s.problem for s in made.standing(NOW + 2 * DAY)}
    assert problems["timestamp"] == "timestamp has expired"
    with pytest.raises(ExpiredMetadataError):
        client.sees("digits", "1", now=NOW + 2 * DAY)


def test_the_keeper_calls_for_a_person_when_it_can_not_renew(made, tmp_path, database):
    with Store(database) as store:
        keeper = Keeper(made, store)
        assert not keeper.look(NOW)
        away = offline(made, tmp_path, "timestamp.pem")
        assert keeper.look(NOW + 0.3 * DAY)
        [alert] = every_alert(store)
        assert (alert.kind, alert.state) == ("trust", "open")
        assert b"holds no key that may sign timestamp" in alert.document
        assert not keeper.look(NOW + 0.31 * DAY)
        assert keeper.look(NOW + 0.6 * DAY)
        [alert] = every_alert(store)
        assert b"past 50% of its life" in alert.document
        (away / "timestamp.pem").rename(made.keys.folder / "timestamp.pem")
        assert keeper.look(NOW + 0.7 * DAY)
        [alert] = every_alert(store)
        assert alert.state == "closed"
        assert [e.name for e in store.events()][:2] == ["alert closed", "alert opened"]


def test_the_keeper_calls_for_a_person_when_the_disk_is_full(made, database, monkeypatch):
    def full(_path, _data, **_):
        raise OSError(28, "No space left on device")

    with Store(database) as store:
        monkeypatch.setattr(folder, "write_atomic", full)
        assert Keeper(made, store).look(NOW + 0.3 * DAY)
        assert b"No space left" in every_alert(store)[0].document


@pytest.mark.parametrize("after", range(4))
def test_power_may_fail_before_every_write_of_a_commit(made, client, tmp_path, monkeypatch, after):
    publish(made, tmp_path)
    publish(made, tmp_path, "2")
    left = after

    def cut(path, data, **more):
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        files.write_atomic(path, data, **more)

    with monkeypatch.context() as patched:
        patched.setattr(folder, "write_atomic", cut)
        if after < 3:  # role, snapshot, timestamp
            with pytest.raises(KeyboardInterrupt):
                publish(made, tmp_path, "3")
        else:
            publish(made, tmp_path, "3")
    assert client.sees("digits", "2")
    assert bool(client.sees("digits", "3")) == (after == 3)
    publish(made, tmp_path, "4")
    publish(made, tmp_path, "3")
    assert client.sees("digits", "4")
    assert client.sees("digits", "3")


def test_a_client_is_never_cut_off_whatever_the_operator_does(made, client, tmp_path):
    chance = random.Random(3)  # noqa: S311 - a repeatable story
    now, here = NOW, set()
    for _ in range(60):
        now += chance.uniform(0, 0.2) * DAY
        match chance.randrange(6):
            case 0 | 1:
                version = str(chance.randrange(9))
                publish(made, tmp_path, version, now=now)
                here.add(version)
            case 2 if here:
                made.withdraw("digits", version := chance.choice(sorted(here)), now)
                here.discard(version)
            case 3:
                role = chance.choice([*roles.TOP, roles.role_of(PI)])
                assert not ceremony.rotate(made, role, now).waiting
        made.renew(now)
        seen = {v for v in map(str, range(9)) if client.sees("digits", v, now=now)}
        assert seen == here
    roots = sorted(made.folder.metadata.glob("*.root.json"))
    assert len(roots) == made.standing(now)[0].version
    assert len(list(made.folder.metadata.glob("*.snapshot.json"))) <= folder.KEEP


def test_a_lost_repository_is_not_replaced_behind_devices_backs(made, tmp_path):
    pinned = made.root_digest
    assert open_repository(made, pinned, NOW) == pinned
    with pytest.raises(InvalidInputError, match="enrolled devices believe no other"):
        open_repository(Repository(tmp_path / "gone", made.keys.folder), pinned, NOW)
    other = create(tmp_path / "b", tmp_path / "bk", profiles=[], root_keys=1, threshold=1, now=NOW)
    with pytest.raises(InvalidInputError, match="begins with another root"):
        open_repository(other, pinned, NOW)


def test_damaged_metadata_is_told_in_words(made):
    (made.folder.metadata / "timestamp.json").write_bytes(b"{")
    with pytest.raises(InvalidInputError, match="restore the folder from a backup"):
        made.standing(NOW)
