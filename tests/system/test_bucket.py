"""Bundles in a bucket: moto's server, a process that speaks S3, stands for the store."""

import json
import sys

import httpx2
import pytest
from click.testing import CliRunner

from edge_sdk.cli import edge
from edge_sdk.errors import EdgeError, InvalidInputError
from edge_sdk.files import sha256
from edge_sdk.signing import SigningKey
from fleet_server import bundle_files
from fleet_server.bucket import Bucket
from fleet_server.registry import Registry
from tests.bundles import make_bundle
from tests.s3 import SECRET, s3
from tests.server_side import NOW, backend, join, server_process


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    with s3(tmp_path_factory.mktemp("s3")) as made:
        yield made


@pytest.fixture
def store(running, monkeypatch):
    for name, value in running.environment.items():
        monkeypatch.setenv(name, value)
    return running


def target(data, version, profile="raspberry-pi-4"):
    return f"targets/{profile}/{sha256(data)}.digits-{version}-{profile}.edge"


def registry(back, folder, url):
    """Over what `back` has published, with a bucket from now on."""
    keys = [back.publisher.public]
    return Registry(back.store, folder / "bundles", keys, back.repository, Bucket(url))


def test_a_server_whose_folder_is_lost_serves_what_is_in_the_bucket(store, tmp_path):
    """Whole, from where a download broke off, as a TUF target, and as a delta."""
    key, where = SigningKey.generate(), f"s3://fleet/{tmp_path.name}"
    key.save(tmp_path / "signing.key")
    one, two = (make_bundle(key, version=v, model=b"m" * 50_000 + v.encode()) for v in "12")
    options = ("--publisher", str(tmp_path / "signing.pub"), "--bundles", where)
    with server_process(tmp_path / "data", *options) as server:
        with server.client() as fleet, httpx2.Client(base_url=server.where.url) as http:
            fleet.publish(one)
            fleet.publish(two)
            assert store.get(f"{tmp_path.name}/{target(two, '2')}") == two
            for path in (tmp_path / "data" / "bundles").glob("*.edge"):
                path.unlink()
            device, *_ = join(http, fleet.new_enrolment_key(uses=1).token, "pi-1")
            token = f"{device.name}:{device.secrets.http_token}"
            http.headers["authorization"] = f"Bearer {token}"
            asked = f"/device/v1/bundles/{sha256(two)}"
            rest = http.get(asked, headers={"Range": "bytes=1000-", "If-Range": f'"{sha256(two)}"'})
            assert (rest.status_code, rest.content) == (206, two[1000:])
            assert http.get(asked).content == two
            assert http.get(f"/device/v1/tuf/{target(one, '1')}").content == one
            assert http.get(f"/device/v1/tuf/{target(one, '7')}").status_code == 404
            assert http.get(f"/device/v1/deltas/{sha256(one)}/{sha256(two)}").status_code == 200
            places = [*("--dir", server.data_dir / "trust"), *("--keys", server.data_dir / "keys")]
            gone = CliRunner().invoke(edge, ["trust", "withdraw", "digits", "1", *map(str, places)])
            assert gone.exit_code == 0, gone.output
            for path in (f"tuf/{target(one, '1')}", f"bundles/{sha256(one)}"):
                assert http.get(f"/device/v1/{path}").status_code == 404
            assert http.get(f"/device/v1/deltas/{sha256(two)}/{sha256(one)}").status_code == 404
            assert http.get(asked).content == two
        assert not list((tmp_path / "data" / "trust" / "targets").rglob("*.edge"))
        assert SECRET not in server.output
    (tmp_path / "data" / "bundles" / f"{sha256(two)}.edge").unlink()
    bare = (*options[:2], "--json-logs")  # without its bucket
    with server_process(tmp_path / "data", *bare) as server:
        told = httpx2.get(server.where.url + asked, headers={"authorization": f"Bearer {token}"})
        assert (told.status_code, told.json()["status"]) == (503, 503)
        assert "start the server with the --bundles s3://… that it had" in told.json()["detail"]
        server.stop()
    said = [json.loads(line)["words"] for line in server.output.splitlines()]
    assert any("1 of 2 published bundles are not in" in words for words in said)
    assert any("page http" in words for words in said)
    assert "code=" not in server.output  # what opens the page is in no log


def test_what_was_published_into_the_folder_is_handed_in(store, tmp_path, database):
    url = f"s3://fleet/{tmp_path.name}"
    with backend(tmp_path, database) as back:
        path = back.registry.path(back.bundle.digest)
        data = path.read_bytes()
        registry(back, tmp_path, url)
        assert store.get(f"{tmp_path.name}/{target(data, '1')}") == data
        path.unlink()
        assert registry(back, tmp_path, url).path(back.bundle.digest).read_bytes() == data


def test_the_folder_keeps_those_that_were_asked_for_last(store, tmp_path, database, monkeypatch):
    monkeypatch.setattr(bundle_files, "NEAR", 2)
    with backend(tmp_path, database, bucket=Bucket(f"s3://fleet/{tmp_path.name}")) as back:
        datas = [make_bundle(back.publisher, version=str(v)) for v in range(2, 6)]
        for data in datas:
            back.registry.publish(data, NOW)
        for data in [*datas, *datas]:
            assert back.registry.path(sha256(data)).read_bytes() == data
        assert len(list((tmp_path / "bundles").glob("*.edge"))) == 2


def test_other_bytes_in_the_bucket_are_not_passed_on(store, tmp_path, database):
    with backend(tmp_path, database, bucket=Bucket(f"s3://fleet/{tmp_path.name}")) as back:
        data = make_bundle(back.publisher, version="2")
        path = back.registry.path(back.registry.publish(data, NOW).digest)
        path.unlink()
        store.put(f"{tmp_path.name}/{target(data, '2')}", b"something else")
        with pytest.raises(EdgeError, match="not the bundle of that name"):
            back.registry.path(sha256(data))
        assert not path.exists()


def test_nothing_is_published_while_the_store_is_gone_and_nothing_is_deleted(
    tmp_path, database, monkeypatch
):
    with s3(tmp_path) as own:
        for name, value in own.environment.items():
            monkeypatch.setenv(name, value)
        with backend(tmp_path, database) as back:
            own.kill()
            after = registry(back, tmp_path, "s3://fleet/gone")
            two = make_bundle(back.publisher, version="2")
            with pytest.raises(EdgeError, match=r"s3://fleet/gone can't be written .*reachable"):
                after.publish(two, NOW)
            assert back.store.bundle(sha256(two)) is None
            assert sha256(after.path(back.bundle.digest).read_bytes()) == back.bundle.digest


@pytest.mark.parametrize(
    "url",
    ["s3://", "https://s3.lan/fleet", f"s3://key:{SECRET}@fleet", f"s3://fleet/a?secret={SECRET}"],
)
def test_what_is_no_bucket_is_refused_without_repeating_what_may_be_secret(url):
    with pytest.raises(InvalidInputError, match="s3://BUCKET") as told:
        Bucket(url)
    assert SECRET not in str(told.value)


def test_without_the_extra_one_sentence_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "obstore", None)  # as if it were not installed
    with pytest.raises(EdgeError, match=r"pip install 'edge-deployment-sdk\[server,s3\]'"):
        Bucket("s3://fleet")
