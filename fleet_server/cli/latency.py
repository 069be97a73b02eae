"""`edge benchmark --device`: what a device's models really take there, reported or timed now."""

import time
from pathlib import Path

from edge_sdk.errors import InvalidInputError, ServerError
from fleet_server.cli.asking import show
from fleet_server.cli.places import open_client
from fleet_server.client import Client

WAIT, POLL = 60.0, 0.5  # seconds for a device's answer


def on_device(
    device: str, server: str | None, data_dir: Path | None, runs: int, *, as_json: bool
) -> None:
    """Print the latency of a device's models; with `runs` it times that many answers now.

    Raises:
        InvalidInputError: `runs` is out of range.
        ServerError: the server can't be reached, knows no such device, or that did not answer.
    """
    with open_client(server, data_dir) as client:
        if runs:
            _timed_now(client, device, runs, as_json=as_json)
        else:
            _reported(client, device, as_json=as_json)


def _reported(client: Client, device: str, *, as_json: bool) -> None:
    found = client.latency(device)
    words = [
        f"{one.ms_p50:9.3f} ms p50  {one.ms_p90:9.3f} ms p90  {one.rows:,} rows in {one.windows} "
        f"windows  {one.model} {one.version} ({one.digest[:12]})"
        for one in found
    ]
    nothing = f"{device} has reported no answers yet"
    show(found, "\n".join(words) or nothing, as_json=as_json)


def _timed_now(client: Client, device: str, runs: int, *, as_json: bool) -> None:
    if not 1 <= runs <= 10_000:
        raise InvalidInputError(f"--runs is {runs:,}, needed is 1 to 10,000")
    found, until = client.measure(device, runs), time.monotonic() + WAIT
    while not found.words:
        if time.monotonic() > until:
            raise ServerError(
                f"{device} did not answer within {WAIT:.0f} s; it will when it is back, as a line "
                "of its history"
            )
        time.sleep(POLL)
        found = client.measured(found)
    show(found, found.words, as_json=as_json)
