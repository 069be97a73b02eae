"""One try of a download, against a server that misbehaves."""

import threading
import time

import msgspec
import pytest

from device_agent.download import (
    DeniedDownloadError,
    InterruptedDownloadError,
    Wanted,
    download,
)
from device_agent.endpoint import Endpoint
from edge_sdk.errors import CorruptBundleError
from edge_sdk.files import sha256
from edge_sdk.identity import Secrets
from tests.agent_world import FleetServer

pytestmark = pytest.mark.system
DATA = bytes(range(256)) * 400


@pytest.fixture(scope="module")
def fleet():
    with FleetServer() as found:
        found.secrets["dev-1"] = Secrets(b"k", "password", "token")
        yield found


@pytest.fixture
def fetch(fleet, tmp_path):
    """Downloads DATA (or what the server has in its place) into a part file."""
    fleet.faults = type(fleet.faults)()
    fleet.ranges.clear()
    fleet.bundles[sha256(DATA)] = DATA
    part = tmp_path / "x.part"

    def go(*, cancelled: bool = False, **changes: object) -> int:
        wanted = Wanted(sha256(DATA), len(DATA), "dev-1", "token")
        stop = threading.Event()
        if cancelled:
            stop.set()
        wanted = msgspec.structs.replace(wanted, **changes)
        return download(Endpoint.parse(fleet.url), wanted, part, time.monotonic, stop)

    go.part = part
    return go


def test_a_whole_bundle_comes_in_one_go(fleet, fetch):
    assert fetch() == 0
    assert fetch.part.read_bytes() == DATA


def test_a_cut_download_goes_on_at_the_byte_where_it_ended(fleet, fetch):
    fleet.faults.cut_after = 40_000
    for _ in range(2):
        with pytest.raises(InterruptedDownloadError, match="ended at byte"):
            fetch()
    assert fetch() == 80_000
    assert fleet.ranges == [0, 40_000, 80_000]
    assert fetch.part.read_bytes() == DATA


def test_a_server_that_knows_no_ranges_starts_from_the_beginning(fleet, fetch):
    fetch.part.write_bytes(b"junk")
    fleet.faults.ignore_range = True
    assert fetch() == 0
    assert fetch.part.read_bytes() == DATA


def test_a_damaged_part_is_thrown_away_and_the_next_try_starts_anew(fleet, fetch):
    fetch.part.write_bytes(b"junk" * 100)
    with pytest.raises(InterruptedDownloadError, match="starting anew"):
        fetch()
    assert fetch() == 0


def test_a_part_longer_than_the_bundle_is_thrown_away(fleet, fetch):
    fetch.part.write_bytes(DATA + b"more")
    assert fetch() == 0


def test_a_part_that_is_whole_needs_no_server(fleet, fetch):
    fetch.part.write_bytes(DATA)
    assert fetch() == len(DATA)
    assert fleet.ranges == []


def test_wrong_bytes_are_refused_and_deleted(fleet, fetch):
    fleet.bundles[sha256(DATA)] = DATA[::-1]
    with pytest.raises(CorruptBundleError, match="the order says"):
        fetch()
    assert not fetch.part.exists()


def test_a_bundle_announced_longer_than_ordered_is_refused_before_it_comes(fleet, fetch):
    fleet.bundles[sha256(DATA)] = DATA + b"more"
    with pytest.raises(CorruptBundleError, match="offers 102,404 bytes, the order says 102,400"):
        fetch()


def test_a_bundle_that_does_not_end_is_refused_at_the_ordered_length(fleet, fetch):
    fleet.faults.longer = b"x" * 100_000
    with pytest.raises(CorruptBundleError, match="more than the assigned 102,400"):
        fetch()
    assert not fetch.part.exists()


def test_a_bundle_shorter_than_ordered_is_an_interruption(fleet, fetch):
    fleet.bundles[sha256(DATA)] = DATA[:100]
    with pytest.raises(InterruptedDownloadError, match="ended at byte 100 of 102400"):
        fetch()


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, DeniedDownloadError),
        (403, InterruptedDownloadError),
        (404, DeniedDownloadError),
        (429, InterruptedDownloadError),
        (500, InterruptedDownloadError),
        (503, InterruptedDownloadError),
    ],
)
def test_an_answer_that_is_no_bundle_says_whether_trying_again_helps(fleet, fetch, status, kind):
    fleet.faults.status = status
    with pytest.raises(kind, match=str(status)):
        fetch()


def test_a_wrong_secret_is_denied(fleet, fetch):
    with pytest.raises(DeniedDownloadError, match="401"):
        fetch(http_token="other")


def test_no_server_is_an_interruption(tmp_path):
    wanted = Wanted("0" * 64, 10, "d", "t")
    nobody = Endpoint.parse("http://127.0.0.1:9")
    with pytest.raises(InterruptedDownloadError, match="refused"):
        download(nobody, wanted, tmp_path / "p", time.monotonic, threading.Event())


def test_the_rate_limit_holds_on_average(fleet, fetch):
    begun = time.monotonic()
    fetch(rate=400_000)
    assert 0.2 < time.monotonic() - begun < 2


def test_a_cancelled_download_stops_and_keeps_what_came(fleet, fetch):
    with pytest.raises(InterruptedDownloadError, match="cancelled"):
        fetch(cancelled=True)
    assert 0 < fetch.part.stat().st_size < len(DATA)
